"""What training and the run folder need to know of a data module; :class:`ser.data.SpeechCorpus` is one that tells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ser.features.front_end import FrontEnd
from ser.protocols.audit import Audit
from ser.protocols.splits import Partition, Split, Utterance


class LeftOut(Protocol):
    """A file that is not used, and why."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def reason(self) -> str:
        """Why it is not used."""


class Corpus(Protocol):
    """A corpus with its front-end and its split; see :class:`ser.data.SpeechCorpus` for the methods."""

    name: str
    front_end: FrontEnd
    padding: Any

    @property
    def synthetic(self) -> bool:
        """Whether the speech is generated."""

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the network's outputs."""

    @property
    def table(self) -> Sequence[Utterance]:
        """Every utterance that is used."""

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """The files that are not used."""

    @property
    def split(self) -> Split:
        """Positions in the table, by partition."""

    @property
    def audit(self) -> Audit:
        """What the partitions share."""

    @property
    def fingerprint(self) -> str:
        """Hash of the corpus, its files and labels, and the split."""

    @property
    def input_notes(self) -> Sequence[str]:
        """Notes on the files."""

    def relative(self, path: Path) -> str:
        """Return a file's path below the corpus's root."""

    def statistics(self, by_frame: bool = False) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the training features, (..., 1) or (..., T) each."""

    def summary(self) -> str:
        """Describe the split."""

    def protocol_description(self) -> dict[str, Any]:
        """Return the content of ``protocol.json``."""

    def scored_description(self, partition: Partition, notes: Sequence[str]) -> dict[str, Any]:
        """Return the same for a network that was trained elsewhere."""

    def extended_history(self, history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return a network's history with a fit on these data."""

    def is_fit(self, fit: Mapping[str, Any]) -> bool:
        """Tell whether a fit was of these data."""

    def check_unseen(self, history: Sequence[Mapping[str, Any]], partition: Partition) -> list[str]:
        """Compare a partition with a network's history, and return notes on its score."""
