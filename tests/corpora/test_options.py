import json
import re

import pytest

from ser.corpora import IEMOCAP, Table
from ser.corpora.listing import EmotionChoice, differences
from ser.errors import UserError


def test_merge_counts_one_emotion_as_another(tiny):
    corpus = tiny(merge={"anger": "negative"})
    assert corpus.labels == ["negative", "neutral"]
    assert corpus.found_and_published() == {"negative": [8, 8], "neutral": [8, 8]}
    assert {u.emotion for u in corpus.table if "anger" in u.path.name} == {"negative"}
    assert corpus.protocol_description()["merge"] == {"anger": "negative"}
    assert corpus.fingerprint != tiny(corpus.root).fingerprint


def test_emotions_are_chosen_by_their_merged_names(tiny):
    corpus = tiny(merge={"anger": "negative"}, emotions=["neutral", "negative"])
    assert corpus.labels == ["neutral", "negative"]
    with pytest.raises(UserError, match="emotions: anger not found in Tiny here, which has negative, neutral"):
        tiny(corpus.root, merge={"anger": "negative"}, emotions=["neutral", "anger"]).labels  # noqa: B018


def test_a_misspelt_emotion_to_merge_is_rejected(tiny):
    with pytest.raises(UserError, match="merge: angry not found in Tiny here, which has anger, neutral"):
        tiny(merge={"angry": "negative"}).labels  # noqa: B018


def test_merged_counts_of_iemocap_are_the_published_5531():
    corpus = IEMOCAP("nowhere", subset="all", merge={"excited": "happiness"})
    choice = EmotionChoice("IEMOCAP", corpus.published, corpus.emotions, corpus.merge)
    counts = choice.counts([], corpus.emotions)
    assert {emotion: published for emotion, (_, published) in counts.items()} == {
        "anger": 1103, "happiness": 1636, "neutral": 1708, "sadness": 1084,
    }  # fmt: skip
    assert sum(published for _, published in counts.values()) == 5531


def test_a_sum_of_which_a_part_is_unknown_is_unknown():
    choice = EmotionChoice("C", {"anger": 5, "fear": 3}, None, {"surprise": "fear"})
    assert choice.counts([], ["anger", "fear"]) == {"anger": [0, 5], "fear": [0, None]}


def remove(root, *stems):
    for stem in stems:
        (root / f"{stem}.wav").unlink()


def test_an_incomplete_copy_works_and_says_so(make_corpus, tiny):
    root = make_corpus()
    remove(root, "anna_anger_s1", "ben_neutral_s2", "dan_neutral_s2")
    corpus = tiny(root)
    assert corpus.protocol_description()["found_and_published"] == {"anger": [7, 8], "neutral": [6, 8]}
    assert corpus.summary().splitlines()[1:] == [
        "This copy of Tiny differs from the published corpus:",
        "           found  published",
        "  anger        7          8  <",
        "  neutral      6          8  <",
    ]
    json.dumps(corpus.protocol_description(), allow_nan=False)


def test_a_complete_copy_says_nothing_of_it(tiny):
    corpus = tiny(strict=True)
    assert corpus.table
    assert len(corpus.summary().splitlines()) == 1


def test_strict_rejects_an_incomplete_copy(make_corpus, tiny):
    root = make_corpus()
    remove(root, "anna_anger_s1")
    with pytest.raises(UserError, match=r"copy of Tiny is incomplete:\n.*\n  anger +7 +8  <\n") as error:
        tiny(root, strict=True).table  # noqa: B018
    assert "leave strict out" in str(error.value)


def test_strict_rejects_a_copy_without_an_emotion_unless_others_are_chosen(make_corpus, tiny):
    root = make_corpus()
    remove(root, *(f"{p}_anger_{s}" for p in ("anna", "ben", "carla", "dan") for s in ("s1", "s2")))
    for speaker in ("anna", "ben"):
        (root / f"{speaker}_neutral_s2.wav").rename(root / f"{speaker}_joy_s2.wav")
    with pytest.raises(UserError, match=r"anger +0 +8  <"):
        tiny(root, strict=True).table  # noqa: B018
    assert tiny(root).found_and_published() == {"anger": [0, 8], "neutral": [6, 8], "joy": [2, None]}


def test_strict_counts_what_is_left_when_damaged_files_are(make_corpus, tiny):
    root = make_corpus()
    (root / "anna_anger_s1.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"anger +7 +8  <"):
        tiny(root, strict=True, on_bad_file="skip").table  # noqa: B018


def test_strict_needs_published_counts(make_corpus, cache_dir):
    root = make_corpus()
    lines = ["file,emotion,speaker", *(f"{p.name},{p.stem.split('_')[1]},{p.stem[:3]}" for p in root.glob("*.wav"))]
    (root / "table.csv").write_text("\n".join(lines))
    assert len(Table(root, cache_dir=cache_dir).table) == 16
    with pytest.raises(
        UserError, match=re.escape("strict compares with published counts, and there are none for tiny")
    ):
        Table(root, strict=True, cache_dir=cache_dir).table  # noqa: B018


def test_more_than_published_is_shown_but_is_no_fault(make_corpus, tiny):
    root = make_corpus()
    (root / "anna_anger_s3.wav").write_bytes((root / "anna_anger_s1.wav").read_bytes())
    corpus = tiny(root, strict=True)
    assert corpus.found_and_published()["anger"] == [9, 8]
    assert "anger" in differences(corpus.found_and_published())
