"""Corpora whose file names say everything: EMO-DB, RAVDESS, SAVEE, CASIA."""

import re
import shutil
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser.corpora import CASIA, RAVDESS, SAVEE, EmoDB, Synthetic
from ser.data import BadFile, SpeechCorpus, Utterance
from ser.errors import UserError


def emodb() -> list[str]:
    letters = {"W": 127, "L": 81, "E": 46, "A": 69, "F": 71, "N": 79, "T": 62}
    speakers = ["03", "08", "09", "10", "11", "12", "13", "14", "15", "16"]
    texts = ["a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10"]
    return [
        f"wav/{speaker}{text}{letter}{version}.wav"
        for letter, count in letters.items()
        for version, text, speaker in list(product("ab", texts, speakers))[:count]
    ]


def ravdess() -> list[str]:
    return [
        f"Actor_{actor:02}/03-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor:02}.wav"
        for actor, emotion, intensity, statement, repetition in product(range(1, 25), range(1, 9), *[(1, 2)] * 3)
        if (emotion, intensity) != (1, 2)
    ]


def savee() -> list[str]:
    counts = {"a": 15, "d": 15, "f": 15, "h": 15, "n": 30, "sa": 15, "su": 15}
    return [
        f"AudioData/{speaker}/{prefix}{number:02}.wav"
        for speaker in ("DC", "JE", "JK", "KL")
        for prefix, count in counts.items()
        for number in range(1, count + 1)
    ]


def casia() -> list[str]:
    speakers = ("liuchanhg", "zhaoquanyin", "wangzhe", "ZhaoZuoxiang")
    emotions = ("angry", "fear", "happy", "neutral", "sad", "surprise")
    return [f"{s}/{e}/{text}.wav" for s, e, text in product(speakers, emotions, range(201, 251))]


COMPLETE = {EmoDB: (emodb, 535), RAVDESS: (ravdess, 1440), SAVEE: (savee, 480), CASIA: (casia, 1200)}


@pytest.mark.parametrize("corpus", COMPLETE, ids=lambda corpus: corpus.name)
def test_complete_corpus_has_the_published_counts(corpus, make_tree, tmp_path):
    names, total = COMPLETE[corpus]
    module = corpus(root=make_tree(names()), cache_dir=tmp_path / "cache")
    assert len(module.table) == total == sum(corpus.published.values())
    assert module.found_and_published() == {emotion: [count, count] for emotion, count in corpus.published.items()}
    assert {u.speaker: u.gender for u in module.table} == corpus.speakers


@pytest.mark.parametrize(
    ("corpus", "name", "expected"),
    [
        (EmoDB, "wav/03a01Fa.wav", ("happiness", "03", "male", "a01")),
        (EmoDB, "16b10Lb.wav", ("boredom", "16", "female", "b10")),
        (EmoDB, "wav/08a07Ac.WAV", ("fear", "08", "female", "a07")),
        (RAVDESS, "Actor_12/03-01-06-02-01-02-12.wav", ("fear", "12", "female", "01")),
        (RAVDESS, "03-01-02-01-02-01-01.wav", ("calm", "01", "male", "02")),
        (SAVEE, "AudioData/DC/a01.wav", ("anger", "DC", "male", "a01")),
        (SAVEE, "AudioData/KL/su15.wav", ("surprise", "KL", "male", "su15")),
        (SAVEE, "JE_sa03.wav", ("sadness", "JE", "male", "sa03")),
        (SAVEE, "ALL/JK_n30.wav", ("neutral", "JK", "male", "n30")),
        (CASIA, "liuchanhg/angry/201.wav", ("anger", "liuchanhg", "female", "201")),
        (CASIA, "CASIA/zhaozuoxiang/Happy/250.wav", ("happiness", "ZhaoZuoxiang", "male", "250")),
        (CASIA, "WANGZHE/SAD/207.wav", ("sadness", "wangzhe", "male", "207")),
        (Synthetic, "spk03_s2_anger_r1.wav", ("anger", "spk03", "female", "s2")),
    ],
)
def test_name(corpus, name, expected, make_tree, parse):
    good, bad = parse(corpus(), make_tree([name]))
    utterance = good[name]
    assert (utterance.emotion, utterance.speaker, utterance.gender, utterance.sentence) == expected
    assert not bad


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        (EmoDB, "wav/03a01Xa.wav"),
        (EmoDB, "wav/04a01Fa.wav"),
        (EmoDB, "wav/03a01F.wav"),
        (EmoDB, "wav/03a01Fa copy.wav"),
        (RAVDESS, "Actor_25/03-01-06-02-01-02-25.wav"),
        (RAVDESS, "Actor_01/03-01-09-02-01-02-01.wav"),
        (RAVDESS, "Actor_01/03-01-06-02-01-02.wav"),
        (SAVEE, "AudioData/DC/s01.wav"),
        (SAVEE, "AudioData/XX/a01.wav"),
        (SAVEE, "a01.wav"),
        (CASIA, "liuchanhg/bored/201.wav"),
        (CASIA, "somebody/angry/201.wav"),
        (Synthetic, "spk09_s2_anger_r1.wav"),
        (Synthetic, "spk03_s2_boredom_r1.wav"),
    ],
)
def test_wrong_name_is_a_bad_file(corpus, name, make_tree, parse):
    good, bad = parse(corpus(), make_tree([name]))
    assert not good
    assert "not named like" in bad[name]


FOREIGN = [
    (
        EmoDB,
        "wav/03a01Fa.wav",
        ["wav/holiday.wav", "noise/1.mp3", "interview.m4a", "lablaut/x.flac"],
        "wav/04a01Fa.wav",
    ),
    (RAVDESS, "Actor_12/03-01-06-01-02-01-12.wav", ["noise.wav", "more/1.ogg", "a.mov"], "Actor_12/noise.wav"),
    (
        SAVEE,
        "AudioData/DC/sa01.wav",
        ["noise.wav", "AudioData/intro.wav", "AudioData/XX/hum.wma"],
        "AudioData/XX/a01.wav",
    ),
    (CASIA, "liuchanhg/angry/201.wav", ["201.wav", "stray 1.wav", "CASIA/extra/hum.wma"], "liuchanhg/201.wav"),
    (Synthetic, "spk03_s2_anger_r1.wav", ["holiday.wav", "a/b.aiff"], "spk03_s2_joy_r1.wav"),
]


@pytest.mark.parametrize(
    ("corpus", "name", "strays", "misnamed"), FOREIGN, ids=lambda value: getattr(value, "name", "")
)
def test_strays_are_ignored_with_a_note_and_what_looks_like_the_corpus_stops(
    corpus, name, strays, misnamed, make_tree, tmp_path
):
    root = make_tree([name])
    for stray in strays:
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).write_bytes(b"never looked into")
    module = corpus(root=root, cache_dir=tmp_path / "cache")
    assert [module.relative(utterance.path) for utterance in module.table] == [name]
    assert {(module.relative(file.path), file.foreign) for file in module.left_out} == {(s, True) for s in strays}
    note = next(note for note in module.input_notes if note.startswith(f"Ignored, as not part of {corpus.name}"))
    assert f": {len(strays)}, " in note

    make_tree([misnamed])
    with pytest.raises(UserError, match=re.escape(f"  {misnamed}: not named like")) as stopped:
        _ = corpus(root=root, cache_dir=tmp_path / "cache").table
    assert str(stopped.value).startswith(f"1 of {len(strays) + 2} files")
    assert f"  {strays[0]}" not in str(stopped.value)


def test_a_film_of_a_recording_is_no_second_copy_and_alone_it_is_a_bad_file(make_tree, tmp_path):
    root = make_tree(["AudioData/DC/a01.wav"])
    for name in ("AudioVisualClip/DC/a01.avi", "AudioVisualClip/DC/a02.avi"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"RIFF....AVI LIST" + bytes(100))
    with pytest.raises(UserError, match=r"1 of 2 files .*\n  AudioVisualClip/DC/a02.avi: .*ffmpeg -i a02.avi a02.wav"):
        _ = SAVEE(root=root, cache_dir=tmp_path / "cache").table


def test_files_that_do_not_belong_are_left_out(make_tree, parse):
    speech = "Actor_01/03-01-05-01-01-01-01.wav"
    root = make_tree([speech, "Actor_01/03-02-05-01-01-01-01.wav", "Actor_01/01-01-05-01-01-01-01.wav"])
    shutil.copy(root / speech, root / "Actor_01/._03-01-05-01-01-01-01.wav")
    (root / "Actor_01/03-01-05-01-01-01-01.txt").write_text("notes")
    good, bad = parse(RAVDESS(), root)
    assert list(good) == [speech]
    assert not bad

    (root / "liuchanhg/angry").mkdir(parents=True)
    (root / "liuchanhg/angry/201.lab").write_text("labels")
    (root / "liuchanhg/_desktop.ini").write_text("")
    assert not list(CASIA().utterances(root / "liuchanhg"))


def test_second_copy_of_a_corpus_counts_once(make_tree, parse):
    root = make_tree(["Actor_01/03-01-05-01-01-01-01.wav", "Actor_01/03-01-04-01-01-01-01.wav"])
    shutil.copytree(root / "Actor_01", root / "audio_speech_actors_01-24/Actor_01")
    good, bad = parse(RAVDESS(), root)
    assert len(good) == 2
    assert not bad


def test_two_recordings_of_one_name_are_rejected(make_tree, parse):
    good, bad = parse(EmoDB(), make_tree(["original/03a01Fa.wav", "resampled/03a01Fa.wav"]))
    assert list(good) == ["original/03a01Fa.wav"]
    assert "differs" in bad["resampled/03a01Fa.wav"]


def test_corpus_of_another_name_is_rejected_with_the_layout(make_tree, tmp_path):
    root = make_tree(["Actor_01/03-01-05-01-01-01-01.wav"])
    with pytest.raises(UserError, match=r"files like 03a01Fa\.wav"):
        _ = EmoDB(root=root, cache_dir=tmp_path).table


@pytest.mark.parametrize("corpus", [*COMPLETE, Synthetic], ids=lambda corpus: corpus.name)
@given(name=st.text(st.characters(codec="utf-8", exclude_characters="/\\\0\n\r"), min_size=1, max_size=24))
def test_no_name_stops_a_parser(corpus: type[SpeechCorpus], name: str, tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("names")
    (root / f"x{name}.wav"[:80]).touch()
    assert all(isinstance(item, BadFile | Utterance) for item in corpus().utterances(root))


@given(
    prefix=st.sampled_from(["a", "d", "f", "h", "n", "sa", "su"]),
    number=st.integers(0, 99),
    speaker=st.sampled_from(["DC", "JE", "JK", "KL"]),
    flat=st.booleans(),
)
def test_savee_prefixes_are_never_mixed_up(prefix, number, speaker, flat, tmp_path_factory):
    full = {
        "a": "anger",
        "d": "disgust",
        "f": "fear",
        "h": "happiness",
        "n": "neutral",
        "sa": "sadness",
        "su": "surprise",
    }
    root = tmp_path_factory.mktemp("savee")
    path = root / (f"{speaker}_{prefix}{number:02}.wav" if flat else f"{speaker}/{prefix}{number:02}.wav")
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (item,) = SAVEE().utterances(root)
    assert isinstance(item, Utterance)
    assert (item.emotion, item.speaker) == (full[prefix], speaker)


@given(
    speaker=st.sampled_from(sorted(EmoDB.speakers)),
    sentence=st.from_regex(r"[ab][0-9]{2}", fullmatch=True),
    letter=st.sampled_from("WLEAFNT"),
    version=st.sampled_from("abcdef"),
)
def test_emodb_fields_by_position(speaker, sentence, letter, version, tmp_path_factory):
    root: Path = tmp_path_factory.mktemp("emodb")
    name = f"{speaker}{sentence}{letter}{version}"
    (root / f"{name}.wav").touch()
    (item,) = EmoDB().utterances(root)
    assert isinstance(item, Utterance)
    initials = Counter(W="anger", L="boredom", E="disgust", A="fear", F="happiness", N="neutral", T="sadness")
    assert (item.speaker, item.sentence, item.emotion) == (name[0:2], name[2:5], initials[name[5]])
