"""Corpora: one file each, facts and a parser."""

from ser.corpora.casia import CASIA
from ser.corpora.emodb import EmoDB
from ser.corpora.iemocap import IEMOCAP
from ser.corpora.own import AudioFolder, EmotionFolders
from ser.corpora.ravdess import RAVDESS
from ser.corpora.savee import SAVEE
from ser.corpora.synthetic.corpus import Synthetic
from ser.corpora.table import Table

__all__ = [
    "CASIA",
    "IEMOCAP",
    "RAVDESS",
    "SAVEE",
    "AudioFolder",
    "EmoDB",
    "EmotionFolders",
    "Synthetic",
    "Table",
]
