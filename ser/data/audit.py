"""The leakage audit: what the sides of a split share, and whether the protocol allows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from ser.data.splits import SIDES, Protocol, Split, Utterance
from ser.errors import UserError

NAMED = 5  # pairs that a message names


@dataclass(frozen=True)
class Audit:
    """What a split's sides share.

    Attributes:
        leaks: What the protocol forbids, a sentence each.
        notes: What it tolerates, a sentence each; every output says so.
    """

    leaks: tuple[str, ...]
    notes: tuple[str, ...]

    def enforce(self) -> None:
        """Stop on a leak.

        Raises:
            UserError: Naming what is shared.
        """
        if self.leaks:
            raise UserError("The split leaks, so its scores would mean nothing:\n  " + "\n  ".join(self.leaks))


def audit(utterances: Sequence[Utterance], digests: Sequence[str], split: Split, protocol: Protocol) -> Audit:
    """Compare every two sides of a split.

    Args:
        utterances: All of them.
        digests: Hash of the content of each utterance's file.
        split: Positions in ``utterances``.
        protocol: Says what is forbidden.
    """
    leaks: list[str] = []
    notes: list[str] = []
    for one, other in combinations(SIDES, 2):
        ours, theirs = split.side(one), split.side(other)
        speakers = {utterances[i].speaker for i in ours} & {utterances[i].speaker for i in theirs}
        if speakers:
            shared = f"{len(speakers)} speakers are in {one} and in {other}: {_some(sorted(speakers))}."
            (leaks if protocol.speaker_disjoint else notes).append(shared)
        where = {digests[i]: i for i in ours}
        pairs = [(where[digests[i]], i) for i in theirs if digests[i] in where]
        if pairs:
            named = _some([f"{utterances[a].path.name} = {utterances[b].path.name}" for a, b in pairs])
            leaks.append(f"{len(pairs)} recordings are in {one} and, byte for byte, in {other}: {named}.")
    sentences = {u.sentence for u in (utterances[i] for i in split.test) if u.sentence is not None}
    known = sentences & {utterances[i].sentence for i in split.train}
    if known:
        notes.append(f"{len(known)} of {len(sentences)} sentences of test are also spoken in train.")
    return Audit(tuple(leaks), tuple(notes))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
