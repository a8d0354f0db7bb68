"""The verbs as a user calls them, on the embedded corpus, with a small CoRNN so that an epoch takes a second."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from ser.cli import main
from ser.corpora import Synthetic
from ser.errors import UserError
from ser.runs.folder import read_run

REPOSITORY = Path(__file__).parents[2]
CONFIG = str(REPOSITORY / "configs/cornn.yaml")
SMALL = ["--model.net.lstm_hidden", "8", "--model.net.ffn_factor", "1"]


@pytest.fixture
def ser(tmp_path, cache, monkeypatch):
    """Run a verb in an empty folder; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ser"])

    def call(verb, *options, logger=False):
        arguments = [verb, "--trainer.accelerator", "cpu", *map(str, options)]
        if "--data.cache_dir" not in options:
            arguments += ["--data.cache_dir", str(cache)]
        if not logger:
            arguments += ["--trainer.logger", "false"]
        return main(arguments)

    return call


def fit(ser, *options, **kwargs):
    return ser("fit", "--config", CONFIG, *SMALL, "--trainer.max_epochs", 1, *options, **kwargs)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def contents(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, cache):
    """The run folder of one epoch."""
    root = tmp_path_factory.mktemp("fitted")
    options = ["--trainer.max_epochs", "1", "--trainer.logger", "false", "--run.root", str(root), "--data.cache_dir"]
    assert main(["fit", "--config", CONFIG, *SMALL, *options, str(cache)]) == 0
    return root / "cornn-synthetic" / "fold0-seed1"


@pytest.fixture
def copied(ser, fitted):
    """Return a function that copies that run into the working folder, under a name."""

    def copy(name):
        return Path(shutil.copytree(fitted, Path("runs/cornn-synthetic", name)))

    return copy


def test_fit_leaves_a_run_folder_whose_numbers_agree(fitted):
    assert {path.name for path in fitted.iterdir()} == {
        "config.yaml",
        "checkpoints",
        "protocol.json",
        "history.csv",
        "validation.csv",
        "predictions.csv",
        "metrics.json",
    }
    assert {path.name for path in (fitted / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    metrics = json.loads((fitted / "metrics.json").read_text())
    protocol = json.loads((fitted / "protocol.json").read_text())
    predictions = rows(fitted / "predictions.csv")

    assert metrics["fingerprint"] == protocol["fingerprint"]
    assert sorted(row["file"] for row in predictions) == sorted(protocol["test"]["files"])
    assert {row["speaker"] for row in predictions} == {"spk01"} == set(protocol["test"]["speakers"])
    assert not set(protocol["train"]["speakers"]) & {"spk01", "spk02"}
    assert protocol["synthetic"] is True

    truth, predicted = [row["target"] for row in predictions], [row["predicted"] for row in predictions]
    assert metrics["test"]["uar"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert metrics["test"]["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert metrics["test"]["confusion"] == confusion_matrix(truth, predicted, labels=protocol["labels"]).tolist()
    for row in predictions:
        probabilities = {label: float(row[f"p_{label}"]) for label in protocol["labels"]}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(probabilities, key=probabilities.__getitem__)


def test_a_run_is_read_as_it_was_written(fitted):
    run = read_run(fitted)
    assert (run.system, run.seed, run.fold) == ("cornn", 1, 0)
    assert run.test.scores()["confusion"] == run.metrics["test"]["confusion"]
    assert run.test.csv() == (fitted / "predictions.csv").read_bytes()
    # The validation scores that the epoch logged are those of the checkpoint that was tested.
    (epoch,) = run.history
    assert epoch["val/uar"] == pytest.approx(run.validation.scores()["uar"])
    assert 0 <= epoch["train/uar"] <= 1
    assert {run.validation.speakers[0]} == {"spk02"}
    assert run.genders["spk01"] in ("female", "male")


def test_the_last_checkpoint_is_the_last_epochs_and_a_moved_run_remembers_its_best(ser):
    # Nothing is learned, so that the first epoch stays the best.
    still = ["--optimizer.lr", 0, "--model.net.use_conformer", "false", "--run.name", "still"]
    assert fit(ser, *still, "--trainer.max_epochs", 3, "--test_checkpoint", "last") == 0
    run = Path("runs/cornn-synthetic/still")
    epochs = {name: torch.load(run / f"checkpoints/{name}.ckpt")["epoch"] for name in ("best", "last")}
    assert epochs == {"best": 0, "last": 2}
    assert json.loads((run / "metrics.json").read_text())["test"]["checkpoint"] == "last.ckpt"

    best = (run / "checkpoints/best.ckpt").read_bytes()
    run.parent.rename("runs/moved")
    moved = ["--run.experiment", "moved", "--ckpt_path", "last"]
    assert fit(ser, *still, *moved, "--trainer.max_epochs", 4) == 0
    run = Path("runs/moved/still")
    assert len(rows(run / "history.csv")) == 4
    assert (run / "checkpoints/best.ckpt").read_bytes() == best
    assert torch.load(run / "checkpoints/last.ckpt")["epoch"] == 3


def test_what_is_no_finished_run_is_refused(fitted, tmp_path):
    with pytest.raises(UserError, match="is not a run of ser"):
        read_run(tmp_path)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(fitted, unfinished)
    (unfinished / "predictions.csv").write_text("file,speaker\na.wav,ann\n")
    with pytest.raises(UserError, match="damaged"):
        read_run(unfinished)
    (unfinished / "predictions.csv").unlink()
    with pytest.raises(UserError, match="not finished"):
        read_run(unfinished)


def test_another_seed_gives_another_network_and_what_was_measured_is_printed(ser, fitted, capsys):
    assert fit(ser, "--seed_everything", 2) == 0
    other = Path("runs/cornn-synthetic/fold0-seed2/predictions.csv")
    assert other.read_text() != (fitted / "predictions.csv").read_text()
    printed = capsys.readouterr().out
    for expected in (
        "train on 144 utterances",
        "UAR",
        "WA",
        "macro-F1",
        "recall",
        "Synthetic speech",
        "Run folder: runs",
    ):
        assert expected in printed


def test_a_second_run_does_not_overwrite_the_first(ser, copied):
    first = copied("fold0-seed1")
    before = contents(first)
    assert fit(ser, "--test_checkpoint", "none") == 0
    assert contents(first) == before
    assert {path.name for path in first.parent.iterdir()} == {"fold0-seed1", "fold0-seed1-2"}
    assert not first.with_name("fold0-seed1-2").joinpath("predictions.csv").exists()


def test_the_saved_config_reproduces_the_run(ser, fitted):
    assert ser("fit", "--config", fitted / "config.yaml", "--run.root", "again") == 0
    again = Path("again/cornn-synthetic/fold0-seed1")
    assert (again / "predictions.csv").read_text() == (fitted / "predictions.csv").read_text()


def test_test_and_validate_repeat_the_scores_of_the_fit(ser, fitted, capsys):
    metrics = json.loads((fitted / "metrics.json").read_text())
    best = fitted / "checkpoints/best.ckpt"
    for verb, stage in (("test", "test"), ("validate", "val")):
        assert ser(verb, "--config", fitted / "config.yaml", "--ckpt_path", best, "--run.root", "runs") == 0
        scores = json.loads(Path(f"runs/cornn-synthetic/{verb}-fold0-seed1/metrics.json").read_text())[stage]
        assert scores["confusion"] == metrics[stage]["confusion"]


def test_a_checkpoint_alone_recognises_recordings(ser, fitted, cache, tmp_path):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    known = {row["file"]: row for row in rows(fitted / "predictions.csv")}
    for file in list(known)[:5]:
        (recordings / file).write_bytes((Synthetic(cache_dir=cache).locate() / file).read_bytes())
    samples, rate = soundfile.read(recordings / file)
    soundfile.write(recordings / "stereo.flac", np.stack([samples, samples], axis=1), rate)

    checkpoint = tmp_path / "alone.ckpt"
    checkpoint.write_bytes((fitted / "checkpoints/best.ckpt").read_bytes())
    options = ["--ckpt_path", checkpoint, "--data", "AudioFolder", "--data.root", recordings]
    assert ser("predict", *options) == 0
    (written,) = Path("runs").glob("*/predict-*/predictions.csv")
    recognised = {row["file"]: row for row in rows(written)}
    assert set(recognised) == {*list(known)[:5], "stereo.flac"}
    for name, row in recognised.items():
        expected = known[file if name == "stereo.flac" else name]
        assert row["emotion"] == expected["predicted"]
        assert float(row["p_anger"]) == pytest.approx(float(expected["p_anger"]), abs=1e-4)


def test_predict_says_what_it_leaves_out_and_what_it_does_not_hear(ser, fitted, tmp_path, capsys):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * 16_000)
    soundfile.write(recordings / "long.wav", noise, 16_000)
    soundfile.write(recordings / "phone.wav", noise[:8_000], 8_000)
    soundfile.write(recordings / "click.wav", noise[:160], 16_000)
    soundfile.write(recordings / "wild.wav", np.append(noise, 1e19), 16_000, subtype="FLOAT")
    (recordings / "memo.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    options = ["--ckpt_path", fitted / "checkpoints/best.ckpt", "--data", "AudioFolder", "--data.root", recordings]
    assert ser("predict", *options) == 2
    assert not Path("runs").exists()
    printed = capsys.readouterr()
    assert "wild.wav: holds a sample of 1e+19" in printed.err
    assert "memo.m4a: not readable" in printed.err

    assert ser("predict", *options, "--data.on_bad_file", "skip") == 0
    (run,) = Path("runs").glob("*/predict-*")
    assert {row["file"] for row in rows(run / "predictions.csv")} == {"long.wav", "phone.wav", "click.wav"}
    reasons = {row["file"]: row["reason"] for row in rows(run / "left_out.csv")}
    assert reasons.keys() == {"wild.wav", "memo.m4a"}
    assert "ffmpeg -i memo.m4a memo.wav" in reasons["memo.m4a"]
    printed = capsys.readouterr().out
    for note in ("unusable: 2, memo.m4a (not readable", "1 of 3, long.wav (20.0 s)", "phone.wav (8000 Hz)"):
        assert printed.count(note) == 1
    assert printed.count("click.wav (0.010 s)") == 1


def test_a_checkpoint_is_scored_on_its_own_fold_and_never_on_a_speaker_it_knows(ser, capsys):
    assert fit(ser, "--data.fold", 3) == 0
    best = Path("runs/cornn-synthetic/fold3-seed1/checkpoints/best.ckpt")
    capsys.readouterr()
    assert ser("test", "--ckpt_path", best, "--data", "Synthetic") == 0
    scores = json.loads(Path("runs/cornn-synthetic/test-fold3-seed1/metrics.json").read_text())["test"]
    assert scores["confusion"] == json.loads((best.parents[1] / "metrics.json").read_text())["test"]["confusion"]
    for fold, speaker in ((0, "spk01"), (4, "spk05")):  # trained on the one, chosen on the other
        assert ser("test", "--ckpt_path", best, "--data", "Synthetic", "--data.fold", fold) == 2
        assert f"Test speaker {speaker} was used to train or select this checkpoint" in capsys.readouterr().err


def test_a_run_is_resumed_with_its_own_settings_only(ser, copied, capsys):
    run = copied("fold0-seed1")
    before = contents(run)
    for options in (["--model.net.lstm_hidden", 4], ["--optimizer.lr", 0.5], ["--data.emotions", "[anger,neutral]"]):
        assert fit(ser, *options, "--ckpt_path", "last") == 2
        printed = capsys.readouterr().err
        assert "was started with other settings" in printed
        assert options[0].rpartition(".")[2] in printed
    assert contents(run) == before
    assert fit(ser, "--trainer.max_epochs", 2, "--ckpt_path", "last") == 0
    assert json.loads((run / "metrics.json").read_text())["fit"]["epochs"] == 2
    assert "ckpt_path: null" in (run / "config.yaml").read_text()


def test_only_runs_of_the_same_name_are_resumed(ser, copied):
    run, newer = copied("exp"), copied("exp-2layers")
    before = contents(newer)
    assert fit(ser, "--run.name", "exp", "--ckpt_path", "last", "--trainer.max_epochs", 2) == 0
    assert len(rows(run / "history.csv")) == 2
    assert contents(newer) == before


def test_a_full_disk_is_one_message_and_keeps_the_last_checkpoint(ser, capsys, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        assert fit(ser, "--run.root", small) == 2
        printed = capsys.readouterr().err
        assert "disk is full" in printed
        assert "Traceback" not in printed
        for checkpoint in small.rglob("*.ckpt"):
            torch.load(checkpoint, weights_only=True)
    finally:
        subprocess.run(["umount", small], check=True)


def test_configs_are_composed_and_options_override_them(ser, capsys):
    overlay = str(REPOSITORY / "configs/paper/cornn.yaml")
    with pytest.raises(SystemExit) as stop:
        fit(ser, "--config", overlay, "--data", "EmoDB", "--data.root", "x", "--optimizer.lr", 0.5, "--print_config")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for expected in (
        "ser.corpora.EmoDB",
        "deltas: 2",
        "patience: 250",
        "lr: 0.5",
        "lstm_hidden: 8",
        "test_checkpoint: last",
    ):
        assert expected in printed


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_precisions(ser, precision):
    # A CPU takes seconds for a convolution in 16 bits: two utterances of 0.3 s are enough.
    tiny = ["--data.batch_size", 2, "--data.preprocess.duration_s", 0.3]
    few = [f"--trainer.limit_{stage}_batches=0.1" for stage in ("train", "val", "test")]
    assert fit(ser, *tiny, *few, "--trainer.precision", precision) == 0
    metrics = json.loads(Path("runs/cornn-synthetic/fold0-seed1/metrics.json").read_text())
    assert metrics["test"]["utterances"] == 2


@pytest.mark.slow
def test_a_killed_fit_resumes_to_the_same_scores(ser, cache, tmp_path):
    options = ["--data.batch_size", 12, "--trainer.max_epochs", 4]
    assert fit(ser, *options, "--run.root", "whole") == 0

    command = ["fit", "--config", CONFIG, *SMALL, *options, "--run.root", "killed", "--data.cache_dir", cache]
    command += ["--trainer.accelerator", "cpu", "--trainer.logger", "false"]
    process = subprocess.Popen([sys.executable, "-m", "ser", *map(str, command)], stdout=subprocess.DEVNULL)
    last = tmp_path / "killed/cornn-synthetic/fold0-seed1/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (last.parents[1] / "metrics.json").exists()
    assert torch.load(last, weights_only=True)["epoch"] < 3

    assert fit(ser, *options, "--run.root", "killed", "--ckpt_path", "last") == 0
    assert [path.name for path in (tmp_path / "killed/cornn-synthetic").iterdir()] == ["fold0-seed1"]
    for name in ("metrics.json", "predictions.csv", "validation.csv"):
        runs = [(tmp_path / run / "cornn-synthetic/fold0-seed1" / name).read_text() for run in ("whole", "killed")]
        if name == "metrics.json":
            runs = [{part: json.loads(text)[part] for part in ("val", "test")} for text in runs]
            for run in runs:
                for part in run.values():
                    del part["sha256"]  # a checkpoint names its folder
        assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        (signal.SIGTERM, 143, "ended by SIGTERM. To resume after the last complete epoch, repeat"),
        (signal.SIGINT, 130, "ser: interrupted"),
    ],
)
def test_a_signal_ends_a_fit_with_its_own_code_and_says_how_to_resume(ser, capsys, sent, code, message):
    last = Path("runs/cornn-synthetic/fold0-seed1/checkpoints/last.ckpt").resolve()

    def send():
        while not last.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), sent)

    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
    threading.Thread(target=send, daemon=True).start()
    try:
        assert fit(ser, "--trainer.max_epochs", 99, "--early_stopping.patience", 99) == code
    finally:
        signal.signal(signal.SIGINT, former)  # which Lightning has switched off
    printed = capsys.readouterr().err
    assert message in printed
    assert (
        "Interrupted; repeat the command with --ckpt_path last to resume runs/cornn-synthetic/fold0-seed1." in printed
    )
    assert not (last.parents[1] / "metrics.json").exists()
    assert fit(ser, "--trainer.max_epochs", 2, "--ckpt_path", "last") == 0


def test_training_that_diverges_stops_and_is_not_scored(ser, capsys):
    """Outputs that are no numbers would be scored at chance."""
    assert fit(ser, "--optimizer.lr", 1e30, "--trainer.max_epochs", 9) == 1
    printed = capsys.readouterr().err
    assert "Training diverged: the loss is nan after epoch" in printed
    assert "Lower --optimizer.lr" in printed
    assert "--ckpt_path last" not in printed
    run = Path("runs/cornn-synthetic/fold0-seed1")
    assert rows(run / "history.csv")[-1]["train/loss"] == "nan"
    assert not (run / "predictions.csv").exists()


BAD_OPTIONS = {
    "misspelt option": (["--trainr.max_epochs", "3"], "Did you mean '--trainer.max_epochs'?"),
    "abbreviated option": (["--trainer.max_epoch", "3"], "Did you mean '--trainer.max_epochs'?"),
    "misspelt option of the network": (["--model.net.lstm_hiden", "3"], "Did you mean 'lstm_hidden'?"),
    "misspelt option of the corpus": (["--data.fodl", "3"], "Did you mean 'fold'?"),
    "misspelt option of the features": (["--data.features.n_mel", "3"], "Did you mean 'n_mels'?"),
    "misspelt option of the preprocessing": (["--data.preprocess.topdb", "3"], "Did you mean 'top_db'?"),
    "unknown corpus": (["--data", "EmoDBB"], "Did you mean 'EmoDB'?"),
    "unknown network": (["--model.net", "CoRN"], "Did you mean 'CoRNN'?"),
    "unknown network of a module": (["--model.net", "ser.models.CoRN"], "Did you mean 'CoRNN'?"),
    "unknown features": (["--data.features", "LogMeel"], "Did you mean 'LogMel'?"),
    "unknown protocol": (["--data.protocol", "Leave"], "LeaveOneSpeakerOut"),
    "unknown optimiser": (["--optimizer", "Adamm"], "Did you mean 'Adam'?"),
    "wrong choice": (["--test_checkpoint", "bst"], "'best', 'last', 'none'"),
    "wrong type": (["--data.batch_size", "many"], "batch_size: expected"),
    "no such config": (["--config", "nope.yaml"], "There is no file"),
    "no root": (["--data", "EmoDB"], "--data.root"),
    "no such root": (["--data", "EmoDB", "--data.root", "nowhere"], "nowhere does not exist"),
    "no audio": (["--data", "EmoDB", "--data.root", "."], "holds no audio files"),
    "unknown emotion": (["--data.emotions", "[anger,joy]"], "joy not found in Synthetic"),
    "one emotion": (["--data.emotions", "[anger]"], "at least two"),
    "fold out of range": (["--data.fold", "8"], "Fold 8 does not exist"),
    "negative fold": (["--data.fold", "-1"], "Fold -1 does not exist"),
    "unknown validation speaker": (
        ["--data.protocol", "LeaveOneSpeakerOut", "--data.protocol.validation_speaker", "spk99"],
        "'spk99' is not in the corpus",
    ),
    "unknown monitor": (["--early_stopping.monitor", "val/uarr"], "which is not logged"),
    "no validation": (["--trainer.limit_val_batches", "0"], "limit_val_batches is 0"),
    "empty batches": (["--data.batch_size", "0"], "batch_size is 0"),
    "batches of many lengths": (["--model.net", "DyCNN", "--data.padding", "batch"], "padding is 'batch', but DyCNN"),
    "no end of training": (
        ["--model.net", "DyCNN", "--data.padding", "fixed", "--trainer.max_epochs", "-1"],
        "follows the progress of training, which needs an end",
    ),
    "no GPU": (["--trainer.accelerator", "gpu"], "gpu"),
    "run folder": (["--run.root", "/proc/nowhere"], "cannot be created"),
    "cache folder": (["--data.cache_dir", "/proc/nowhere"], "/proc/nowhere"),
    "no such checkpoint": (["--ckpt_path", "nope.ckpt"], "There is no checkpoint nope.ckpt"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused_in_one_message(ser, capsys, tmp_path, options, message):
    if "--trainer.accelerator" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert fit(ser, *options) == 2
    printed = capsys.readouterr().err
    assert printed.count("ser: error: ") == 1
    assert "Traceback" not in printed
    assert message in printed
    assert list(tmp_path.iterdir()) == []


def test_a_verb_that_does_not_exist(capsys):
    assert main(["fti"]) == 2
    assert "Did you mean fit?" in capsys.readouterr().err


def test_no_config_at_all(ser, capsys):
    assert ser("fit") == 2
    assert "--config configs/cornn.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_verbs_that_need_a_checkpoint_say_so(ser, capsys, verb):
    assert ser(verb, "--config", CONFIG) == 2
    assert "--ckpt_path" in capsys.readouterr().err


def test_checkpoints_that_do_not_fit(ser, fitted, capsys, tmp_path):
    best = fitted / "checkpoints/best.ckpt"
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(best.read_bytes()[:10_000])
    assert ser("test", "--config", CONFIG, "--ckpt_path", cut) == 2
    assert "is not a checkpoint of ser, or is damaged" in capsys.readouterr().err

    assert ser("test", "--config", CONFIG, "--ckpt_path", best, "--data.emotions", "[anger,sadness]") == 2
    assert "recognises anger, happiness, neutral, sadness" in capsys.readouterr().err

    assert ser("test", "--config", CONFIG, "--ckpt_path", best, "--model.net.lstm_hidden", 16) == 2
    assert "another network" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_damaged_files_are_all_named_or_left_out(ser, cache, capsys, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in Synthetic(cache_dir=cache).locate().glob("*.wav"):
        (corpus / path.name).write_bytes(path.read_bytes())
    (corpus / "spk05_s1_anger_r1.wav").write_bytes((corpus / "spk05_s2_anger_r1.wav").read_bytes()[:5000])
    (corpus / "spk06_s1_anger_r1.wav").write_bytes(b"")
    (corpus / "holiday.wav").write_bytes((corpus / "spk05_s2_anger_r1.wav").read_bytes())
    assert fit(ser, "--data.root", corpus) == 2
    printed = capsys.readouterr().err
    for name in ("spk05_s1_anger_r1.wav: truncated", "spk06_s1_anger_r1.wav: empty", "2 of 193 files"):
        assert name in printed
    assert not Path("runs").exists()

    assert fit(ser, "--data.root", corpus, "--data.on_bad_file", "skip") == 0
    printed = capsys.readouterr().out
    for note in ("unusable: 2, spk05_s1_anger_r1.wav (truncated", "Ignored, as not part of Synthetic: 1, holiday.wav."):
        assert printed.count(note) == 1
    protocol = json.loads(Path("runs/cornn-synthetic/fold0-seed1/protocol.json").read_text())
    assert {item["file"] for item in protocol["left_out"]} == {
        "spk05_s1_anger_r1.wav",
        "spk06_s1_anger_r1.wav",
        "holiday.wav",
    }


def test_help_and_version_answer_at_once():
    for option in ("--help", "--version"):
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "ser", option], capture_output=True, text=True, check=True)
        after = os.times()  # of the processor: another process may keep it waiting
        assert after.children_user + after.children_system - before.children_user - before.children_system < 1
        assert done.stdout
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys; from ser.cli import main; main(['--help']); print(sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert not any(f"'{name}'" in loaded.stdout for name in ("torch", "lightning", "numpy", "wandb"))
