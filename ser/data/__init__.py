"""From recordings to batches: what every corpus shares."""

from typing import TYPE_CHECKING, Any

from ser.data.augment import Augment, PeakNoise
from ser.data.feature_augment import SpecAugment
from ser.data.loaders import Batch
from ser.features.front_end import FrontEnd
from ser.features.preprocess import Preprocess
from ser.features.spectra import MFCC, Features, LogMel, Waveform
from ser.protocols.given import ColumnSplit, FixedSpeakers
from ser.protocols.kfold import SpeakerKFold, StratifiedKFold
from ser.protocols.papers import ClassOrder641620, Random8020, Stratified641620, Tail20
from ser.protocols.splits import (
    LeaveOneSentenceOut,
    LeaveOneSessionOut,
    LeaveOneSpeakerOut,
    Protocol,
    Split,
    Utterance,
)

if TYPE_CHECKING:
    from ser.corpora.base import BadFile, SpeechCorpus

__all__ = [
    "MFCC",
    "Augment",
    "BadFile",
    "Batch",
    "ClassOrder641620",
    "ColumnSplit",
    "Features",
    "FixedSpeakers",
    "FrontEnd",
    "LeaveOneSentenceOut",
    "LeaveOneSessionOut",
    "LeaveOneSpeakerOut",
    "LogMel",
    "PeakNoise",
    "Preprocess",
    "Protocol",
    "Random8020",
    "SpeakerKFold",
    "SpecAugment",
    "SpeechCorpus",
    "Split",
    "Stratified641620",
    "StratifiedKFold",
    "Tail20",
    "Utterance",
    "Waveform",
]


def __getattr__(name: str) -> Any:
    """Import what builds on this package when it is asked for."""
    if name not in ("BadFile", "SpeechCorpus"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ser.corpora import base

    return getattr(base, name)
