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
    assert bad["stray_1.wav"] == "not in the folder of an emotion"


def test_strays_beside_the_emotions_are_foreign(make_tree, tmp_path):
    root = make_tree(["anger/anna_01.wav", "joy/anna_02.wav", "stray.wav"])
    corpus = EmotionFolders(root=root, speaker_pattern="^[^_]+", cache_dir=tmp_path / "cache")
    assert len(corpus.table) == 2
    assert any(note.startswith("Ignored") and note.endswith(": 1, stray.wav.") for note in corpus.input_notes)


def test_a_linked_folder_is_an_emotion(make_tree, parse, tmp_path):
    root = make_tree(["anger/anna_01.wav"])
    (tmp_path / "elsewhere").mkdir()
    (root / "anger/anna_01.wav").rename(tmp_path / "elsewhere/anna_02.wav")
    (root / "joy").symlink_to(tmp_path / "elsewhere")
    good, _ = parse(EmotionFolders(speaker_pattern="^[^_]+"), make_tree(["anger/anna_01.wav"]))
    assert {name: u.emotion for name, u in good.items()} == {"anger/anna_01.wav": "anger", "joy/anna_02.wav": "joy"}


@pytest.mark.parametrize("suffix", ["m4a", "wma", "webm", "mp4", "aac", "amr", "3gp", "mkv", "mov"])
def test_what_cannot_be_read_is_named_with_the_way_to_convert_it(suffix, make_tree, tmp_path):
    root = make_tree(["a.wav"])
    (root / f"b.{suffix}").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    advice = (
        f"b.{suffix}: not readable as audio .*; if another program plays it, convert it: ffmpeg -i b.{suffix} b.wav"
    )
    with pytest.raises(UserError, match=advice):
        _ = AudioFolder(root=root, emotions=["joy"], cache_dir=tmp_path / "cache").table
    corpus = AudioFolder(root=root, emotions=["joy"], cache_dir=tmp_path / "cache", on_bad_file="skip")
    assert len(corpus.table) == 1
    assert corpus.input_notes[0].startswith(f"Left out as unusable: 1, b.{suffix} (not readable")
    make_tree(["b.wav"])  # as advised
    assert len(AudioFolder(root=root, emotions=["joy"], cache_dir=tmp_path / "cache").table) == 2


def test_speakers_are_needed(tmp_path):
    with pytest.raises(UserError, match="needs the speakers"):
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
