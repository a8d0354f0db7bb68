"""From recordings to batches: what every corpus shares."""

from ser.data.augment import Augment, PeakNoise
from ser.data.base import BadFile, SpeechCorpus
from ser.data.features import MFCC, Features, LogMel, Waveform
from ser.data.frontend import FrontEnd
from ser.data.given_splits import ColumnSplit, FixedSpeakers
from ser.data.kfold_splits import SpeakerKFold, StratifiedKFold
from ser.data.loaders import Batch
from ser.data.paper_splits import ClassOrder641620, Random8020, Stratified641620, Tail20
from ser.data.preprocess import Preprocess
from ser.data.splits import (
    LeaveOneSentenceOut,
    LeaveOneSessionOut,
    LeaveOneSpeakerOut,
    Protocol,
    Split,
    Utterance,
)

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
    "SpeechCorpus",
    "Split",
    "Stratified641620",
    "StratifiedKFold",
    "Tail20",
    "Utterance",
    "Waveform",
]
