"""From an audio file to features, as checkpoints and cache keys describe it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ser.errors import UserError
from ser.features.audio import read_again
from ser.features.preprocess import Preprocess, Waveform
from ser.features.spectra import Features
from ser.settings.class_paths import describe

Change = Callable[[Waveform, int], Waveform]  # from a waveform (N,) and its rate to one of any length


class FrontEnd:
    """Reads, preprocesses, and computes features.

    Args:
        preprocess: From a recording to a waveform.
        features: From a waveform to features.

    Raises:
        UserError: A segment, or the distance to the next, is less than a sample.
    """

    def __init__(self, preprocess: Preprocess, features: Features) -> None:
        self.preprocess = preprocess
        self.features = features
        for name in ("duration_s", "segment_hop_s"):
            seconds, rate = getattr(preprocess, name), features.sample_rate_hz
            if seconds is not None and round(seconds * rate) < 1:
                raise UserError(f"preprocess.{name} = {seconds} is less than one sample at {rate} Hz; give more.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (..., T) that every segment is padded to."""
        return self.features.shape(self.preprocess.samples(self.features.sample_rate_hz))

    def problem(self, duration_s: float) -> str:
        """Return why a recording of this length is unusable, or "" if it is usable."""
        rate, skipped_s = self.features.sample_rate_hz, self.preprocess.offset_s
        if duration_s * rate >= round(skipped_s * rate) + 1:
            return ""
        skipping = f", all of which preprocess.offset_s = {skipped_s} skips" if skipped_s else ""
        return f"too short: {duration_s:.3g} s{skipping}"

    def __call__(self, path: Path) -> Tensor:
        """Return the features of a file's first segment; an undivided utterance has no other."""
        return self.segments(path)[0]

    @torch.inference_mode()
    def segments(self, path: Path, change: Change | None = None) -> list[Tensor]:
        """Return the features of a file's segments, of shape (..., T) of their valid frames, without padding.

        Args:
            path: Audio file.
            change: An augmentation of the waveform between cleaning and division.

        Raises:
            UserError: The file holds no usable recording, or preprocessing skips all of it.
        """
        return [self.features(torch.from_numpy(piece)) for piece in self.waveforms(path, change)]

    @torch.inference_mode()
    def segment(self, path: Path, change: Change, number: int, count: int) -> Tensor:
        """Return the features of one segment of a changed recording, see :meth:`segments`.

        Args:
            path: Audio file.
            change: An augmentation, which may change the number of segments.
            number: Of the segment, from 0.
            count: Number of segments of the unchanged recording; ``number`` is scaled in proportion.
        """
        pieces = self.waveforms(path, change)
        number = round(number * (len(pieces) - 1) / (count - 1)) if count > 1 else 0
        features: Tensor = self.features(torch.from_numpy(pieces[number]))
        return features

    def waveforms(self, path: Path, change: Change | None = None) -> list[Waveform]:
        """Return the waveforms of a file's segments, see :meth:`segments`."""
        rate = self.features.sample_rate_hz
        recording = read_again(path, rate)
        try:
            waveform = self.preprocess.clean(recording, rate)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if change is not None:
            waveform = change(waveform, rate)
        return self.preprocess.divide(waveform, rate)

    def description(self) -> dict[str, Any]:
        """Return plain data that describes the front-end, as command-line options of a corpus."""
        return {"preprocess": describe(self.preprocess)["init_args"], "features": describe(self.features)}
