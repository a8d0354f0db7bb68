"""The W&B run that a fit leaves offline, read back with W&B's own reader."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch

from ser.cli import main
from ser.runs import Evaluation
from ser.tracking import heat_map

CONFIG = str(Path(__file__).parents[1] / "configs/cornn.yaml")


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """The run folder of two epochs, tracked without an account."""
    root = tmp_path_factory.mktemp("tracked")
    options = ["--model.net.lstm_hidden", "8", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("HOME", str(root))  # no .netrc
        paths = ["--run.root", str(root), "--data.cache_dir", str(cache)]
        assert main(["fit", "--config", CONFIG, *options, *paths]) == 0
    return root / "cornn-synthetic/fold0-seed1"


@pytest.fixture(scope="module")
def records(run):
    """Everything that W&B logged, record by record."""
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    read = subprocess.run([wandb, "leet", "inspect", "--json", log], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in read.stdout.splitlines()]


def logged(records):
    """Return every value logged under each key."""
    values = {}
    for record in records:
        for key, value in record.get("history", {}).get("item", {}).items():
            values.setdefault(key, []).append(value)
    return values


def test_curves_and_dashboards_are_there(records):
    values = logged(records)
    for stage in ("train", "val"):
        for score in ("loss", "uar", "wa", "macro_f1"):
            assert len(values[f"{stage}/{score}"]) == 2  # epochs
    assert len(values["test/uar"]) == 1
    for stage in ("val", "test"):
        assert values[f"{stage}/confusion_heatmap._type"] == ["image-file"]
        assert values[f"{stage}/recalls._type"] == ["table-file"]
        assert values[f"{stage}/confusion_matrix_table._type"] == ["table-file"]


def test_the_dashboards_show_the_numbers_of_the_run_folder(run, records):
    metrics = json.loads((run / "metrics.json").read_text())
    files = next(run.glob("wandb/offline-run-*/files"))
    values = logged(records)
    assert values["test/uar"][0] == pytest.approx(metrics["test"]["uar"])

    recalls = json.loads((files / values["test/recalls.path"][0]).read_text())
    assert dict(recalls["data"]) == pytest.approx(metrics["test"]["recalls"])

    cells = json.loads((files / values["test/confusion_matrix_table.path"][0]).read_text())["data"]
    labels = list(metrics["test"]["recalls"])
    counts = {(truth, said): count for truth, said, count in cells}
    for row, truth in enumerate(labels):
        for column, said in enumerate(labels):
            assert counts[truth, said] == metrics["test"]["confusion"][row][column]

    picture = matplotlib.image.imread(files / values["test/confusion_heatmap.path"][0])
    assert picture.std() > 0.05  # something is drawn


def test_the_run_is_named_after_its_folder(records):
    (started,) = [record["run"] for record in records if "run" in record]
    assert started["display_name"] == "fold0-seed1"
    assert started["run_group"] == "cornn-synthetic"
    assert set(started["tags"]) == {"Synthetic", "cornn", "LeaveOneSpeakerOut"}


def test_heat_map_shows_counts_and_shares():
    evaluation = Evaluation(
        labels=["calm", "wild"],
        files=["a", "b", "c"],
        speakers=["x", "x", "x"],
        targets=torch.tensor([0, 0, 1]),
        probabilities=torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]),
    )
    axes = heat_map(evaluation).axes[0]
    assert [text.get_text() for text in axes.texts] == ["50%\n1", "50%\n1", "0%\n0", "100%\n1"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["calm", "wild"]
