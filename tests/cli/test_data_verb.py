import json
import sys
import zlib
from itertools import product
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile

from ser.cli import main
from ser.corpora import Synthetic
from ser.survey.corpus import clipped_samples

RATE_HZ = 16_000
CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")


@pytest.fixture
def ser(monkeypatch, capsys):
    """Run ``ser data``; returns the exit code, and what was printed to stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["ser"])

    def call(*options):
        code = main(["data", *map(str, options)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def table(tmp_path):
    """Write a corpus of six speakers, and return the options that describe it."""
    root = tmp_path / "own"
    root.mkdir()
    noise = np.random.default_rng(1)
    lines = ["file,emotion,speaker,gender"]
    for p in range(6):
        for i in range(4):
            name = f"p{p}_{i}.wav"
            soundfile.write(root / name, noise.uniform(-0.5, 0.5, RATE_HZ // 4 * (i + 1)), RATE_HZ)
            lines.append(f"{name},{('anger', 'neutral')[i % 2]},p{p},{'fm'[p % 2]}")
    (root / "table.csv").write_text("\n".join(lines))
    return ["--data", "Table", "--data.root", root, "--data.cache_dir", tmp_path / "cache"]


def described(ser, *options):
    code, out, err = ser(*options, "--format", "json")
    assert code == 0, err
    return json.loads(out)


def test_a_corpus_is_described_for_machines(ser, table, tmp_path):
    data = described(ser, *table)
    assert data["utterances"] == 24
    assert data["emotions"] == {"anger": [12, None], "neutral": [12, None]}
    assert data["speakers"]["p1"] == {"gender": "male", "utterances": 4, "emotions": {"anger": 2, "neutral": 2}}
    assert data["durations_s"] == {"total": 15.0, "min": 0.25, "median": 0.625, "mean": 0.625, "max": 1.0}
    assert data["sample_rates_hz"] == {"16000": 24}
    assert data["channels"] == {"1": 24}
    assert (data["damaged"], data["clipped"], data["duplicates"], data["cut"]) == ([], [], [], 0)
    assert [fold["tests"] for fold in data["folds"]] == [f"p{p}" for p in range(6)]
    assert data["folds"][5]["val"] == {"utterances": 4, "speakers": ["p0"], "emotions": {"anger": 2, "neutral": 2}}
    assert all(fold["leaks"] == [] for fold in data["folds"])
    assert len({fold["fingerprint"] for fold in data["folds"]}) == 6
    few = "val holds 4 utterances: the choice of the checkpoint is partly chance."
    assert data["verdict"] == f"a fit would run, but note: {few}"


def test_a_corpus_is_described_for_people(ser, table):
    code, out, _ = ser(*table, "--data.protocol", "SpeakerKFold", "--data.protocol.k", 3)
    assert code == 0
    for expected in (
        "24 utterances, 0.00 hours; 0.25 to 1.00 s, median 0.62 s; 24 at 16000 Hz",
        "SpeakerKFold, folds: 3",
        "p0 p1",
        "duplicates: none",
        "Verdict: a fit would run, but note: val holds 8 utterances: the choice of the checkpoint",
    ):
        assert expected in out


def test_damaged_clipped_and_repeated_files_are_named(ser, table):
    root = table[3]
    sound, rate = soundfile.read(root / "p0_3.wav")
    soundfile.write(root / "p0_1.wav", np.zeros(8000), rate)
    (root / "p1_1.wav").write_bytes(b"")
    soundfile.write(root / "p2_1.wav", np.concatenate([sound, np.ones(5), sound, -np.ones(4), [0.5, 1, 0.5]]), rate)
    soundfile.write(root / "p3_0.wav", sound, rate)
    data = described(ser, *table)
    assert data["damaged"] == [
        {"file": "p0_1.wav", "reason": "silent: no sample above -80 dB of full scale"},
        {"file": "p1_1.wav", "reason": "empty: no bytes"},
    ]
    assert data["clipped"] == [{"file": "p2_1.wav", "samples": 9}]
    assert data["duplicates"] == [["p0_3.wav", "p3_0.wav"]]
    leaks = {fold["fold"]: len(fold["leaks"]) for fold in data["folds"]}
    assert leaks == {0: 1, 1: 0, 2: 1, 3: 1, 4: 0, 5: 1}  # where p0 and p3 are not both in train, or both validate
    assert "2 damaged files stop a fit" in data["verdict"]
    assert "the audit stops fold 0, 2, 3, 5" in data["verdict"]

    _, out, _ = ser(*table, "--data.on_bad_file", "skip")
    assert "p0_3.wav = p3_0.wav" in out
    assert "p2_1.wav: 9 samples at full scale" in out
    assert "damaged files stop" not in out
    assert "Leak in fold 0: 1 recording is in train and, sample for sample, in test" in out


def test_a_survey_notes_what_is_cut_and_lists_what_is_foreign(ser, tmp_path):
    for speaker, suffix in product(Synthetic.speakers, ("s1_anger_r1", "s1_sadness_r1")):
        noise = np.random.default_rng(zlib.crc32(f"{speaker}{suffix}".encode())).uniform(-0.5, 0.5, 4 * 8000)
        soundfile.write(tmp_path / f"{speaker}_{suffix}.wav", noise, 8000)
    (tmp_path / "holiday.m4a").touch()
    options = ["--data", "Synthetic", "--data.root", tmp_path, "--data.cache_dir", tmp_path / "cache"]
    data = described(ser, *options)
    assert data["foreign"] == [{"file": "holiday.m4a", "reason": "not named like spk03_s2_anger_r1.wav"}]
    assert data["damaged"] == []
    assert data["verdict"].startswith("a fit would run")
    cut, narrow = data["notes"]
    assert cut.startswith("Truncated to 3 s: 16 of 16, ")
    assert narrow.startswith("Sampled below the 16000 Hz of the features, so without higher frequencies: 16")
    _, out, _ = ser(*options)
    assert f"Note: {cut}\nNote: {narrow}\n" in out
    assert "foreign: 1\n  holiday.m4a: not named like" in out


def test_clipping_counts_runs_of_one_sign_only():
    assert clipped_samples(np.array([1, 1, 0, 1, -1, 1, -1, 0.5], np.float32)) == 0
    assert clipped_samples(np.array([1, 1, 1, -1, -1, -1, -1, 0], np.float32)) == 7


def test_a_fold_that_cannot_be_made_is_said_to_be_one(ser, table):
    lines = (table[3] / "table.csv").read_text().splitlines()
    (table[3] / "table.csv").write_text("\n".join([lines[0], *lines[-8:]]))  # two speakers
    data = described(ser, *table)
    assert "has an empty train" in data["folds"][0]["problem"]
    assert data["verdict"] == "fold 0, 1 cannot be used."
    assert "cannot be used" in ser(*table)[1]


def test_the_config_of_a_fit_is_taken_whatever_else_it_holds(ser, table, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", CONFIG, "--data.preprocess.duration_s", "0.3", "--print_config"])
    config = tmp_path / "config.yaml"
    config.write_text(capsys.readouterr().out)
    assert described(ser, "--config", config, *table)["cut"] == 18


def test_what_a_config_holds_beside_the_data_is_not_made(ser, table, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {logger: {class_path: nowhere.Logger}}\nmodel: {class_path: nowhere.Model}\n")
    assert described(ser, "--config", config, *table)["utterances"] == 24


def test_pictures_are_saved(ser, table, tmp_path):
    folder = tmp_path / "new" / "pictures"
    code, out, _ = ser(*table, "--pictures", folder)
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {
        "class_balance.png",
        "spectrogram_anger.png",
        "spectrogram_neutral.png",
    }
    for path in folder.iterdir():
        assert str(path) in out.replace("\n", "")
        assert matplotlib.image.imread(path)[..., :3].std() > 0.05  # something is drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "Synthetik"], "there is no 'Synthetik'. Did you mean 'Synthetic'?"),
        (["--data", "Synthetic", "--data.rot", "x"], "has no option 'rot'. Did you mean 'root'?"),
        (["--data", "Synthetic", "--formt", "json"], "There is no option '--formt'. Did you mean '--format'?"),
        (["--data", "Synthetic", "--format", "xml"], "invalid choice: 'xml' (choose from 'text', 'json')"),
        (["--data", "Synthetic", "--data.fold", "8"], "Fold 8 does not exist"),
        (["--data", "Synthetic", "--data.batch_size", "0"], "batch_size is 0"),
        (["--data", "Synthetic", "--data.root", "nowhere"], "nowhere does not exist"),
        (["--data", "EmoDB"], "needs the folder of its recordings"),
        (["--data", "Synthetic", "--data.protocol", "KFold"], "there is no 'KFold'. Did you mean 'SpeakerKFold'?"),
        (["--data", "Synthetic", "--data.protocol", "LeaveOneSessionOut"], "needs the session of every utterance"),
        (["--data", "Synthetic", "--data.protocol", "SpeakerKFold", "--data.protocol.k", "1"], "k is 1; it must be"),
        (["--data", "AudioFolder"], "AudioFolder has no labels"),
        ([], "data must be given"),
        (["--config", "nowhere.yaml"], "nowhere.yaml'; --config must name an existing one"),
    ],
)
def test_bad_input_gets_one_message(ser, options, message, synthetic, tmp_path):
    if "Synthetic" in options:
        options = [*options, "--data.cache_dir", str(synthetic)]
    code, out, err = ser(*options)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert err.startswith("ser: error: ")


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """A cache folder that holds the embedded corpus."""
    folder = tmp_path_factory.mktemp("cache")
    Synthetic(cache_dir=folder).locate()
    return folder


def test_a_folder_that_cannot_be_written(ser, table, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = ser(*table, "--pictures", tmp_path / "file")
    assert code == 2
    assert "Pictures cannot be written to" in err


@pytest.mark.parametrize(
    ("pattern", "stopped", "why"),
    [
        ("^..(.)", "fold 0, 1, 2", "Every speaker has one emotion only."),  # the emotion
        ("^.*$", "fold 0, 1, 2, 3, 4 and 31 more", "Every speaker has one emotion only."),  # the recording
        ("^.", None, None),
    ],
)
def test_a_split_that_cannot_be_sound_is_not_called_so(ser, tmp_path, pattern, stopped, why):
    noise = np.random.default_rng(1)
    for name in (f"{speaker}_{emotion}{take}" for speaker in "abc" for emotion in "ANF" for take in range(4)):
        path = tmp_path / "own" / name[2] / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise.uniform(-0.5, 0.5, 1000), RATE_HZ)
    options = ["--data", "EmotionFolders", "--data.root", tmp_path / "own", "--data.cache_dir", tmp_path / "cache"]
    data = described(ser, *options, "--data.speaker_pattern", pattern)
    if stopped is None:
        assert data["verdict"] == "a fit would run."
        return
    assert data["verdict"].startswith(f"the audit stops {stopped}: its scores would be meaningless.")
    _, out, _ = ser(*options, "--data.speaker_pattern", pattern)
    assert f"Fault in fold 0: {why}" in out
    assert out.count("Fault in fold") < 40


def test_of_many_folds_the_first_are_looked_at(ser, tmp_path, cache_dir):
    for number in range(210):  # the whole name is taken for the speaker
        folder = tmp_path / "mine" / ("anger" if number % 2 else "neutral")
        folder.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, RATE_HZ // 5)
        soundfile.write(folder / f"anna_{number}.wav", samples, RATE_HZ)
    options = ["--data.root", tmp_path / "mine", "--data.speaker_pattern", ".*", "--data.cache_dir", cache_dir]
    code, printed, _ = ser("--data", "EmotionFolders", *options)
    assert code == 0
    assert "folds: 210; only the first 200 were checked" in printed
    assert "Verdict: a fit would run" not in printed
