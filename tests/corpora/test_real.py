"""The parsers on real recordings; SER_CORPORA names the folder that holds them."""

import os
from collections import Counter
from pathlib import Path

import pytest

from ser.corpora import RAVDESS, EmoDB
from ser.data import SpeechCorpus

EMODB_SPEAKERS = {
    "03": 49, "08": 58, "09": 43, "10": 38, "11": 55, "12": 35, "13": 61, "14": 69, "15": 56, "16": 71,
}  # fmt: skip


@pytest.fixture
def real(tmp_path):
    if "SER_CORPORA" not in os.environ:
        pytest.skip("SER_CORPORA does not name a folder with real corpora")

    def load(corpus: type[SpeechCorpus], folder: str) -> SpeechCorpus:
        return corpus(root=Path(os.environ["SER_CORPORA"]) / folder, cache_dir=tmp_path)

    return load


@pytest.mark.parametrize("folder", ["emodb_2s", "emodb_2s/wav"])
def test_emodb(real, folder):
    corpus = real(EmoDB, folder)
    assert corpus.found_and_published() == {emotion: [count, count] for emotion, count in EmoDB.published.items()}
    assert Counter(u.speaker for u in corpus.table) == EMODB_SPEAKERS
    assert len({u.sentence for u in corpus.table}) == 10


def test_emodb_of_four_emotions(real):
    assert Counter(utterance.emotion for utterance in real(EmoDB, "emodb").table) == {
        "anger": 127,
        "happiness": 71,
        "neutral": 79,
        "sadness": 62,
    }


def test_ravdess(real):
    corpus = real(RAVDESS, "ravdess_truncated")
    assert {u.speaker: u.gender for u in corpus.table} == {"01": "male", "02": "female", "03": "male", "04": "female"}
    assert Counter(u.speaker for u in corpus.table) == {"01": 58, "02": 60, "03": 60, "04": 60}  # this copy lacks two
    assert {e: count for e, (count, _) in corpus.found_and_published().items()} == {
        "neutral": 16,
        **{"calm": 31, "surprise": 31},  # one of each is lacking
        **dict.fromkeys(("happiness", "sadness", "anger", "fear", "disgust"), 32),
    }
