"""What the recorder leaves of a fit: only what was measured."""

import csv
import json
from pathlib import Path

import pytest
import torch

from ser.cli import main
from ser.runs.folder import RunFolder
from ser.runs.recorder import RunRecorder

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
    ("option", "value", "said"),
    [
        ("--data.sampling", "balanced", "data.sampling: shuffle, now balanced"),
        ("--trainer.limit_train_batches", "1", "trainer.limit_train_batches: None, now 1"),
        ("--trainer.accumulate_grad_batches", "2", "trainer.accumulate_grad_batches: 1, now 2"),
    ],
)
def test_a_run_goes_on_with_its_settings_only(fit, cache, capsys, option, value, said):
    fit("--trainer.max_epochs", "1")
    again = ["fit", *OPTIONS, "--data.cache_dir", str(cache), "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    assert main([*again, option, value]) == 2
    assert said in capsys.readouterr().err


def test_a_test_that_was_limited_is_reported_as_what_it_was(fit):
    run = fit("--trainer.max_epochs", "1", "--trainer.limit_test_batches", "1", "--data.batch_size", "8")
    assert json.loads((run / "metrics.json").read_text())["test"]["utterances"] == 8
    assert main(["report", str(run), "--output", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "was tested on 8 utterances of 1 speaker" in page
    assert "Only a part of a test was scored: 8 of 24 utterances in fold0-seed1." in page


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_checkpoint_keeps_the_evaluations_as_tensors(dtype, tmp_path):
    probabilities = torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=dtype)
    names = {"labels": ["a", "b"], "files": ["x", "y"], "speakers": ["s", "s"]}
    kept = {"latest": (3, {**names, "targets": torch.tensor([1, 0]), "probabilities": probabilities}), "best": None}
    for _ in range(2):
        recorder = RunRecorder(RunFolder(tmp_path, "run"))
        recorder.load_state_dict({**kept, "best_score": None, "history": []})
        torch.save(recorder.state_dict(), tmp_path / "state.pt")
        kept = torch.load(tmp_path / "state.pt", weights_only=True)
    assert kept["best"] is None
    epoch, evaluation = kept["latest"]
    assert (epoch, evaluation["probabilities"].tolist()) == (3, probabilities.tolist())
    assert {name: evaluation[name] for name in names} == names
