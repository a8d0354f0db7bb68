"""The W&B run that a fit leaves offline, read back with W&B's own reader."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch

from ser.cli import main
from ser.runs import Evaluation, RunFolder
from ser.tracking import HEARD, WandbLogger, finish, heat_map

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


def test_the_run_is_named_after_its_folder_and_says_on_what_it_was_measured(run, records):
    (started,) = [record["run"] for record in records if "run" in record]
    assert started["display_name"] == "fold0-seed1"
    assert started["run_group"] == "cornn-synthetic"
    assert set(started["tags"]) == {"Synthetic", "cornn", "LeaveOneSpeakerOut"}
    protocol = json.loads((run / "protocol.json").read_text())
    config = started["config"]["update"]
    for fact in ("corpus", "fingerprint", "fold", "labels", "protocol", "speaker_disjoint", "synthetic"):
        assert config[fact] == protocol[fact]
    assert config["seed"] == 1
    assert config["test"] == {"utterances": 24, "speakers": ["spk01"]}
    assert "root" not in config  # a path of this machine


def test_the_summary_keeps_the_scores_of_the_checkpoint_that_was_tested(run, records):
    metrics = json.loads((run / "metrics.json").read_text())
    kept = {}
    for record in records:
        kept |= record.get("summary", {}).get("update", {})
    for stage in ("val", "test"):
        for score in ("uar", "wa", "macro_f1"):
            assert kept[f"{stage}/{score}"] == pytest.approx(metrics[stage][score])


def test_every_utterance_is_listed_and_the_worst_mistakes_can_be_heard(run, records):
    with (run / "predictions.csv").open() as file:
        said = {row["file"]: row for row in csv.DictReader(file)}
    (kept,) = [r["artifact"] for r in records if "predictions" in r.get("artifact", {}).get("name", "")]
    stored = {item["path"]: Path(item["local_path"]) for item in kept["manifest"]["contents"]}
    assert all(run.resolve() in path.parents for path in stored.values())
    table = json.loads(stored["test/predictions.table.json"].read_text())
    listed = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert {row["file"] for row in listed} == set(said)
    for row in listed:
        truth = said[row["file"]]
        assert (row["target"], row["predicted"]) == (truth["target"], truth["predicted"])
        assert row["correct"] == (truth["target"] == truth["predicted"])
        assert row["confidence"] == pytest.approx(float(truth[f"p_{truth['predicted']}"]))
    mistakes = [row for row in listed if not row["correct"]]
    assert listed[: len(mistakes)] == sorted(mistakes, key=lambda row: -row["confidence"])
    assert [row["audio"] is not None for row in listed] == [i < min(HEARD, len(mistakes)) for i in range(len(listed))]
    (corpus,) = {json.loads((run / "protocol.json").read_text())["root"]}
    for row in mistakes[:HEARD]:
        assert stored[row["audio"]["path"]].read_bytes() == Path(corpus, row["file"]).read_bytes()


def test_recordings_are_kept_up_to_a_size(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(audio_mb=0.0025)
    logger.attach(RunFolder(tmp_path, "run"), [], dict)
    recordings = {f"{name}.wav": tmp_path / f"{name}.wav" for name in "abcd"}
    for number, path in enumerate(recordings.values()):
        path.write_bytes(bytes([number]) * 1000)
    evaluation = Evaluation(
        labels=["calm", "wild"],
        files=list(recordings),
        speakers=["x"] * 4,
        targets=torch.tensor([0, 0, 0, 1]),
        probabilities=torch.tensor([[0.1, 0.9], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]]),
    )
    try:
        logger.log_predictions("test", evaluation, recordings)
    finally:
        finish(failed=False)
    staged = [path.read_bytes()[:1] for path in tmp_path.rglob("staging/*") if path.stat().st_size == 1000]
    assert sorted(staged) == [b"\x00", b"\x02"]  # of three mistakes, the two of which the network was surest


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
