"""Cross-validations of two folds of the embedded corpus, with a small CoRNN."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from ser.cli import main
from ser.corpora import Synthetic
from ser.runs.folder import find_runs, read_run

CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")
SETTINGS = ["--config", CONFIG, "--model.net.lstm_hidden", "8", "--model.net.ffn_factor", "1"]
SETTINGS += ["--trainer.max_epochs", "3", "--data.batch_size", "12", "--trainer.accelerator", "cpu", "--folds", "0,1"]

pytestmark = pytest.mark.slow


def arguments(cache, root, *options):
    return ["crossval", *SETTINGS, "--data.cache_dir", str(cache), "--run.root", str(root), *map(str, options)]


@pytest.fixture(scope="module")
def experiment(cache, tmp_path_factory):
    """The folder of two folds, tracked without an account, with what was printed in it."""
    root = tmp_path_factory.mktemp("crossval")
    with pytest.MonkeyPatch.context() as patch, (root / "printed").open("w") as printed, redirect_stdout(printed):
        patch.setattr(sys, "argv", ["ser"])
        patch.setenv("HOME", str(root))  # no .netrc
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.chdir(root)
        assert main(arguments(cache, root, "--jobs", 2)) == 0
    return root / "cornn-synthetic"


@pytest.fixture
def copy(experiment, tmp_path, monkeypatch):
    """A copy of the experiment's folder, in a root of its own."""
    monkeypatch.setattr(sys, "argv", ["ser"])
    monkeypatch.chdir(tmp_path)
    shutil.copytree(experiment, tmp_path / "runs" / experiment.name)
    return tmp_path / "runs" / experiment.name


def contents(folder):
    """Return what the runs of an experiment hold."""
    files = (path for run in folder.glob("fold*") for path in run.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def half_done(folder):
    """Make a finished run one that was stopped before its test."""
    (folder / "predictions.csv").unlink()
    (folder / "metrics.json").unlink()


def test_every_fold_is_a_run_and_scikit_learn_finds_the_same_scores(experiment):
    runs = [read_run(experiment / f"fold{fold}-seed1") for fold in (0, 1)]
    assert [run.protocol["tests"] for run in runs] == ["spk01", "spk02"]
    assert [run.path for run in find_runs(experiment)] == [run.path for run in runs]
    summary = json.loads((experiment / "crossval.json").read_text())
    predictions = rows(experiment / "predictions.csv")
    assert [row["file"] for row in predictions] == [file for run in runs for file in run.test.files]
    for fold, part in enumerate(summary["folds"]):
        truth = [row["target"] for row in predictions if row["fold"] == str(fold)]
        said = [row["predicted"] for row in predictions if row["fold"] == str(fold)]
        assert part["means"]["uar"] == pytest.approx(balanced_accuracy_score(truth, said))
        assert part["epochs"] == 3
    truth, said = [row["target"] for row in predictions], [row["predicted"] for row in predictions]
    pooled = {name: score["pooled"] for name, score in summary["scores"].items()}
    assert pooled["uar"] == pytest.approx(balanced_accuracy_score(truth, said))
    assert pooled["wa"] == pytest.approx(accuracy_score(truth, said))
    assert pooled["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert summary["confusion"] == confusion_matrix(truth, said, labels=summary["labels"]).tolist()
    assert summary["scores"]["uar"]["mean"] == pytest.approx(sum(p["means"]["uar"] for p in summary["folds"]) / 2)


def test_what_was_measured_is_printed(experiment):
    printed = (experiment.parent / "printed").read_text()
    summary = json.loads((experiment / "crossval.json").read_text())
    for expected in (
        "2 runs in",
        "fold 1 (spk02), seed 1: UAR",
        "cornn on Synthetic, LeaveOneSpeakerOut, seed 1",
        f"{100 * summary['scores']['uar']['mean']:.1f} ± ",
        f"{100 * summary['scores']['macro_f1']['pooled']:.1f}",
        "Synthetic speech",
        "Note: only fold 0, 1 of the protocol's 8",
        "wandb leet",
    ):
        assert expected in printed


def records(run):
    """Return everything that W&B logged, record by record."""
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    read = subprocess.run([wandb, "leet", "inspect", "--json", log], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in read.stdout.splitlines()]


def test_wandb_has_a_group_and_a_summary_run(experiment):
    for name, job_type in (("fold0-seed1", None), ("summary", "summary")):
        (started,) = [record["run"] for record in records(experiment / name) if "run" in record]
        assert started["run_group"] == "cornn-synthetic"
        assert started["display_name"] == name
        assert started.get("job_type") == job_type
    logged, kept = {}, {}
    for record in records(experiment / "summary"):
        logged |= record.get("history", {}).get("item", {})
        kept |= record.get("summary", {}).get("update", {})
    summary = json.loads((experiment / "crossval.json").read_text())
    assert {"pooled/confusion_heatmap._type", "pooled/confusion_matrix_table._type", "folds._type"} <= set(logged)
    uar = summary["scores"]["uar"]
    assert kept["pooled/uar"] == pytest.approx(uar["pooled"])
    assert kept["pooled/uar_low"] == pytest.approx(uar["interval"]["low"])
    assert kept["folds/uar_mean"] == pytest.approx(uar["mean"])
    assert kept["recall/anger"] == pytest.approx(summary["recalls"]["anger"]["value"])


def test_finished_folds_are_not_run_again(copy, cache, capsys):
    before = contents(copy)
    (copy / "crossval.json").unlink()
    assert main(arguments(cache, copy.parent, "--trainer.logger", "false")) == 0
    assert "2 finished, 0 to resume, 0 to start" in capsys.readouterr().out
    assert contents(copy) == before
    assert json.loads((copy / "crossval.json").read_text())["scores"]["uar"]["mean"] > 0


def test_fits_of_others_in_its_folder_are_named_and_left_alone(copy, cache, capsys):
    foreign = copy / "fold0-seed1-2"  # as the best settings of a sweep leave it
    shutil.copytree(copy / "fold0-seed1", foreign)
    config = foreign / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.001", "lr: 0.25"))
    elsewhere = copy / "fold1-seed1-2"
    shutil.copytree(copy / "fold1-seed1", elsewhere)
    protocol = elsewhere / "protocol.json"
    protocol.write_text(protocol.read_text().replace('"corpus": "Synthetic"', '"corpus": "Other"'))
    before, result = contents(copy), (copy / "predictions.csv").read_bytes()
    assert main(arguments(cache, copy.parent, "--trainer.logger", "false")) == 0
    printed = capsys.readouterr().out
    assert "2 finished, 0 to resume, 0 to start" in printed
    assert "fold0-seed1-2 is not used: optimizer.lr: 0.25, now 0.001" in printed
    assert "fold1-seed1-2 is not used: corpus: Other, now Synthetic" in printed
    assert contents(copy) == before
    assert (copy / "predictions.csv").read_bytes() == result


def test_a_fit_of_its_settings_counts_and_one_of_others_before_it_does_not(copy, cache, capsys):
    shutil.copytree(copy / "fold0-seed1", copy / "fold0-seed1-2")  # a second one alike
    (copy / "crossval.yaml").unlink()
    config = copy / "fold1-seed1/config.yaml"
    config.write_text(config.read_text().replace("lr: 0.001", "lr: 0.25"))
    assert main(arguments(cache, copy.parent, "--trainer.logger", "false")) == 0
    printed = capsys.readouterr().out
    assert "1 finished, 0 to resume, 1 to start" in printed
    assert "fold1-seed1 is not used: optimizer.lr: 0.25, now 0.001" in printed
    assert rows(copy / "fold1-seed1-2/predictions.csv") == rows(copy / "fold1-seed1/predictions.csv")
    summary = json.loads((copy / "crossval.json").read_text())
    assert [run["run"] for run in summary["runs"]][1] == "fold1-seed1-2"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--data.sampling", "balanced"], "data.sampling: shuffle, now balanced"),
        (["--trainer.limit_test_batches", 1], "trainer.limit_test_batches: None, now 1"),
        (["--optimizer.lr", 0.5], "optimizer.lr: 0.001, now 0.5"),
        (["--trainer.max_epochs", 4], "trainer.max_epochs: 3, now 4"),
        (["--data.emotions", "[anger,neutral]"], "data.emotions: None, now"),
    ],
)
def test_folds_that_were_made_otherwise_are_refused(copy, cache, capsys, options, named):
    before = contents(copy)
    assert main(arguments(cache, copy.parent, *options)) == 2
    printed = capsys.readouterr().err
    assert "2 of 2 runs" in printed
    assert named in printed
    assert "--run.experiment" in printed
    assert contents(copy) == before


def test_folds_of_other_recordings_are_refused(copy, cache, capsys, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(Synthetic(cache_dir=cache).locate(), corpus)
    (corpus / "spk05_s1_anger_r1.wav").unlink()
    assert main(arguments(cache, copy.parent, "--data.root", corpus)) == 2
    assert "train: 1 files are no longer there, such as spk05_s1_anger_r1.wav" in capsys.readouterr().err


def test_a_fold_that_fails_is_named_and_the_others_count(copy, cache, capsys):
    half_done(copy / "fold1-seed1")
    last = copy / "fold1-seed1/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    options = arguments(cache, copy.parent, "--trainer.logger", "false")
    with pytest.raises(SystemExit) as stop:
        main(options)
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert f"fold 1 (spk02), seed 1: failed: {last} is not a checkpoint of ser, or is damaged" in printed.out
    assert "1 of 2 runs failed" in printed.err
    assert "is not a checkpoint of ser, or is damaged" in printed.err
    summary = json.loads((copy / "crossval.json").read_text())
    assert [fold["fold"] for fold in summary["folds"]] == [0]
    assert [(failure["fold"], failure["seed"]) for failure in summary["failed"]] == [(1, 1)]

    assert main([*options, "--folds", "1"]) == 2  # every fold that was asked for
    assert capsys.readouterr().err.count("is not a checkpoint of ser, or is damaged") == 1


def descendants(pid):
    """Return the processes below one, by /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_was_killed_goes_on_to_the_same_scores(experiment, copy, cache):
    shutil.rmtree(copy / "fold0-seed1")
    options = arguments(cache, copy.parent, "--trainer.logger", "false")
    process = subprocess.Popen([sys.executable, "-m", "ser", *options], stdout=subprocess.DEVNULL)
    last = copy / "fold0-seed1/checkpoints/last.ckpt"
    deadline = time.monotonic() + 150
    while not last.exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    fits = descendants(process.pid)
    assert fits
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{fit}").exists() for fit in fits):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (copy / "fold0-seed1/predictions.csv").exists()

    assert main(options) == 0
    assert sorted(path.name for path in copy.glob("fold*")) == ["fold0-seed1", "fold1-seed1"]
    for name in ("predictions.csv", "fold0-seed1/predictions.csv", "fold0-seed1/history.csv"):
        whole, killed = ((folder / name).read_text() for folder in (experiment, copy))
        if name.endswith("history.csv"):  # seconds differ
            whole, killed = ([line.split(",")[2:] for line in text.splitlines()] for text in (whole, killed))
        assert killed == whole


BAD_OPTIONS = {
    "unknown fold": (["--folds", "0,9"], "There is no fold '9'"),
    "no number": (["--folds", "first"], "There is no fold 'first'"),
    "misspelt": (["--fold", "0"], "Did you mean '--folds'?"),
    "no seeds": (["--seeds", 0], "seeds is 0"),
    "no jobs": (["--jobs", 0], "jobs is 0"),
    "many jobs": (["--jobs", "many"], "jobs: expected int"),
    "no test": (["--test_checkpoint", "none"], "tests every fold"),
    "one batch": (["--trainer.fast_dev_run", "true"], "fast_dev_run leaves no results"),
    "random seed": (["--seed_everything", "false"], "needs a number"),
    "no place": (["--run.root", "/proc/nowhere"], "Choose another place with --run.root"),
    "unknown monitor": (["--early_stopping.monitor", "val/uarr"], "which is not logged"),
    "an impossible fold": (["--data.emotions", "[anger,neutral]", "--data.protocol", "Tail20", "--folds", "1"], "fold"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused_in_one_message(cache, capsys, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(sys, "argv", ["ser"])
    assert main(arguments(cache, tmp_path / "runs", *options)) == 2
    printed = capsys.readouterr().err
    assert printed.count("ser: error: ") == 1
    assert message in printed
    assert not (tmp_path / "runs").exists()
