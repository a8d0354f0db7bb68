import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import ClassVar

# Tests run side by side: the threads of one must not slow down those of the other. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "80"  # as where there is no window: tables, help and other programs go by it

import numpy as np
import pytest
import soundfile
from lightning.pytorch import Trainer
from torch import nn

from ser.corpora import Synthetic
from ser.data import BadFile, LogMel, SpeechCorpus, Utterance
from ser.features.audio import audio_files
from ser.protocols.splits import Gender

RATE_HZ = 8000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, then those of many, so that no worker is left alone with a long one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    number = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -number[item.path]))


class Tiny(SpeechCorpus):
    """Files like anna_anger_s1.wav."""

    name = "Tiny"
    licence = "none needed"
    citation = "none"
    homepage = "https://example.org/tiny"
    layout = "files like anna_anger_s1.wav"
    published: ClassVar[Mapping[str, int]] = {"anger": 8, "neutral": 8}
    speakers: ClassVar[Mapping[str, Gender]] = {"anna": "female", "ben": "male", "carla": "female", "dan": "male"}

    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        for path in audio_files(root):
            match path.stem.split("_"):
                case [speaker, emotion, sentence] if speaker in self.speakers:
                    yield Utterance(path, emotion, speaker, self.speakers[speaker], sentence=sentence)
                case _:
                    yield BadFile(path, "not named like anna_anger_s1.wav")


class Mean(nn.Module):
    """The simplest network: a linear layer on the mean of the valid frames."""

    def __init__(self, num_classes=4, feature_shape=(1, 40, 300)):
        super().__init__()
        self.num_classes = num_classes
        self.feature_shape = feature_shape
        self.linear = nn.Linear(feature_shape[0] * feature_shape[1], num_classes)

    def forward(self, features, lengths):
        return self.linear(features.flatten(1, 2).sum(-1) / lengths[:, None])


def speech(seed: int, seconds: float) -> np.ndarray:
    """Noise that comes and goes, with silence of 0.1 s at both ends, for a waveform that trimming changes."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE_HZ))
    return np.pad(samples, RATE_HZ // 10)


@pytest.fixture
def make_corpus(tmp_path) -> Callable[..., Path]:
    """Return a function that writes the tiny corpus, 4 speakers x 2 emotions x 2 sentences, and returns its root."""

    def make(name: str = "tiny") -> Path:
        root = tmp_path / name
        root.mkdir()
        for number, (speaker, emotion, sentence) in enumerate(
            (speaker, emotion, sentence)
            for speaker in Tiny.speakers
            for emotion in Tiny.published
            for sentence in ("s1", "s2")
        ):
            samples = speech(number, 0.2 + 0.03 * number)
            soundfile.write(root / f"{speaker}_{emotion}_{sentence}.wav", samples, RATE_HZ)
        return root

    return make


@pytest.fixture
def cache_dir(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tiny(make_corpus, cache_dir) -> Callable[..., Tiny]:
    """Return a function that makes the corpus object, by default over a newly written tiny corpus."""

    def make(root: Path | None = None, **options: object) -> Tiny:
        defaults = {"features": LogMel(RATE_HZ, n_mels=8, n_fft=256, deltas=1), "cache_dir": cache_dir}
        return Tiny(root if root is not None else make_corpus(), **{**defaults, **options})

    return make


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """A cache folder that holds the embedded corpus, for all tests."""
    folder = tmp_path_factory.mktemp("cache")
    Synthetic(cache_dir=folder).locate()
    return folder


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., Trainer]:
    """Return a function that makes a trainer which trains on the CPU and leaves neither prints nor files."""

    def make(max_epochs: int, **options: object) -> Trainer:
        return Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **options,
        )

    return make


@pytest.fixture(scope="session")
def starting() -> BaseContext:
    """The way to start processes that compute with torch, which a fork of this one could not; load it once for all."""
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(["torch", "lightning.pytorch", "sklearn.metrics"])
    return context


@pytest.fixture
def corpora() -> Path:
    """The folder of real corpora."""
    if "SER_CORPORA" not in os.environ:
        pytest.skip("SER_CORPORA is not set: real speech is not tested")
    return Path(os.environ["SER_CORPORA"])
