from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser.corpora import IEMOCAP
from ser.data import Utterance
from ser.errors import UserError

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
RATERS = "C-E1:\tExcited;\t()\nC-F2:\tNeutral;\t()\nA-E3:\tval 4; act 2; dom  1;\t(calm, d\xe9tach\xe9)\n\n"
DIALOGUES = {
    "Ses01F_impro01": [("F000", "neu"), ("F001", "xxx"), ("M000", "ang"), ("M001", "exc")],
    "Ses01F_script01_1": [("F000", "hap"), ("M000", "fru")],
    "Ses02M_impro05a": [("F000", "sad"), ("M000", "hap"), ("M001", "oth")],
    "Ses03TM_impro05b": [("F000", "neu"), ("M000", "sur")],
    "Ses04M_script02_2b": [("F000", "fea"), ("M000", "dis")],
    "Ses05TF_impro03": [("F000", "hap"), ("M000", "xxx"), ("M001", "sad"), ("M002", "ang")],
}


def label_file(dialogue: str, turns: Iterable[tuple[str, str]]) -> str:
    blocks = [
        f"[{k}.3661 - {k + 1}.6150]\t{dialogue}_{turn}\t{emotion}\t[4.0000, 3.0000, 2.0000]\n{RATERS}"
        for k, (turn, emotion) in enumerate(turns)
    ]
    return HEADER + "".join(blocks)


@pytest.fixture
def release(make_tree) -> Path:
    """Write a small release with the traps of the real one."""
    recordings = [
        f"Session{dialogue[4]}/sentences/wav/{dialogue}/{dialogue}_{turn}.wav"
        for dialogue, turns in DIALOGUES.items()
        for turn, _ in turns
    ]
    root = make_tree(recordings)
    for dialogue, turns in DIALOGUES.items():
        folder = root / f"Session{dialogue[4]}/dialog/EmoEvaluation"
        (folder / "Categorical").mkdir(parents=True, exist_ok=True)
        # Raters' remarks are not UTF-8 throughout.
        (folder / f"{dialogue}.txt").write_bytes(label_file(dialogue, turns).encode("latin-1"))
        (folder / f"._{dialogue}.txt").write_bytes(
            b"\0\5\x16\7" + label_file(dialogue, [("F000", "dis")]).encode("latin-1")
        )
        (folder / "Categorical" / f"{dialogue}_e2_cat.txt").write_text(label_file(dialogue, [("F000", "dis")]))
        (root / f"Session{dialogue[4]}/sentences/wav/{dialogue}/._{dialogue}_F000.wav").write_bytes(b"\0\5\x16\7")
    return root


def test_a_second_recording_of_a_turn_is_rejected_and_a_stray_is_foreign(release, make_tree, parse):
    turn = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    copy = "Session1/sentences/wav/copy/Ses01F_impro01_F000.wav"
    stray = "Session1/sentences/wav/hum.wav"
    make_tree([copy, stray])
    good, bad = parse(IEMOCAP(), release)
    assert turn in good
    assert "differs from it; keep one copy" in bad[copy]
    assert [item.foreign for item in IEMOCAP().utterances(release) if item.path == release / stray] == [True]


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        ("improvised", Counter(neutral=2, anger=2, excited=1, sadness=2, happiness=2, other=1, surprise=1)),
        ("scripted", Counter(happiness=1, frustration=1, fear=1, disgust=1)),
    ],
)
def test_subset(subset, expected, release, parse):
    good, bad = parse(IEMOCAP(subset=subset), release)
    assert Counter(u.emotion for u in good.values()) == expected
    assert not bad


def test_all_is_both_subsets(release, parse):
    everything, improvised, scripted = (
        set(parse(IEMOCAP(subset=s), release)[0]) for s in ("all", "improvised", "scripted")
    )
    assert everything == improvised | scripted
    assert not improvised & scripted
    turns = [emotion for turns in DIALOGUES.values() for _, emotion in turns]
    assert len(everything) == len(turns) - turns.count("xxx")


def test_speaker_is_who_speaks_not_whose_motion_was_captured(release, parse):
    good, _ = parse(IEMOCAP(subset="all"), release)
    turn = good["Session3/sentences/wav/Ses03TM_impro05b/Ses03TM_impro05b_F000.wav"]
    assert (turn.speaker, turn.gender, turn.session, turn.sentence) == ("Ses03F", "female", "Ses03", None)
    turn = good["Session4/sentences/wav/Ses04M_script02_2b/Ses04M_script02_2b_F000.wav"]
    assert (turn.speaker, turn.session, turn.sentence) == ("Ses04F", "Ses04", "script02_2")
    assert {u.speaker: u.gender for u in good.values()} == IEMOCAP.speakers


def test_defaults_are_the_four_emotions_of_improvised_speech(release, tmp_path):
    corpus = IEMOCAP(root=release, cache_dir=tmp_path / "cache")
    assert corpus.labels == ["anger", "happiness", "neutral", "sadness"]
    assert {e: [found, published] for e, (found, published) in corpus.found_and_published().items()} == {
        "anger": [2, 289],
        "happiness": [2, 284],
        "neutral": [2, 1099],
        "sadness": [2, 608],
    }
    assert sum(IEMOCAP.published[e] for e in corpus.labels) == 2280


def test_published_counts_agree_with_each_other():
    whole = IEMOCAP(subset="all").published
    parts = [IEMOCAP(subset="improvised").published, IEMOCAP(subset="scripted").published]
    for emotion in parts[0]:
        assert sum(part[emotion] for part in parts) == whole[emotion]
    assert sum(whole[e] for e in ("anger", "happiness", "excited", "neutral", "sadness")) == 5531


def test_all_labels_in_order(release, tmp_path):
    corpus = IEMOCAP(root=release, subset="all", emotions=None, cache_dir=tmp_path / "cache")
    assert corpus.labels == [
        *("anger", "happiness", "neutral", "sadness", "excited"),
        *("frustration", "surprise", "fear", "disgust", "other"),
    ]


def test_release_may_lie_in_a_folder_of_its_own(release, tmp_path, parse):
    (tmp_path / "outer").mkdir()
    release.rename(tmp_path / "outer/IEMOCAP_full_release")
    good, _ = parse(IEMOCAP(), tmp_path / "outer")
    assert len(good) == 11


def test_label_and_recording_must_come_together(release, parse):
    wav = release / "Session1/sentences/wav/Ses01F_impro01"
    (wav / "Ses01F_impro01_F000.wav").rename(wav / "Ses01F_impro01_F009.wav")
    _, bad = parse(IEMOCAP(), release)
    assert "has no label in Session1" in bad["Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F009.wav"]
    assert "the recording is missing" in bad["Session1/sentences/wav/Ses01F_impro01_F000.wav"]


def test_unknown_label_and_name(release, parse, make_tree):
    make_tree(["Session1/sentences/wav/Ses01F_impro01/noise.wav"])
    path = release / "Session2/dialog/EmoEvaluation/Ses02M_impro05a.txt"
    path.write_bytes(path.read_bytes().replace(b"\tsad\t", b"\tbor\t"))
    _, bad = parse(IEMOCAP(), release)
    assert "not named like" in bad["Session1/sentences/wav/Ses01F_impro01/noise.wav"]
    assert "'bor'" in bad["Session2/sentences/wav/Ses02M_impro05a/Ses02M_impro05a_F000.wav"]


def test_session_without_labels_is_rejected(release, parse):
    (release / "Session1/dialog/EmoEvaluation").rename(release / "elsewhere")
    with pytest.raises(UserError, match=r"Session1.*holds no label files"):
        parse(IEMOCAP(), release)


def test_wrong_subset():
    with pytest.raises(UserError, match=r"subset is 'impro'; choose one of improvised, scripted, all"):
        IEMOCAP(subset="impro")


@given(
    turn=st.from_regex(r"Ses0[1-5]T?[FM]_(impro[0-9]{2}[ab]?|script[0-9]{2}_[0-9][ab]?)_[FM][0-9]{3}", fullmatch=True)
)
def test_every_published_form_of_name(turn, tmp_path_factory):
    root: Path = tmp_path_factory.mktemp("iemocap")
    dialogue, number = turn.rsplit("_", 1)
    labels = root / f"Session{turn[4]}/dialog/EmoEvaluation/{dialogue}.txt"
    audio = root / f"Session{turn[4]}/sentences/wav/{dialogue}/{turn}.wav"
    for path in (labels, audio):
        path.parent.mkdir(parents=True)
        path.touch()
    labels.write_text(label_file(dialogue, [(number, "fru")]), encoding="latin-1")
    (item,) = IEMOCAP(subset="all").utterances(root)
    assert isinstance(item, Utterance)
    assert (item.speaker, item.emotion) == (f"Ses0{turn[4]}{number[0]}", "frustration")
    assert (item.sentence is None) == ("impro" in turn)
