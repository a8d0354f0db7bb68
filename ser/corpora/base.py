"""The base class of every corpus: the recordings in a folder, and how a protocol splits them."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import platformdirs

from ser.corpora.download import Archive, fetch
from ser.corpora.listing import (
    BadFile,
    Checked,
    Counts,
    EmotionChoice,
    Listing,
    check_files,
    differences,
    list_recordings,
)
from ser.corpora.notes import notes_on_files, notes_on_recordings
from ser.data.augment import Augment
from ser.data.loaders import Sampling, check_workers
from ser.data.module import Batches
from ser.errors import UserError, WrongRoot
from ser.features.audio import Recording
from ser.features.front_end import FrontEnd
from ser.features.preprocess import Preprocess
from ser.features.spectra import Features, LogMel
from ser.protocols.audit import Audit
from ser.protocols.fold import Fold
from ser.protocols.history import Fit, Identity, check_unseen, extended, fit_record
from ser.protocols.splits import PARTITIONS, Gender, LeaveOneSpeakerOut, Partition, Protocol, Split, Utterance
from ser.settings.class_paths import describe, digest
from ser.settings.names import Name, OptionalName, as_name, as_names, renaming

__all__ = ["BadFile", "SpeechCorpus"]


class SpeechCorpus(Batches):
    """Base class: a corpus under a protocol, as batches of features.

    A subclass is a parser (:meth:`utterances`) and, if you like, facts: the class attributes below.

    Args:
        root: Folder of the corpus.
        emotions: Emotions to use, in the order of the model's outputs; null takes all of the corpus.
        merge: Emotions to count as others, before ``emotions`` is applied, as in {excited: happiness}.
        preprocess: From a recording to a waveform.
        features: From a waveform to features; null is a plain log-mel spectrogram.
        protocol: Divides the utterances; null leaves one speaker out.
        fold: Number of the protocol's fold, from 0.
        batch_size: Segments in a training step on one device; an undivided utterance is one segment.
        padding: "fixed" pads every utterance to ``duration_s``; "batch" to the longest of its batch, which is faster
            and equivalent for a network that takes clips of any length (CoRNN), and an error for others.
        num_workers: Processes that fetch batches; 0 fetches in the training process, which is enough without
            ``augment.online``.
        on_bad_file: Whether damaged files stop the run or are left out; those left out are listed in the terminal,
            and in ``protocol.json`` or, for a prediction, ``left_out.csv``.
        strict: Stop if the copy has fewer recordings of an emotion than were published.
        augment: Augmentation of the waveforms of training utterances; null does nothing.
        sampling: "shuffle" trains on every utterance once per epoch; "balanced" draws as many anew in every epoch,
            all emotions equally often.
        download: Download the corpus if the root does not exist, or to the cache folder if no root is given.
        cache_dir: Folder for computed features; null is the user's cache folder.
        name: Name of the corpus in run folders and results. In corpora of your own with the same name, speakers of the
            same name are the same people. Null is the published name; for your own, that of the table or folder.

    Attributes:
        published: Emotion -> number of utterances that were published.
        speakers: Speaker -> gender.
        archive: Where ``download`` finds the corpus; None if its owners must be asked for it.

    Raises:
        UserError: The root or an option does not fit the corpus.
    """

    name: str
    licence: ClassVar[str] = "unknown"
    citation: ClassVar[str] = "unknown"
    homepage: ClassVar[str] = "no homepage known"
    layout: ClassVar[str] = "the recordings that its class can parse"
    published: ClassVar[Mapping[str, int]] = {}
    speakers: ClassVar[Mapping[str, Gender]] = {}
    archive: ClassVar[Archive | None] = None
    synthetic: ClassVar[bool] = False
    labelled: ClassVar[bool] = True

    def __init__(
        self,
        root: str | Path | None = None,
        emotions: list[Name] | None = None,
        preprocess: Preprocess = Preprocess(),  # noqa: B008  (frozen)
        features: Features | None = None,
        protocol: Protocol | None = None,
        fold: int = 0,
        batch_size: int = 32,
        padding: Literal["fixed", "batch"] = "fixed",
        num_workers: int = 0,
        on_bad_file: Literal["stop", "skip"] = "stop",
        merge: dict[Name, Name] | None = None,
        strict: bool = False,
        download: bool = False,
        cache_dir: str | Path | None = None,
        augment: Augment | None = None,
        sampling: Sampling = "shuffle",
        name: OptionalName = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1.")
        check_workers(num_workers)
        self.root = Path(root) if root is not None else None
        self.emotions = as_names(emotions)
        self.front_end = FrontEnd(preprocess, features if features is not None else LogMel())
        self.protocol = protocol if protocol is not None else LeaveOneSpeakerOut()
        self.fold = fold
        self.batch_size = batch_size
        self.padding = padding
        self.num_workers = num_workers
        self.on_bad_file = on_bad_file
        self.merge = renaming(merge)
        self.strict = strict
        self.augment = augment if augment is not None else Augment()
        self.sampling = sampling
        self.download = download
        self.stated_name = None if name is None else as_name(name)
        self.name = self.stated_name or self._default_name()
        self.cache_dir = Path(cache_dir) if cache_dir is not None else platformdirs.user_cache_path("ser")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name is None:  # as Lightning has it
            cls.name = cls.__name__

    @abstractmethod
    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """Parse the corpus: one item per audio file that belongs to it."""

    def _default_name(self) -> str:
        return type(self).name

    def locate(self) -> Path:
        """Return the folder of the corpus, downloaded first with ``download``.

        Raises:
            UserError: No root was given, the folder does not exist, or the download failed.
        """
        if self.download:
            self.root = self.root or self.cache_dir / "corpora" / type(self).__name__.lower()
            fetch(self.archive, self.root, asked=f"from its owners ({self.homepage}; {self.licence})")
        if self.root is None:
            how = "--data.root DIR, or --data.download true" if self.archive is not None else "--data.root DIR"
            raise UserError(f"{self.name} needs the folder of its recordings: give {how} ({self.homepage}).")
        if not self.root.exists():
            raise WrongRoot(f"{self.root} does not exist; {self._wanted}")
        return self.root

    # -- recordings --

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the model's outputs."""
        return self._listing.labels

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape (..., T) of an utterance's features."""
        return self.front_end.shape

    @property
    def table(self) -> list[Utterance]:
        """Every utterance that is used, damaged files left out; ``Batch.positions`` points into it."""
        return self._checked.table

    @property
    def recordings(self) -> list[Recording]:
        """Properties of the file of every utterance in :attr:`table`."""
        return self._checked.recordings

    @property
    def left_out(self) -> list[BadFile]:
        """The files that are not used: damaged ones, and those that do not belong to the corpus."""
        return self._checked.bad

    @property
    def input_notes(self) -> list[str]:
        """Notes on the files, a sentence each: left out, truncated, too short, or of a low sample rate."""
        left_out = notes_on_files(self.left_out, self.name, self.relative)
        return [*left_out, *notes_on_recordings(self.table, self.recordings, self.front_end, self.relative)]

    def found_and_published(self) -> Counts:
        """Return the number of utterances found and published (null if unknown).

        Of every class and, if no emotions were chosen, of those without a recording in this copy.
        """
        return self._listing.counts(self.table)

    def relative(self, path: Path) -> str:
        """Return a file's path below the root, with forward slashes."""
        return self._listing.relative(path)

    @cached_property
    def _listing(self) -> Listing:
        root = self.locate()
        choice = EmotionChoice(self.name, self.published, self.emotions, self.merge or {}, self.labelled)
        return list_recordings(root, self.utterances(root), choice, self._wanted)

    @property
    def _wanted(self) -> str:
        return f"--data.root must be the folder of {type(self).name}: {self.layout}."

    @cached_property
    def _checked(self) -> Checked:
        memory = self.cache_dir / "recordings" / digest(self._listing.root.resolve())
        return check_files(
            self._listing, memory, self.front_end, skip_bad=self.on_bad_file == "skip", strict=self.strict
        )

    # -- protocol --

    @property
    def split(self) -> Split:
        """The fold's division of :attr:`table`."""
        return self._fold.split

    @property
    def audit(self) -> Audit:
        """What the partitions of the split share."""
        return self._fold.audit

    def check_split(self, needed: Sequence[Partition] = PARTITIONS) -> None:
        """Check that the fold can be used, for a fit or with some partitions only.

        Raises:
            UserError: There are no labels, a needed partition is empty, or partitions share what they must not.
        """
        if not self.labelled:
            kind = type(self).__name__
            raise UserError(f"{kind} has no labels, so it cannot be used for training or testing: use ser predict.")
        self._fold.check(needed)

    @property
    def identity(self) -> Identity:
        """Which corpus this is; a published one is the same under any name, and in any copy."""
        kind = type(self).name
        return Identity(self.name, kind, kind, self.stated_name is not None)

    @property
    def fingerprint(self) -> str:
        """Hash of the corpus, its files and labels, and the split: equal for results on the same utterances."""
        return self._fold.fingerprint

    def protocol_description(self) -> dict[str, Any]:
        """Return the content of ``protocol.json``: everything about the data that a score was measured on."""
        return {
            "corpus": self.name,
            "class_path": describe(type(self)),
            "root": str(self._listing.root),
            "synthetic": self.synthetic,
            "licence": self.licence,
            "labels": self.labels,
            "merge": self.merge or {},
            "fingerprint": self.fingerprint,
            "trained_here": True,
            "front_end": self.front_end.description(),
            "augment": describe(self.augment),
            "left_out": [{"file": self.relative(item.path), "reason": item.reason} for item in self.left_out],
            "found_and_published": self.found_and_published(),
            "genders": {utterance.speaker: utterance.gender for utterance in self.table},
            **self._fold.description(),
        }

    def scored_description(self, partition: Partition, notes: Sequence[str]) -> dict[str, Any]:
        """Return the same for a network of another fit, whose other partitions hold nothing of this corpus.

        Args:
            partition: The one that is scored.
            notes: Notes on the score.
        """
        nothing = {"utterances": 0, "speakers": [], "emotions": dict.fromkeys(self.labels, 0), "files": []}
        others: dict[str, Any] = {other: nothing for other in PARTITIONS if other != partition}
        return {**self.protocol_description(), "trained_here": False, "notes": list(notes), **others}

    def extended_history(self, history: Sequence[Fit]) -> list[Fit]:
        """Return a network's history with a fit on these data; a fit that is resumed is not added again."""
        return extended(history, fit_record(self._fold, self.identity, synthetic=self.synthetic, merge=self.merge))

    def is_fit(self, fit: Fit) -> bool:
        """Return whether a fit was on these data: the same utterances, labels and split."""
        if "fingerprint" in fit:
            return bool(fit["fingerprint"] == self.fingerprint)
        ours = [type(self).name, self.fold, describe(self.protocol)]  # a checkpoint of format 1 knows no more
        return [fit["corpus"], fit["fold"], fit["protocol"]] == ours

    def check_unseen(self, history: Sequence[Fit], partition: Partition) -> list[str]:
        """Check that a partition is disjoint from everything that a network was trained or selected on.

        Returns:
            Notes on its score, a sentence each.

        Raises:
            UserError: The network has seen something of it that the protocol forbids.
        """
        if not history:
            return []
        return check_unseen(history, self._fold, partition, self.identity)

    def summary(self) -> str:
        """Describe the split in a line, and the gaps of an incomplete copy in a table."""
        lacking = differences(self.found_and_published())
        differs = f"\nThis copy of {self.name} differs from the published corpus:\n{lacking}" if lacking else ""
        return f"{self.name}, {self._fold.summary()}{differs}"

    def fold_number(self, number: int) -> Fold:
        """Return a fold of the protocol, by its number."""
        files = [self.relative(utterance.path) for utterance in self.table]
        digests = [recording.digest for recording in self.recordings]
        return Fold(self.protocol, number, self.table, files, digests, type(self).name, self.labels)

    @property
    def _fold(self) -> Fold:
        """The current fold: number and protocol may be changed at any time."""
        if (self._made_fold.number, self._made_fold.protocol) != (self.fold, self.protocol):
            self.__dict__.pop("_made_fold")
        return self._made_fold

    @cached_property
    def _made_fold(self) -> Fold:
        return self.fold_number(self.fold)
