"""The whole way from an audio file to features: what a checkpoint carries, and what a cache is keyed by."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ser.data.audio import read
from ser.data.features import Features
from ser.data.preprocess import Preprocess
from ser.errors import UserError
from ser.recipe import describe


class FrontEnd:
    """Reads, preprocesses, and computes features.

    Args:
        preprocess: From a recording to a waveform.
        features: From a waveform to features.
    """

    def __init__(self, preprocess: Preprocess, features: Features) -> None:
        self.preprocess = preprocess
        self.features = features

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (..., T) that every utterance is padded to."""
        return self.features.shape(self.preprocess.samples(self.features.sample_rate_hz))

    @torch.inference_mode()
    def __call__(self, path: Path) -> Tensor:
        """Return the features of a file, shape (..., T) of its valid frames, without padding.

        Raises:
            DamagedAudio: The file holds no usable recording.
            UserError: Preprocessing leaves nothing of it.
        """
        rate = self.features.sample_rate_hz
        recording = read(path, rate)
        try:
            waveform = self.preprocess(recording, rate)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        features: Tensor = self.features(torch.from_numpy(waveform))
        return features

    def description(self) -> dict[str, Any]:
        """Return plain data that builds the same front-end again, as command-line options of a corpus."""
        return {"preprocess": describe(self.preprocess)["init_args"], "features": describe(self.features)}
