"""Augmentation of training utterances' waveforms, by the transforms of audiomentations."""

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from audiomentations import AddBackgroundNoise, TimeStretch
from audiomentations.core.transforms_interface import BaseWaveformTransform

from ser.errors import UserError
from ser.features.preprocess import Waveform
from ser.settings.class_paths import describe, digest

_STRETCH = "signalsmith_stretch"
_ONE_AT_A_TIME = threading.Lock()  # audiomentations draws from the process's own random numbers


class PeakNoise(BaseWaveformTransform):  # type: ignore[misc]  # audiomentations has no types
    """White noise in proportion to the waveform's peak: x + a N(0, 1), a = ``max_share`` U(0, 1) max |x|.

    The common recipe whose "threshold value" is 0.1 in paper 004 (Yadav et al., augmentation).

    Args:
        max_share: Largest standard deviation of the noise, as a share of the largest magnitude.
        p: Probability of applying it.
    """

    def __init__(self, max_share: float = 0.1, p: float = 0.5) -> None:
        super().__init__(p)
        if max_share <= 0:
            raise UserError(f"max_share is {max_share}; it must be a positive share of the peak, such as 0.1.")
        self.max_share = max_share

    def randomize_parameters(self, samples: Waveform, sample_rate: int) -> None:
        """Draw a, which scales the noise."""
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            self.parameters["scale"] = self.max_share * random.random() * float(np.abs(samples).max())

    def apply(self, samples: Waveform, sample_rate: int) -> Waveform:
        """Add the noise, (N,) to (N,)."""
        noise = np.random.standard_normal(samples.shape).astype(np.float32)
        return samples + np.float32(self.parameters["scale"]) * noise


class Augment:
    """Augmentation of the waveforms of training utterances, after cleaning and before truncation.

    Validation and test utterances are never changed.

    Args:
        copies: Each transform makes one fixed, cached copy of every training utterance. Random choices depend on the
            recording's content.
        online: Transforms that are applied in order whenever a training utterance is fetched, in place of the original.
            Random choices depend on the run's seed, the epoch and the utterance, not on workers and devices.

    Raises:
        UserError: Both are given; a copy might be unchanged or not reproducible; or a transform needs a package that is
            not installed.
    """

    def __init__(
        self,
        copies: Sequence[BaseWaveformTransform] | None = None,
        online: Sequence[BaseWaveformTransform] | None = None,
    ) -> None:
        self.copies = list(copies or [])
        self.online = list(online or [])
        if self.copies and self.online:
            raise UserError("augment has copies and online transforms; give only one of them.")
        unsure = [type(transform).__name__ for transform in self.copies if transform.p < 1]
        if unsure:
            raise UserError(
                f"augment.copies: {', '.join(unsure)} would leave some copies unchanged, with probability 1 - p; give "
                "p: 1.0."
            )
        for transform in (*self.copies, *self.online):
            if isinstance(transform, TimeStretch) and transform.method == _STRETCH and transform.min_rate < 0.5:
                raise UserError(
                    f"TimeStretch(min_rate={transform.min_rate}): below 0.5, the method {_STRETCH} ignores the "
                    "seed. Give min_rate: 0.5, or method: librosa_phase_vocoder."
                )
            if isinstance(transform, AddBackgroundNoise):
                # The one argument that is no attribute, and must be None: ser.settings.class_paths describes it.
                transform.lru_cache_size = None
            _try(transform)

    def changes(self, content: str) -> dict[str, "Seeded"]:
        """Return the fixed copies of a recording.

        Args:
            content: Hash of the recording.

        Returns:
            For every copy its key and the change that makes it.
        """
        return {f"{content}-{name}": Seeded((t,), seed_of(content, name)) for name, t in self._named_copies}

    @cached_property
    def _named_copies(self) -> list[tuple[str, BaseWaveformTransform]]:
        times = Counter[str]()  # a transform may be given twice, with other random numbers
        named = []
        for transform in self.copies:
            name = digest(transform)
            named.append((f"{name}-{times[name]}" if times[name] else name, transform))
            times[name] += 1
        return named


@dataclass(frozen=True)
class Seeded:
    """Random transforms in order, with a fixed seed: equal waveforms give equal results.

    Attributes:
        transforms: From audiomentations.
        seed: 32 bits.
    """

    transforms: tuple[BaseWaveformTransform, ...]
    seed: int

    def __call__(self, waveform: Waveform, sample_rate_hz: int) -> Waveform:
        """Change a waveform, (N,) to (M,), M >= 1."""
        with _ONE_AT_A_TIME, _seeded(self.seed):
            for transform in self.transforms:
                waveform = transform(waveform, sample_rate_hz)
        return np.ascontiguousarray(waveform, np.float32)


def _try(transform: BaseWaveformTransform) -> None:
    """Apply a transform once: some import their packages only then, which would be in the middle of a fit."""
    once = copy(transform)
    once.p = 1.0
    try:
        Seeded((once,), 0)(np.ones(16_000, np.float32), 16_000)
    except ImportError as error:
        raise UserError(
            f"{type(transform).__name__} needs a package that is not installed: {error}. "
            "Install audiomentations[extras], or remove this transform."
        ) from error


def seed_of(*parts: Any) -> int:
    """Hash plain values to 32 bits."""
    return int.from_bytes(hashlib.sha256(repr(describe(parts)).encode()).digest()[:4], "little")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the random numbers of audiomentations, and restore their state."""
    plain, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(numpy)
