"""The W&B run that a fit leaves offline, read back with W&B's own reader."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from ser.cli import main
from ser.runs.folder import Evaluation, RunFolder
from ser.training import tracking
from ser.training.tracking import RECORDINGS, WandbLogger, finish, heat_map, silence

CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")


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
    counts = {(truth, predicted): count for truth, predicted, count in cells}
    for row, truth in enumerate(labels):
        for column, predicted in enumerate(labels):
            assert counts[truth, predicted] == metrics["test"]["confusion"][row][column]

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


def test_every_utterance_is_listed_and_the_worst_mistakes_come_with_their_recordings(run, records):
    with (run / "predictions.csv").open() as file:
        predictions = {row["file"]: row for row in csv.DictReader(file)}
    (kept,) = [r["artifact"] for r in records if "predictions" in r.get("artifact", {}).get("name", "")]
    stored = {item["path"]: Path(item["local_path"]) for item in kept["manifest"]["contents"]}
    assert all(run.resolve() in path.parents for path in stored.values())
    table = json.loads(stored["test/predictions.table.json"].read_text())
    listed = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert {row["file"] for row in listed} == set(predictions)
    for row in listed:
        truth = predictions[row["file"]]
        assert (row["target"], row["predicted"]) == (truth["target"], truth["predicted"])
        assert row["correct"] == (truth["target"] == truth["predicted"])
        assert row["confidence"] == pytest.approx(float(truth[f"p_{truth['predicted']}"]))
    mistakes = [row for row in listed if not row["correct"]]
    assert listed[: len(mistakes)] == sorted(mistakes, key=lambda row: -row["confidence"])
    assert [row["audio"] is not None for row in listed] == [
        i < min(RECORDINGS, len(mistakes)) for i in range(len(listed))
    ]
    (corpus,) = {json.loads((run / "protocol.json").read_text())["root"]}
    for row in mistakes[:RECORDINGS]:
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
        targets=np.array([0, 0, 0, 1]),
        probabilities=np.array([[0.1, 0.9], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]]),
    )
    try:
        logger.log_predictions("test", evaluation, recordings)
    finally:
        finish(failed=False)
    staged = [path.read_bytes()[:1] for path in tmp_path.rglob("staging/*") if path.stat().st_size == 1000]
    assert sorted(staged) == [b"\x00", b"\x02"]  # of three mistakes, the two of which the network was surest


def evaluation_of(labels):
    count = len(labels)
    names = [f"{number}.wav" for number in range(count)]
    return Evaluation(labels, names, ["x"] * count, np.arange(count), np.roll(np.eye(count), 1, axis=0))


def test_heat_map_takes_any_label():
    labels = [r"$\foo$", r"\frac{", "a_b^c", "$", "$x$ and $y$", "very long " * 30, "[/01]", r"\$"]
    figure = heat_map(evaluation_of(labels))
    figure.savefig(io.BytesIO())
    shown = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert [text.replace(r"\$", "$") for text in shown[:5]] == labels[:5]
    assert len(shown[5]) == 30
    assert figure.axes[0].get_position().width > 0.3  # the names have not taken all the room


def test_a_recording_that_is_gone_costs_no_table(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger()
    logger.attach(RunFolder(tmp_path, "run"), [], dict)
    evaluation = evaluation_of(["calm", "wild"])
    try:
        logger.log_predictions("test", evaluation, {name: tmp_path / name for name in evaluation.files})
    finally:
        finish(failed=False)
    (table,) = [path for path in tmp_path.rglob("*predictions*.json") if path.is_file()]
    assert len(json.loads(table.read_text())["data"]) == 2
    assert not logger.lost


KEY = "k" * 40
OURS, THEIRS = "https://wandb.example.org:8080", "https://api.wandb.ai"


def home(folder, monkeypatch, netrc="", settings=""):
    """Give this process a home with these files."""
    (folder / ".netrc").write_text(netrc)
    (folder / ".netrc").chmod(0o600)
    file = folder / ".config/wandb/settings"
    file.parent.mkdir(parents=True)
    file.write_text(settings)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)


def teardown_wandb():
    """Let W&B forget its settings."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def machine(host):
    return f"machine {host.removeprefix('https://')}\n  login user\n  password {KEY}\n"


@pytest.mark.parametrize(
    ("files", "environment", "online"),
    [
        ({}, {}, False),
        ({"netrc": machine(THEIRS)}, {}, True),
        ({"netrc": machine(THEIRS)}, {"WANDB_BASE_URL": OURS}, False),
        ({"netrc": machine(OURS)}, {"WANDB_BASE_URL": OURS}, True),
        ({"netrc": machine(OURS)}, {}, False),
        ({"netrc": machine(OURS), "settings": f"[default]\nbase_url = {OURS}\n"}, {}, True),  # wandb login --host
        ({"netrc": machine(THEIRS), "settings": f"[default]\nbase_url = {OURS}\n"}, {}, False),
        ({"netrc": machine(THEIRS), "settings": "[default]\nmode = offline\n"}, {}, False),  # wandb offline
        ({}, {"WANDB_BASE_URL": OURS, "WANDB_API_KEY": KEY}, True),
        ({}, {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, False),
        ({"netrc": machine(OURS)}, {"WANDB_BASE_URL": OURS, "NETRC": "/nowhere"}, False),
    ],
)
def test_a_run_is_online_where_its_server_has_a_key(tmp_path, monkeypatch, files, environment, online):
    for name in [name for name in os.environ if name.startswith(("WANDB", "NETRC"))]:
        monkeypatch.delenv(name)
    home(tmp_path, monkeypatch, **files)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert WandbLogger().offline != online


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "no address"])
def test_a_server_that_cannot_be_reached_leaves_the_run_offline_with_one_message(
    tmp_path, monkeypatch, capsys, address
):
    monkeypatch.setattr(tracking, "ANSWERS_WITHIN_S", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # undone with all that W&B sets
    silence()
    teardown_wandb()  # which has read its settings
    logger = WandbLogger()
    assert not logger.offline
    logger.attach(RunFolder(tmp_path, "run"), [], dict)
    try:
        logger.log_metrics({"val/uar": 0.5})
        logger.log_evaluation("test", evaluation_of(["calm", "wild"]))
    finally:
        finish(failed=False)
        teardown_wandb()
    assert logger.offline
    assert not logger.lost
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith("W&B cannot be reached, so the run is kept offline (")
    assert list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))


def test_names_longer_than_w_and_b_takes_are_cut(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(offline=True)
    logger.attach(RunFolder(tmp_path / ("experiment-" * 20), "run-" * 40), ["corpus " * 30], dict)
    logger.log_metrics({"val/uar": 0.5})
    finish(failed=False)
    assert "W&B" not in capsys.readouterr().err
    assert not logger.lost


KILLED = """
import os, signal, subprocess, time
from pathlib import Path
import numpy as np
from ser.runs.folder import Evaluation, RunFolder
from ser.training.tracking import WandbLogger, finish, silence
silence()
logger = WandbLogger()
logger.attach(RunFolder(Path.cwd(), "run"), [], dict)
logger.log_metrics({"val/uar": 0.5})
children = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)
(service,) = [int(line.split()[0]) for line in children.stdout.splitlines() if "wandb-core" in line]
os.kill(service, signal.SIGKILL)
time.sleep(0.5)
for _ in range(3):
    logger.log_metrics({"val/uar": 0.5})
    logger.log_evaluation("test", Evaluation(["a", "b"], ["x", "y"], ["s", "s"], np.arange(2), np.eye(2)))
assert logger.where() is None
logger.finalize("success")
finish(failed=False)
print("done", flush=True)
os._exit(0)  # W&B itself is not asked again
"""


@pytest.mark.skipif(sys.platform == "win32", reason="ps lists processes")
def test_a_run_goes_on_where_w_and_b_dies(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", KILLED],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        # Without the address of a service that W&B runs for this process.
        env={name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"} | {"WANDB_MODE": "offline"},
    )
    assert ended.stdout == "done\n", ended.stderr
    assert ended.stderr.count("so nothing more is logged there; the run folder holds everything.") == 1
    assert "Traceback" not in ended.stderr


def test_heat_map_shows_counts_and_shares():
    evaluation = Evaluation(
        labels=["calm", "wild"],
        files=["a", "b", "c"],
        speakers=["x", "x", "x"],
        targets=np.array([0, 0, 1]),
        probabilities=np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]),
    )
    axes = heat_map(evaluation).axes[0]
    assert [text.get_text() for text in axes.texts] == ["50%\n1", "50%\n1", "0%\n0", "100%\n1"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["calm", "wild"]
