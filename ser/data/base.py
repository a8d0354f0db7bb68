"""The base class of every corpus: from a folder of recordings to batches of features."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import platformdirs
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from ser.data.audio import Preprocess, Recording, inspect_files
from ser.data.audit import Audit, audit
from ser.data.cache import FeatureCache
from ser.data.features import Features, LogMel
from ser.data.frontend import FrontEnd
from ser.data.loaders import UNKNOWN, Batch, FeatureSet, loader
from ser.data.splits import SIDES, Gender, LeaveOneSpeakerOut, Protocol, Side, Split, Utterance
from ser.errors import UserError
from ser.recipe import describe, digest


MOST_NAMED = 50  # damaged files that a message names


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file that cannot be used, and why."""

    path: Path
    reason: str


class SpeechCorpus(LightningDataModule):
    """Base class: a corpus under a protocol, as batches of features.

    A subclass is facts (the class attributes below) and a parser (:meth:`utterances`).

    Args:
        root: Folder of the corpus.
        emotions: Emotions to use, in the order of the model's outputs; null takes all that the corpus holds.
        preprocess: From a recording to a waveform.
        features: From a waveform to features; null is a plain log-mel spectrogram.
        protocol: Divides the utterances; null leaves one speaker out.
        fold: Number of the protocol's fold, from 0.
        batch_size: Utterances in a training step on one device.
        padding: "fixed" pads every utterance to ``duration_s``; "batch" to the longest of its batch, which is faster
            and the same for a network that masks padding.
        num_workers: Processes that fetch batches; 0 fetches in the training process, which is enough for
            features that fit the system's file cache.
        on_bad_file: Whether damaged files stop the run or are left out (and named in ``protocol.json``).
        cache_dir: Folder for computed features; null is the user's cache folder.

    Raises:
        UserError: The root or an option does not fit the corpus.
    """

    name: str
    licence: ClassVar[str]
    citation: ClassVar[str]
    homepage: ClassVar[str]
    layout: ClassVar[str]
    published: ClassVar[Mapping[str, int]]
    speakers: ClassVar[Mapping[str, Gender]]
    synthetic: ClassVar[bool] = False
    labelled: ClassVar[bool] = True

    def __init__(
        self,
        root: str | Path | None = None,
        emotions: list[str] | None = None,
        preprocess: Preprocess = Preprocess(),  # noqa: B008  (frozen)
        features: Features | None = None,
        protocol: Protocol | None = None,
        fold: int = 0,
        batch_size: int = 32,
        padding: Literal["fixed", "batch"] = "fixed",
        num_workers: int = 0,
        on_bad_file: Literal["stop", "skip"] = "stop",
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1.")
        self.root = Path(root) if root is not None else None
        self.emotions = emotions
        self.front_end = FrontEnd(preprocess, features if features is not None else LogMel())
        self.protocol = protocol if protocol is not None else LeaveOneSpeakerOut()
        self.fold = fold
        self.batch_size = batch_size
        self.padding = padding
        self.num_workers = num_workers
        self.on_bad_file = on_bad_file
        self.cache_dir = Path(cache_dir) if cache_dir is not None else platformdirs.user_cache_path("ser")

    @abstractmethod
    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """Parse the corpus: one item per audio file that belongs to it."""

    def locate(self) -> Path:
        """Return the folder of the corpus.

        Raises:
            UserError: No root was given, or there is no such folder.
        """
        if self.root is None:
            raise UserError(f"{self.name} needs the folder of its recordings: give --data.root DIR ({self.homepage}).")
        if not self.root.exists():
            raise UserError(
                f"{self.root} does not exist; --data.root must be the folder of {self.name} ({self.layout})."
            )
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
        return self._recordings.table

    @cached_property
    def _listing(self) -> "_Listing":
        root = self.locate()
        items = list(self.utterances(root))
        found = [item for item in items if isinstance(item, Utterance)]
        bad = [item for item in items if isinstance(item, BadFile)]
        if not found:
            if bad:
                seen = f"{len(bad)} audio files, none named like {self.name}'s (the first is {bad[0].path.name})"
            else:
                seen = "no audio files"
            raise UserError(f"{root} holds {seen}. --data.root must be the folder of {self.name}: {self.layout}.")
        labels = self._choose_labels({utterance.emotion for utterance in found})
        used = [item for item in found if item.emotion in labels or not self.labelled]
        return _Listing(root, used, bad, labels)

    def _choose_labels(self, present: set[str]) -> list[str]:
        if not self.labelled:
            if self.emotions is None:
                raise UserError(f"{self.name} has no emotions of its own; give the --ckpt_path of a model that has.")
            return self.emotions
        order = [*self.published, *sorted(present - set(self.published))]
        if self.emotions is None:
            return [emotion for emotion in order if emotion in present]
        unknown = [emotion for emotion in self.emotions if emotion not in present]
        if unknown:
            raise UserError(
                f"emotions: {', '.join(unknown)} not found in {self.name} here, which has "
                f"{', '.join(emotion for emotion in order if emotion in present)}."
            )
        twice = [emotion for emotion, times in Counter(self.emotions).items() if times > 1]
        if twice or len(self.emotions) < 2:
            raise UserError(f"emotions is {self.emotions}; it must name at least two different emotions, each once.")
        return self.emotions

    @cached_property
    def _recordings(self) -> "_Recordings":
        listing = self._listing
        memory = self.cache_dir / "recordings" / f"{digest(listing.root.resolve())}.json"
        try:
            looks = inspect_files([utterance.path for utterance in listing.table], memory)
        except OSError as error:
            raise UserError(
                f"{memory.parent} cannot be written: {error.strerror}. "
                "Mend that, or give another folder with --data.cache_dir."
            ) from error
        seen = list(zip(listing.table, looks, strict=True))
        bad = [*listing.bad, *(BadFile(u.path, look.problem) for u, look in seen if look.problem)]
        if bad and self.on_bad_file == "stop":
            lines = [f"  {self.relative(item.path)}: {item.reason}" for item in bad[:MOST_NAMED]]
            if len(bad) > MOST_NAMED:
                lines.append(f"  and {len(bad) - MOST_NAMED} more")
            raise UserError(
                f"{len(bad)} of {len(listing.table) + len(listing.bad)} files in {listing.root} cannot be used:\n"
                + "\n".join(lines)
                + "\nRepair or remove them, or leave them out with --data.on_bad_file skip."
            )
        sound = [(utterance, look) for utterance, look in seen if not look.problem]
        if not sound:
            raise UserError(f"None of the {len(bad)} files in {listing.root} can be used; the first {bad[0].reason}.")
        return _Recordings([utterance for utterance, _ in sound], [look for _, look in sound], bad)

    def relative(self, path: Path) -> str:
        """Return a file's path below the root, with forward slashes."""
        root = self._listing.root
        folder = root.parent if root.is_file() else root
        return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()

    # -- protocol --

    @cached_property
    def split(self) -> Split:
        """The fold's division of :attr:`table`."""
        return self.protocol.split(self.table, self.fold)

    @cached_property
    def audit(self) -> Audit:
        """What the sides of the split share."""
        digests = [recording.digest for recording in self._recordings.looks]
        return audit(self.table, digests, self.split, self.protocol)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the corpus, its files and labels, and the split: equal for results on the same utterances."""
        looks = self._recordings.looks
        files = sorted(
            (self.relative(u.path), look.digest, u.emotion) for u, look in zip(self.table, looks, strict=True)
        )
        sides = {side: sorted(self.relative(self.table[i].path) for i in self.split.side(side)) for side in SIDES}
        return digest({"corpus": self.name, "labels": self.labels, "files": files, "sides": sides})

    def protocol_description(self) -> dict[str, Any]:
        """Return what ``protocol.json`` holds: everything that says on what a score was measured."""
        return {
            "corpus": self.name,
            "class_path": describe(type(self)),
            "root": str(self._listing.root),
            "synthetic": self.synthetic,
            "licence": self.licence,
            "labels": self.labels,
            "protocol": describe(self.protocol),
            "fold": self.fold,
            "tests": self.protocol.folds(self.table)[self.fold],
            "speaker_disjoint": self.protocol.speaker_disjoint,
            "fingerprint": self.fingerprint,
            "front_end": self.front_end.description(),
            "notes": list(self.audit.notes),
            "left_out": [{"file": self.relative(item.path), "reason": item.reason} for item in self._recordings.bad],
            "found_and_published": self.counts(),
            **{side: self._describe_side(side) for side in SIDES},
        }

    def summary(self) -> str:
        """Say in a line who is on which side."""
        sides = []
        for side, verb in zip(SIDES, ("train on", "choose on", "test"), strict=True):
            members = [self.table[i] for i in self.split.side(side)]
            speakers = sorted({utterance.speaker for utterance in members})
            who = "speakers" if len(speakers) > 1 else "speaker"
            sides.append(f"{verb} {len(members)} utterances of {who} {', '.join(speakers)}")
        return f"{self.name}, fold {self.fold}: {'; '.join(sides)}."

    def counts(self) -> dict[str, list[int | None]]:
        """Return, for every class, the utterances found and (null if unknown) those published."""
        found = Counter(utterance.emotion for utterance in self.table)
        return {label: [found[label], self.published.get(label)] for label in self.labels}

    def _describe_side(self, side: Side) -> dict[str, Any]:
        members = [self.table[i] for i in self.split.side(side)]
        emotions = Counter(utterance.emotion for utterance in members)
        return {
            "utterances": len(members),
            "speakers": sorted({utterance.speaker for utterance in members}),
            "emotions": {label: emotions[label] for label in self.labels},
            "files": [self.relative(utterance.path) for utterance in members],
        }

    # -- Lightning's hooks --

    def prepare_data(self) -> None:
        """Check the files, audit the split and compute the features that the cache lacks."""
        predicting = self.trainer is not None and self.trainer.state.fn == TrainerFn.PREDICTING
        if not predicting:
            self.audit.enforce()
        self._fill_cache()

    def setup(self, stage: str) -> None:
        """Map the cached features into memory."""
        self._rows  # noqa: B018  (fails here rather than in a loader)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled training batches; the order depends on the seed and the epoch alone."""
        return self._loader(self.split.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return validation batches."""
        return self._loader(self.split.val)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return test batches."""
        return self._loader(self.split.test)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return batches of every utterance."""
        return self._loader(range(len(self.table)))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each feature over the training side's valid frames.

        Returns:
            Two tensors of shape (..., 1).
        """
        return self._cache.statistics(self._rows[list(self.split.train)])

    @cached_property
    def _cache(self) -> FeatureCache:
        return FeatureCache(self.cache_dir, self.front_end)

    @cached_property
    def _rows(self) -> npt.NDArray[np.int64]:
        self._fill_cache()
        return self._cache.rows([recording.digest for recording in self._recordings.looks])

    def _fill_cache(self) -> None:
        looks = self._recordings.looks
        self._cache.add([(look.digest, u.path) for u, look in zip(self.table, looks, strict=True)])

    def _loader(self, positions: Sequence[int], *, shuffle: bool = False) -> DataLoader[Batch]:
        return loader(
            FeatureSet(
                features=self._cache.array(),
                rows=self._rows[list(positions)],
                lengths=self._cache.lengths(self._rows[list(positions)]),
                targets=[self._target_of.get(self.table[i].emotion, UNKNOWN) for i in positions],
                positions=positions,
                trim=self.padding == "batch",
            ),
            self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )

    @cached_property
    def _target_of(self) -> dict[str, int]:
        return {label: target for target, label in enumerate(self.labels)}


class _Listing(NamedTuple):
    root: Path
    table: list[Utterance]
    bad: list[BadFile]
    labels: list[str]


class _Recordings(NamedTuple):
    table: list[Utterance]
    looks: list[Recording]
    bad: list[BadFile]
