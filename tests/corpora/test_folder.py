import pytest

from ser.corpora import AudioFolder, EmotionFolders
from ser.errors import UserError


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (r"^[^_]+", ["anger/anna_01.wav", "joy/anna_02.flac"]),
        (r"speaker-(\w+)-", ["anger/rec-speaker-anna-1.wav", "joy/speaker-anna-1.wav"]),
        (r"^[^/]+", ["anger/anna/1.wav", "joy/anna/1.wav"]),
    ],
)
def test_speaker_pattern(pattern, names, make_tree, parse):
    good, bad = parse(EmotionFolders(speaker_pattern=pattern), make_tree(names))
    assert [(u.emotion, u.speaker) for u in good.values()] == [("anger", "anna"), ("joy", "anna")]
    assert not bad


def test_files_without_speaker_or_emotion_are_bad(make_tree, parse):
    root = make_tree(["anger/anna_01.wav", "anger/x.wav", "stray_1.wav"])
    good, bad = parse(EmotionFolders(speaker_pattern=r"^([a-z]*)_"), root)
    assert list(good) == ["anger/anna_01.wav"]
    assert "finds no speaker in 'x.wav'" in bad["anger/x.wav"]
    assert bad["stray_1.wav"] == "lies in no emotion's folder"


def test_speakers_are_needed(tmp_path):
    with pytest.raises(UserError, match="must know who speaks"):
        EmotionFolders(root=tmp_path)


def test_pattern_must_be_a_regular_expression(tmp_path):
    with pytest.raises(UserError, match=r"'\(' is not a regular expression"):
        EmotionFolders(root=tmp_path, speaker_pattern="(")


def test_audio_folder_takes_a_folder_or_a_file(make_tree):
    root = make_tree(["a.wav", "deep/er/b.flac"])
    (root / "notes.txt").write_text("")
    everything = list(AudioFolder().utterances(root))
    assert [(u.path, u.emotion, u.speaker) for u in everything] == [
        (root / "a.wav", "", ""),
        (root / "deep/er/b.flac", "", ""),
    ]
    assert list(AudioFolder().utterances(root / "a.wav")) == everything[:1]
