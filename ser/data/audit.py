"""The leakage audit: what the sides of a split share, and whether the protocol allows it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from ser.data.splits import SIDES, Protocol, Split, Utterance
from ser.errors import UserError

NAMED = 5  # speakers, sentences or pairs that a message names


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

    Speakers may be shared where the protocol is not speaker-disjoint, sessions and sentences likewise; the same
    recording on two sides is always a leak, but for a test that is the validation set by the protocol's own word.

    Args:
        utterances: All of them.
        digests: Hash of the content of each utterance's file.
        split: Positions in ``utterances``.
        protocol: Says what is forbidden.
    """
    leaks: list[str] = []
    notes: list[str] = []
    heard: list[str] = []
    pairs = list(combinations(SIDES, 2))
    if protocol.test_is_validation:
        pairs.remove(("val", "test"))
        notes.append(
            "The test is the validation set, as in the paper: the checkpoint was chosen on the utterances that are "
            "scored, so the score is too good."
        )
    for one, other in pairs:
        ours, theirs = split.side(one), split.side(other)
        shared = _shared(lambda i: utterances[i].speaker, ours, theirs)
        if shared and protocol.speaker_disjoint:
            leaks.append(f"{_count(shared, 'speaker')} in {one} and in {other}: {_some(shared)}.")
        elif shared:
            heard.append(f"{len(shared)} in {one} and {other}")
        where = {digests[i]: i for i in ours}
        same = [(where[digests[i]], i) for i in theirs if digests[i] in where]
        if same:
            named = _some([f"{utterances[a].path.name} = {utterances[b].path.name}" for a, b in same])
            leaks.append(f"{_count(same, 'recording')} in {one} and, sample for sample, in {other}: {named}.")
        shared = _shared(lambda i: utterances[i].session, ours, theirs)
        if shared and protocol.session_disjoint:
            leaks.append(f"{_count(shared, 'session')} in {one} and in {other}: {_some(shared)}.")
        shared = _shared(lambda i: utterances[i].sentence, ours, theirs)
        if shared and protocol.sentence_disjoint and other == "test":
            leaks.append(f"{_count(shared, 'sentence')} in {one} and in {other}: {_some(shared)}.")
    if heard:
        notes.append(f"Speakers are shared, as the protocol allows: {', '.join(heard)}.")
    notes += _tolerated(utterances, split, protocol)
    return Audit(tuple(leaks), tuple(notes))


def _tolerated(utterances: Sequence[Utterance], split: Split, protocol: Protocol) -> Iterator[str]:
    """Say what test and train have in common without being forbidden, and what is not used at all."""
    for fact, verb, forbidden in (
        ("session", "recorded", protocol.session_disjoint),
        ("sentence", "spoken", protocol.sentence_disjoint),
    ):
        tested = {getattr(utterances[i], fact) for i in split.test} - {None}
        trained = {getattr(utterances[i], fact) for i in split.train}
        if tested & trained and not forbidden:
            yield f"{len(tested & trained)} of {len(tested)} {fact}s of test are also {verb} in train."
    unused = len(utterances) - len({*split.train, *split.val, *split.test})
    if unused:
        yield f"{unused} of {len(utterances)} utterances are on no side of this fold."


def _shared(fact: Callable[[int], str | None], ours: Sequence[int], theirs: Sequence[int]) -> list[str]:
    shared = {fact(i) for i in ours} & {fact(i) for i in theirs}
    return sorted(value for value in shared if value is not None)


def _count(found: Sequence[object], noun: str) -> str:
    return f"1 {noun} is" if len(found) == 1 else f"{len(found)} {noun}s are"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
