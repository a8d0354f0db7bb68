"""A resumed fit is the same fit, and one that has ended goes straight to its test."""

import csv
import json
from pathlib import Path

import pytest
import soundfile
import torch

from ser.cli import main
from tests.conftest import RATE_HZ, speech

CONFIG = str(Path(__file__).parents[1] / "configs/cornn_no_conformer.yaml")
SMALL = ["--model.net.lstm_hidden", "2", "--data.features.n_mels", "4"]


@pytest.fixture
def fit(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*options):
        places = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--data.cache_dir", str(cache)]
        return main(["fit", "--config", CONFIG, *SMALL, *places, *map(str, options)])

    return call


def contents(run):
    return {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "metrics.json"}


def test_a_fit_that_early_stopping_has_ended_trains_no_further(fit):
    run = Path("runs/cornn_no_conformer-synthetic/fold0-seed1")
    stopped = ["--early_stopping.patience", 1, "--optimizer.lr", 0, "--trainer.max_epochs", 20]
    assert fit(*stopped) == 0
    before, metrics = contents(run), json.loads((run / "metrics.json").read_text())
    assert metrics["fit"]["epochs"] == 2
    for _ in range(2):
        assert fit(*stopped, "--ckpt_path", "last") == 0
        assert contents(run) == before
        assert json.loads((run / "metrics.json").read_text()) == metrics
    # Killed between the end of training and the test.
    (run / "predictions.csv").unlink()
    assert fit(*stopped, "--ckpt_path", "last") == 0
    assert contents(run) == before
    # More patience is another end.
    assert fit("--early_stopping.patience", 3, *stopped[2:], "--ckpt_path", "last") == 0
    assert json.loads((run / "metrics.json").read_text())["fit"]["epochs"] == 4


def test_a_fit_that_has_all_its_epochs_trains_no_further(fit):
    run = Path("runs/cornn_no_conformer-synthetic/fold0-seed1")
    assert fit("--trainer.max_epochs", 2) == 0
    before, metrics = contents(run), json.loads((run / "metrics.json").read_text())
    assert fit("--trainer.max_epochs", 2, "--ckpt_path", "last") == 0
    assert contents(run) == before
    assert json.loads((run / "metrics.json").read_text()) == metrics


def test_the_validation_predictions_are_complete_after_a_resume(fit):
    """Here the best epoch is the first one, as nothing is learned."""
    runs = Path("runs/cornn_no_conformer-synthetic")
    learn_nothing = ["--optimizer.lr", 0, "--early_stopping.patience", 9]
    assert fit(*learn_nothing, "--trainer.max_epochs", 3, "--run.name", "whole") == 0
    whole = (runs / "whole/validation.csv").read_bytes()
    assert len(whole.splitlines()) == 25
    resumed = [*learn_nothing, "--run.name", "resumed"]
    assert fit(*resumed, "--trainer.max_epochs", 1) == 0
    for name in ("validation.csv", "predictions.csv", "metrics.json"):  # as if it had been killed after an epoch
        (runs / "resumed" / name).unlink()
    for _ in range(2):
        assert fit(*resumed, "--trainer.max_epochs", 3, "--ckpt_path", "last") == 0
        assert (runs / "resumed/validation.csv").read_bytes() == whole
        (runs / "resumed/validation.csv").unlink()
    found, expected = (json.loads((runs / name / "metrics.json").read_text()) for name in ("resumed", "whole"))
    assert found["val"]["best_epoch"] == expected["val"]["best_epoch"] == 0
    assert found["val"]["confusion"] == expected["val"]["confusion"]


def test_a_name_is_resumed_and_no_longer_one(fit):
    def epochs(name):
        last = torch.load(f"runs/cornn_no_conformer-synthetic/{name}/checkpoints/last.ckpt", weights_only=True)
        return last["epoch"] + 1

    short = ["--trainer.max_epochs", 1, "--test_checkpoint", "none"]
    assert fit("--run.name", "a", *short) == 0
    assert fit("--run.name", "a-2", *short) == 0  # a name that a user gave
    assert fit("--run.name", "a", "--trainer.max_epochs", 2, "--test_checkpoint", "none", "--ckpt_path", "last") == 0
    assert (epochs("a"), epochs("a-2")) == (2, 1)
    assert fit("--run.name", "a", *short) == 0  # taken: a number is added that is free
    assert fit("--run.name", "a", "--trainer.max_epochs", 3, "--test_checkpoint", "none", "--ckpt_path", "last") == 0
    assert (epochs("a"), epochs("a-2"), epochs("a-3")) == (2, 1, 3)


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table of four speakers, given the split of each."""
    folder = tmp_path / "mine"
    folder.mkdir()
    files = []
    for number in range(4):
        for take, emotion in enumerate(("anger", "neutral") * 6):
            files.append((f"{number}-{take}.wav", emotion, f"0{number}"))
            soundfile.write(folder / files[-1][0], speech(100 * number + take, 0.3), RATE_HZ)

    def write(splits, lacking=()):
        with (folder / "mine.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file", "emotion", "speaker", "split"])
            rows.writerows((*row, splits[int(row[2])]) for row in files if row[0] not in lacking)
        return ["--data", "Table", "--data.root", folder / "mine.csv", "--data.protocol", "ColumnSplit"]

    return write


def test_a_fit_goes_on_with_its_own_utterances_only(fit, table, capsys):
    options = ["--trainer.max_epochs", 1, *table(("train", "train", "val", "test"))]
    assert fit(*options) == 0
    run = Path("runs/cornn_no_conformer-mine/fold0-seed1")
    before = contents(run)
    more = ["--trainer.max_epochs", 2, "--ckpt_path", "last"]
    assert fit(*table(("test", "train", "val", "train")), *more) == 2
    assert "Test speaker 00 was used to train or select this checkpoint" in capsys.readouterr().err
    assert fit(*table(("train", "train", "val", "test"), lacking=["0-0.wav"]), *more) == 2
    assert "was trained on another split of mine" in capsys.readouterr().err
    assert contents(run) == before
    assert fit(*table(("train", "train", "val", "test")), *more) == 0


def test_a_fit_from_another_folds_checkpoint_keeps_its_history(fit, capsys):
    assert fit("--trainer.max_epochs", 1) == 0
    best = Path("runs/cornn_no_conformer-synthetic/fold0-seed1/checkpoints/best.ckpt")
    more = ["--trainer.max_epochs", 2, "--ckpt_path", best]
    assert fit("--data.fold", 2, *more) == 2
    assert "Test speaker spk03 was used to train or select this checkpoint" in capsys.readouterr().err
    assert [path.name for path in best.parents[2].iterdir()] == ["fold0-seed1"]
    sound = ["--data.protocol", "FixedSpeakers", "--data.protocol.val", "[spk02]", "--data.protocol.test", "[spk01]"]
    assert fit(*sound, "--data.protocol.train", "[spk03,spk04]", "--run.name", "further", *more) == 0
    protocol = json.loads((best.parents[2] / "further/protocol.json").read_text())
    assert any("was trained before on Synthetic, fold 0" in note for note in protocol["notes"])
