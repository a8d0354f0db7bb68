"""One fold: a corpus's utterances split by a protocol, audited, and described for the readers of a score."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ser.protocols.audit import Audit, audit
from ser.protocols.splits import PARTITIONS, Partition, Protocol, Split, Utterance
from ser.settings.class_paths import describe, digest


@dataclass(frozen=True)
class Fold:
    """One fold of a protocol on one list of utterances.

    Attributes:
        protocol: Splits them.
        number: Of the fold, from 0.
        table: The utterances.
        files: Each one's file name below the root.
        digests: Hash of each one's recording.
        corpus: Class name of their corpus.
        labels: Names of the classes.
    """

    protocol: Protocol
    number: int
    table: Sequence[Utterance]
    files: Sequence[str]
    digests: Sequence[str]
    corpus: str
    labels: Sequence[str]

    @cached_property
    def split(self) -> Split:
        """The split of :attr:`table`; a partition may be empty, see :meth:`check`.

        Raises:
            UserError: There is no such fold.
        """
        return self.protocol.split(self.table, self.number, needed=())

    def check(self, needed: Sequence[Partition] = PARTITIONS) -> None:
        """Check that the fold can be used.

        Args:
            needed: Partitions that must not be empty.

        Raises:
            UserError: A needed partition is empty; or, to train, partitions share what they must not.
        """
        self.protocol.split(self.table, self.number, needed)
        if "train" in needed:  # otherwise the history of the network is compared, see ser.protocols.history
            self.audit.enforce()

    @cached_property
    def audit(self) -> Audit:
        """What the partitions share."""
        return audit(self.table, self.digests, self.split, self.protocol)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the corpus, its files and labels, and the split: equal for results on the same utterances."""
        emotions = (utterance.emotion for utterance in self.table)
        files = sorted(zip(self.files, self.digests, emotions, strict=True))
        files_of = {name: sorted(self.files[i] for i in self.split[name]) for name in PARTITIONS}
        return digest({"corpus": self.corpus, "labels": self.labels, "files": files, "sides": files_of})

    def description(self) -> dict[str, Any]:
        """Return protocol, audit and partitions as plain data."""
        return {
            "protocol": describe(self.protocol),
            "fold": self.number,
            "tests": self.protocol.folds(self.table)[self.number],
            "speaker_disjoint": self.protocol.speaker_disjoint,
            "test_is_validation": self.protocol.test_is_validation,
            "notes": list(self.audit.notes),
            **{name: self._partition(name) for name in PARTITIONS},
        }

    def summary(self) -> str:
        """Describe the partitions in a line."""
        parts = []
        for name, verb in zip(PARTITIONS, ("train on", "validate on", "test"), strict=True):
            members = [self.table[i] for i in self.split[name]]
            speakers = sorted({utterance.speaker for utterance in members})
            who = "speakers" if len(speakers) > 1 else "speaker"
            parts.append(f"{verb} {len(members)} utterances of {who} {', '.join(speakers)}")
        return f"fold {self.number}: {'; '.join(parts)}."

    def _partition(self, name: Partition) -> dict[str, Any]:
        positions = self.split[name]
        emotions = Counter(self.table[i].emotion for i in positions)
        return {
            "utterances": len(positions),
            "speakers": sorted({self.table[i].speaker for i in positions}),
            "emotions": {label: emotions[label] for label in self.labels},
            "files": [self.files[i] for i in positions],
        }
