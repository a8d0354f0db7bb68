"""From recordings to batches: what every corpus shares."""

from ser.data.audio import Preprocess
from ser.data.base import BadFile, SpeechCorpus
from ser.data.features import Features, LogMel
from ser.data.frontend import FrontEnd
from ser.data.loaders import Batch
from ser.data.splits import LeaveOneSpeakerOut, Protocol, Split, Utterance

__all__ = [
    "BadFile",
    "Batch",
    "Features",
    "FrontEnd",
    "LeaveOneSpeakerOut",
    "LogMel",
    "Preprocess",
    "Protocol",
    "SpeechCorpus",
    "Split",
    "Utterance",
]
