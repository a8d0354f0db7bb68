"""One fold: a corpus's utterances divided by a protocol, audited, and described for those who read the score."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ser.protocols.audit import Audit, audit
from ser.protocols.splits import SIDES, Protocol, Side, Split, Utterance
from ser.settings.recipe import describe, digest


class Fold:
    """One fold of a protocol on one list of utterances.

    Args:
        protocol: Divides them.
        number: Of the fold, from 0.
        table: The utterances.
        files: Name of each one's file below the root.
        digests: Hash of each one's recording.
        corpus: What kind of corpus they are of.
        labels: Names of the classes.
    """

    def __init__(
        self,
        protocol: Protocol,
        number: int,
        table: Sequence[Utterance],
        files: Sequence[str],
        digests: Sequence[str],
        corpus: str,
        labels: Sequence[str],
    ) -> None:
        self.protocol = protocol
        self.number = number
        self.table = table
        self.files = files
        self.digests = digests
        self.corpus = corpus
        self.labels = labels

    @cached_property
    def split(self) -> Split:
        """The division of :attr:`table`; a side may hold nothing, see :meth:`check`.

        Raises:
            UserError: There is no such fold.
        """
        return self.protocol.split(self.table, self.number, needed=())

    def check(self, needed: Sequence[Side] = SIDES) -> None:
        """See that the fold can be used.

        Args:
            needed: Sides that must hold something.

        Raises:
            UserError: A side that is needed holds nothing; or, to train, the sides share what they must not.
        """
        self.protocol.split(self.table, self.number, needed)
        if "train" in needed:  # what else is scored is compared with what its network was trained on
            self.audit.enforce()

    @cached_property
    def audit(self) -> Audit:
        """What the sides share."""
        return audit(self.table, self.digests, self.split, self.protocol)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the corpus, its files and labels, and the split: equal for results on the same utterances."""
        emotions = (utterance.emotion for utterance in self.table)
        files = sorted(zip(self.files, self.digests, emotions, strict=True))
        sides = {side: sorted(self.files[i] for i in self.split.side(side)) for side in SIDES}
        return digest({"corpus": self.corpus, "labels": self.labels, "files": files, "sides": sides})

    def description(self) -> dict[str, Any]:
        """Return protocol, promises, audit and sides as plain data."""
        return {
            "protocol": describe(self.protocol),
            "fold": self.number,
            "tests": self.protocol.folds(self.table)[self.number],
            "speaker_disjoint": self.protocol.speaker_disjoint,
            "test_is_validation": self.protocol.test_is_validation,
            "notes": list(self.audit.notes),
            **{side: self._side(side) for side in SIDES},
        }

    def summary(self) -> str:
        """Say in a line who is on which side."""
        sides = []
        for side, verb in zip(SIDES, ("train on", "choose on", "test"), strict=True):
            members = [self.table[i] for i in self.split.side(side)]
            speakers = sorted({utterance.speaker for utterance in members})
            who = "speakers" if len(speakers) > 1 else "speaker"
            sides.append(f"{verb} {len(members)} utterances of {who} {', '.join(speakers)}")
        return f"fold {self.number}: {'; '.join(sides)}."

    def _side(self, side: Side) -> dict[str, Any]:
        positions = self.split.side(side)
        emotions = Counter(self.table[i].emotion for i in positions)
        return {
            "utterances": len(positions),
            "speakers": sorted({self.table[i].speaker for i in positions}),
            "emotions": {label: emotions[label] for label in self.labels},
            "files": [self.files[i] for i in positions],
        }
