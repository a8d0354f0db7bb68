"""What the recorder leaves of a fit: only what was measured."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ser.cli import main
from ser.runs.confidence import fit_temperature, tempered
from ser.runs.folder import read_run

CONFIG = Path(__file__).parents[2] / "configs/cornn.yaml"
OPTIONS = ["--config", str(CONFIG), "--model.net.lstm_hidden", "8", "--model.net.ffn_factor", "1"]
OPTIONS += ["--trainer.accelerator", "cpu", "--trainer.logger", "false"]


@pytest.fixture
def fit(cache, tmp_path, monkeypatch):
    """Fit in a folder of its own, and return the run."""
    monkeypatch.chdir(tmp_path)

    def fit(*options):
        assert main(["fit", *OPTIONS, "--data.cache_dir", str(cache), *options]) == 0
        return tmp_path / "runs/cornn-synthetic/fold0-seed1"

    return fit


def test_an_epoch_without_validation_has_no_scores_of_one(fit, capsys):
    run = fit("--trainer.max_epochs", "4", "--trainer.check_val_every_n_epoch", "2")
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [bool(row["val/uar"]) for row in rows] == [bool(row["val/loss"]) for row in rows] == [False, True] * 2
    assert all(row["train/uar"] for row in rows)
    printed = capsys.readouterr().out
    assert "Epoch 0: not validated" in printed
    assert f"Epoch 3: val/loss {float(rows[3]['val/loss']):.3f}, val/uar {float(rows[3]['val/uar']):.3f}" in printed
    assert main(["report", str(run), "--output", "page.html"]) == 0

    longer = fit("--trainer.max_epochs", "5", "--trainer.check_val_every_n_epoch", "2", "--ckpt_path", "last")
    assert longer == run
    resumed = list(csv.DictReader((run / "history.csv").open()))
    assert [bool(row["val/uar"]) for row in resumed] == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--data.sampling", "balanced", "data.sampling: shuffle, now balanced"),
        ("--trainer.limit_train_batches", "1", "trainer.limit_train_batches: None, now 1"),
        ("--trainer.accumulate_grad_batches", "2", "trainer.accumulate_grad_batches: 1, now 2"),
    ],
)
def test_a_run_resumes_with_its_own_settings_only(fit, cache, capsys, option, value, message):
    fit("--trainer.max_epochs", "1")
    again = ["fit", *OPTIONS, "--data.cache_dir", str(cache), "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    assert main([*again, option, value]) == 2
    assert message in capsys.readouterr().err


def test_a_test_that_was_limited_is_reported_as_what_it_was(fit):
    run = fit("--trainer.max_epochs", "1", "--trainer.limit_test_batches", "1", "--data.batch_size", "8")
    assert json.loads((run / "metrics.json").read_text())["test"]["utterances"] == 8
    assert main(["report", str(run), "--output", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "tested on 8 utterances of 1 speaker" in page
    assert "Only part of a test set was scored: 8 of 24 utterances in fold0-seed1." in page


def leaves(value):
    """Yield every key, text and number of nested data."""
    if isinstance(value, torch.Tensor):
        yield from value.flatten().tolist()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *leaves(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_a_checkpoint_holds_the_calibration_and_nothing_of_single_utterances(fit):
    run = fit("--trainer.max_epochs", "2")
    protocol, validation = json.loads((run / "protocol.json").read_text()), read_run(run).validation
    names = {Path(file).stem for split in ("train", "val", "test") for file in protocol[split]["files"]}
    probabilities = set(validation.probabilities.flatten().tolist())
    assert (len(names), len(probabilities)) == (192, 96)
    for name in ("best", "last"):
        checkpoint = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
        kept = list(leaves(checkpoint))
        texts = [value for value in kept if isinstance(value, str)]
        assert texts
        assert not [text for text in texts if any(name in text for name in names)]
        assert not probabilities.intersection(value for value in kept if isinstance(value, float))
    tested = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    calibration = tested["calibration"]
    assert calibration["temperature"] == pytest.approx(
        fit_temperature(validation.probabilities, validation.targets), rel=1e-3
    )
    confidence = tempered(validation.probabilities, calibration["temperature"]).max(axis=1)
    assert calibration["confidence_quantiles"] == pytest.approx(np.percentile(confidence, range(0, 101, 10)), rel=1e-3)
    assert read_run(run).metrics["val"]["best_epoch"] == tested["epoch"]


def test_weights_that_were_not_validated_are_not_calibrated(fit):
    run = fit("--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2")
    kept = {name: torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last")}
    assert kept["best"]["calibration"]["temperature"] > 0
    assert kept["last"]["calibration"] is None
