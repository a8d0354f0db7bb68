"""The base class of every corpus: what is in a folder of recordings, and how a protocol splits it."""

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
from ser.settings.names import Name, OptionalName, as_name, as_names, renaming
from ser.settings.recipe import describe, digest

__all__ = ["BadFile", "SpeechCorpus"]


class SpeechCorpus(Batches):
    """Base class: a corpus under a protocol, as batches of features.

    A subclass is a parser (:meth:`utterances`) and, if you like, facts: the class attributes below.

    Args:
        root: Folder of the corpus.
        emotions: Emotions to use, in the order of the model's outputs; null takes all that the corpus holds.
        merge: Emotions to count as others, before ``emotions`` is looked at, as in {excited: happiness}.
        preprocess: From a recording to a waveform.
        features: From a waveform to features; null is a plain log-mel spectrogram.
        protocol: Divides the utterances; null leaves one speaker out.
        fold: Number of the protocol's fold, from 0.
        batch_size: Segments in a training step on one device; an utterance that is not divided is one.
        padding: "fixed" pads every utterance to ``duration_s``; "batch" to the longest of its batch, which is faster
            and the same for a network that takes clips of any length (CoRNN); others refuse it.
        num_workers: Processes that fetch batches; 0 fetches in the training process, which is enough unless
            ``augment.online`` has work to do.
        on_bad_file: Whether damaged files stop the run or are left out, named in the terminal, and
            in ``protocol.json`` or, of a prediction, ``left_out.csv``.
        strict: Refuse a copy with fewer recordings of an emotion than were published.
        augment: What is done to the waveforms of training utterances; null does nothing.
        sampling: "shuffle" trains on every utterance once per epoch; "balanced" on as many, drawn anew every epoch so
            that each emotion comes as often as any other.
        download: Fetch the corpus if the root is not there, or to the cache folder if no root is given.
        cache_dir: Folder for computed features; null is the user's cache folder.
        name: What the corpus is called in run folders and results. Of a corpus of your own it also says whose voices
            these are: equal names of speakers are the same people in corpora of one name. Null is the published name;
            for your own, the name of the table's file or of the folder.

    Attributes:
        published: Emotion -> number of utterances that were published.
        speakers: Speaker -> gender.
        archive: Where ``download`` fetches the corpus; None for one that has to be asked for.

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
        """Return the folder of the corpus, which is fetched first if that is asked for.

        Raises:
            UserError: No root was given, or there is no such folder, or it cannot be fetched.
        """
        if self.download:
            self.root = self.root or self.cache_dir / "corpora" / type(self).__name__.lower()
            fetch(self.archive, self.root, asked=f"{self.name} of its owners ({self.homepage}; {self.licence})")
        if self.root is None:
            how = "--data.root DIR, or --data.download true" if self.archive is not None else "--data.root DIR"
            raise UserError(f"{self.name} needs the folder of its recordings: give {how} ({self.homepage}).")
        if not self.root.exists():
            raise WrongRoot(f"{self.root} does not exist; {self._wanted}")
        return self.root

    # -- what is there --

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
        """What a look into the file of every utterance of :attr:`table` told."""
        return self._checked.looks

    @property
    def left_out(self) -> list[BadFile]:
        """The files that are not used: damaged ones, and those that are none of the corpus's."""
        return self._checked.bad

    @property
    def input_notes(self) -> list[str]:
        """What has to be known of the files, a sentence each: those left out, cut, too short, or of a low rate."""
        left_out = notes_on_files(self.left_out, self.name, self.relative)
        return [*left_out, *notes_on_recordings(self.table, self.recordings, self.front_end, self.relative)]

    def counts(self) -> Counts:
        """Return, for every class, the utterances found and (null if unknown) those published."""
        return {label: counts for label, counts in self.found_and_published().items() if label in self.labels}

    def found_and_published(self) -> Counts:
        """Return the same, with every emotion that an incomplete copy lacks altogether."""
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
        """See that the fold can be used: for a fit, or with some partitions only, as a test is.

        Raises:
            UserError: Nothing is labelled, or a needed partition is empty, or partitions share what they must not.
        """
        if not self.labelled:
            kind = type(self).__name__
            raise UserError(f"{kind} has no labels, so nothing can be trained or scored on it: it is for predict.")
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
        """Return what ``protocol.json`` holds: everything that says on what a score was measured."""
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
            partition: What is scored.
            notes: What has to be known of the score.
        """
        nothing = {"utterances": 0, "speakers": [], "emotions": dict.fromkeys(self.labels, 0), "files": []}
        others: dict[str, Any] = {other: nothing for other in PARTITIONS if other != partition}
        return {**self.protocol_description(), "trained_here": False, "notes": list(notes), **others}

    def extended_history(self, history: Sequence[Fit]) -> list[Fit]:
        """Return a network's history with a fit on these data, which it may be going on with."""
        return extended(history, fit_record(self._fold, self.identity, synthetic=self.synthetic, merge=self.merge))

    def is_fit(self, fit: Fit) -> bool:
        """Tell whether a fit was of these data: the same utterances, labels and split."""
        if "fingerprint" in fit:
            return bool(fit["fingerprint"] == self.fingerprint)
        ours = [type(self).name, self.fold, describe(self.protocol)]  # all that a checkpoint of format 1 tells
        return [fit["corpus"], fit["fold"], fit["protocol"]] == ours

    def check_unseen(self, history: Sequence[Fit], partition: Partition) -> list[str]:
        """Compare a partition with everything that a network was trained or chosen on.

        Returns:
            What has to be known of its score, a sentence each.

        Raises:
            UserError: The network has heard something of it, which the protocol forbids.
        """
        if not history:
            return []
        return check_unseen(history, self._fold, partition, self.identity)

    def summary(self) -> str:
        """Say in a line which speakers are in which partition, and in a table what an incomplete copy lacks."""
        lacking = differences(self.found_and_published())
        differs = f"\nThis copy of {self.name} is not as published:\n{lacking}" if lacking else ""
        return f"{self.name}, {self._fold.summary()}{differs}"

    def fold_number(self, number: int) -> Fold:
        """Return any fold of the protocol, whichever this corpus is set to."""
        files = [self.relative(utterance.path) for utterance in self.table]
        digests = [look.digest for look in self.recordings]
        return Fold(self.protocol, number, self.table, files, digests, type(self).name, self.labels)

    @property
    def _fold(self) -> Fold:
        """The fold of now: the number, and the protocol, may be set at any time."""
        if (self._made_fold.number, self._made_fold.protocol) != (self.fold, self.protocol):
            self.__dict__.pop("_made_fold")
        return self._made_fold

    @cached_property
    def _made_fold(self) -> Fold:
        return self.fold_number(self.fold)
