"""``ser sweep`` as a user calls it, with real fits of a small CoRNN on the embedded corpus."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
import pytest
import sqlalchemy.exc
import yaml
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from ser.cli import main
from ser.corpora import Synthetic
from ser.data import LogMel, Preprocess

CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")
SWEEP = {
    "command": ["ser", "fit", "--config", CONFIG, "--model.net.ffn_factor", 1, "--test_checkpoint", "none", "${args}"],
    "method": "bayes",
    "metric": {"name": "val/uar", "goal": "maximize"},
    "parameters": {
        "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1e-2},
        "model.net.lstm_hidden": {"values": [8, 16]},
        "model.net.dropout": {"min": 0.0, "max": 0.3},
        "data.batch_size": {"value": 48},
    },
}
FIT = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]


def write_sweep(folder, **changes):
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(SWEEP | changes))
    return file


@pytest.fixture(scope="module")
def poisoned(cache, tmp_path_factory):
    """A cache in which the features of the test speaker are not numbers."""
    folder = tmp_path_factory.mktemp("poisoned") / "cache"
    shutil.copytree(cache, folder)
    data = Synthetic(preprocess=Preprocess(pre_emphasis=0.97), features=LogMel(deltas=2), cache_dir=folder)
    data.prepare_data()
    tested = data.test_dataloader().dataset
    numbers = tested.items.rows()
    features = tested.rows.read(numbers)
    for file in filter(Path.is_file, folder.glob("features/**/*")):
        content = file.read_bytes()
        for row in features:
            content = content.replace(row.tobytes(), np.full_like(row, np.nan).tobytes())
        file.write_bytes(content)
    assert np.isnan(tested.rows.read(numbers)).all()
    return folder


@contextmanager
def sweeping(folder, options):
    """Run ``ser sweep`` in a process of its own, which takes others for dead after some seconds of silence."""
    script = (
        "import sys\nfrom ser import cli\nfrom ser.sweep import trials\n"
        "trials.POLL_S, trials.HEARTBEAT_S, trials.STALE_S = 0.1, 1, 5\n"
        "sys.exit(cli.main(['sweep', *sys.argv[1:]]))"
    )
    with (folder / "sweep.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-c", script, *options], cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def trials_of(folder):
    storage = folder / "runs/sweep-small/study.db"
    if not storage.exists():
        return []
    try:
        return optuna.load_study(study_name="sweep-small", storage=f"sqlite:///{storage}").trials
    except (KeyError, sqlalchemy.exc.SQLAlchemyError):  # its tables are being created
        return []


@pytest.fixture(scope="module")
def swept(poisoned, tmp_path_factory):
    """The folder where two processes ran one study; one was killed in its first trial, whose number comes with it."""
    folder = tmp_path_factory.mktemp("swept")
    options = [str(write_sweep(folder)), "--count", "2", "--", *FIT, "--data.cache_dir", str(poisoned)]
    with sweeping(folder, options) as killed, sweeping(folder, options) as other:
        lost: list[int] = []
        while not lost:
            assert killed.poll() is None, (folder / "sweep.log").read_text()
            time.sleep(0.1)
            begun = [trial for trial in trials_of(folder) if (run_of(folder, trial) / "protocol.json").exists()]
            lost = [trial.number for trial in begun if trial.user_attrs["runs"]["process"] == killed.pid]
        killed.kill()
        assert other.wait(250) == 0, (folder / "sweep.log").read_text()
    return folder, lost[0]


def run_of(folder, trial):
    return folder / trial.user_attrs.get("runs", {"folders": ["none"]})["folders"][0]


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_takes_over_from_the_other(swept):
    folder, lost = swept
    trials = trials_of(folder)
    assert trials[lost].state == TrialState.FAIL
    (repeated,) = [trial for trial in trials if lost in RetryHeartbeatStaleTrialCallback.retry_history(trial)]
    assert repeated.params == trials[lost].params
    others = [trial for trial in trials if trial.number != lost]
    assert [trial.state for trial in others] == [TrialState.COMPLETE] * 2
    for trial in others:
        history = read_history(run_of(folder, trial))
        assert trial.value == pytest.approx(max(history))
        assert list(trial.intermediate_values) == [1, 2]


def read_history(run):
    with (run / "history.csv").open() as file:
        return [float(row["val/uar"]) for row in csv.DictReader(file)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_fit_of_a_killed_sweep_ends_with_it(swept, poisoned):
    folder, lost = swept
    assert not (folder / f"runs/sweep-small/trial{lost}/metrics.json").exists()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        command = read_or_nothing(process).split("\0")
        assert not {f"trial{lost}", str(poisoned)} <= set(command)


def read_or_nothing(file):
    try:
        return file.read_text(errors="replace")
    except OSError:  # has ended meanwhile
        return ""


@pytest.mark.slow
def test_no_trial_looks_at_the_test_speaker(swept, poisoned, cache, monkeypatch):
    folder, _ = swept
    runs = list(folder.glob("runs/sweep-small/trial*/"))
    assert len(runs) == 3
    for run in runs:
        assert not (run / "predictions.csv").exists()
        assert not (run / "metrics.json").exists() or "test" not in json.loads((run / "metrics.json").read_text())

    # The trials ran while the features of the test speaker were not numbers. With sound ones, their history is the
    # same; and who looks at the test speaker sees them.
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    best = max((t for t in trials_of(folder) if t.state == TrialState.COMPLETE), key=lambda trial: trial.value)
    trial = run_of(folder, best)
    for name, features in (("sound", cache), ("poisoned", poisoned)):
        (command,) = re.findall("(?m)^Best settings: ser (.*)", (folder / "sweep.log").read_text())
        assert main([*shlex.split(command), "--data.cache_dir", str(features), "--run.name", name]) == 0
        run = folder / f"runs/cornn-synthetic/{name}"
        assert read_history(run) == pytest.approx(read_history(trial))
        assert ("nan" in (run / "predictions.csv").read_text()) == (name == "poisoned")
        ours, theirs = (yaml.safe_load((path / "config.yaml").read_text()) for path in (run, trial))
        assert (ours["model"], ours["optimizer"]) == (theirs["model"], theirs["optimizer"])


def test_a_study_that_has_its_trials_is_shown_again(swept, poisoned, capsys, monkeypatch):
    folder, _ = swept
    monkeypatch.chdir(folder)
    for made in ("best.yaml", "sweep.html"):
        (folder / "runs/sweep-small" / made).unlink()
    arguments = ["small.yaml", "--count", "2", "--", *FIT, "--data.cache_dir", str(poisoned)]
    assert main(["sweep", *arguments]) == 0
    printed = capsys.readouterr().out
    best = max((t for t in trials_of(folder) if t.state == TrialState.COMPLETE), key=lambda trial: trial.value)
    assert f"Trial {best.number}: validation UAR {best.value:.1%}." in printed
    assert "2 of 2 trials: 2 complete, 1 requeued" in printed
    assert "say nothing about real voices" in printed
    assert "optuna-dashboard sqlite:///runs/sweep-small/study.db" in printed

    overlay = yaml.safe_load((folder / "runs/sweep-small/best.yaml").read_text())
    assert overlay["model"]["net"] == {
        name.rpartition(".")[2]: best.params[name] for name in best.params if "net" in name
    }
    assert overlay["optimizer"]["lr"] == best.params["optimizer.lr"]
    assert overlay["data"] == {"batch_size": 48}

    page = (folder / "runs/sweep-small/sweep.html").read_text()
    for said in (
        "sweep-small",
        f"Trial {best.number}: ",
        "History",
        "Epochs",
        "Importance",
        "No test score was computed",
    ):
        assert said in page
    assert "plotly.js v" in page
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=.https?:", page)


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Return a function that returns what ``ser sweep`` says of bad input."""
    monkeypatch.chdir(tmp_path)

    def call(*options):
        assert main(["sweep", *map(str, options)]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("ser: error: ")
        assert "Traceback" not in said.err
        assert not Path("runs").exists() or not list(Path("runs").glob("*/trial*"))
        return said.err

    return call


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["none.yaml", "--count", 1], "Could not read the sweep file none.yaml: No such file"),
        (["small.yaml", "--count", 0], "--count is 0; it must be at least 1"),
        (["small.yaml", "--count", 1, "--jobs", 0], "--jobs is 0; it must be at least 1"),
        (["small.yaml", "--count", 1, "--cluster", "none.json"], "--cluster is none.json; it must be an address"),
        (["small.yaml"], "the following arguments are required: --count"),
        (["small.yaml", "--count", "many"], "invalid int value: 'many'"),
        (["small.yaml", "--count", 1, "--foldz", "all"], "There is no option '--foldz'. Did you mean '--folds'?"),
        (["small.yaml", "--count", 1, "--folds", "0,9"], "There is no fold .?9.?: the protocol makes 8 folds"),
        (["small.yaml", "--count", 1, "--", "--data.rot", "x"], "no option 'rot'. Did you mean 'root'?"),
        (["small.yaml", "--count", 1, "--", "--optimizer.lr=0.1"], "--optimizer.lr cannot be given to the trials"),
        (
            ["small.yaml", "--count", 1, "--name", "x" * 300],
            "has 300 bytes, a name may have 255: give a shorter --name",
        ),
        (["small.yaml", "--count", 1, "--", "--test_checkpoint", "best"], "--test_checkpoint cannot be given to the"),
        (["small.yaml", "--count", 1, "--folds", "0", "--", "--data.fold", "1"], "--data.fold cannot be given to the"),
        (["small.yaml", "--count", 1, "--", "--data", "EmoDB"], "EMO-DB needs the folder of its recordings"),
        (["small.yaml", "--count", 1, "--storage", "somewhere"], "--storage is 'somewhere'; it must be an address"),
        (["small.yaml", "--count", 1, "--storage", "sqlite:///no/such/file.db"], "unable to open database file"),
        (
            ["small.yaml", "--count", 1, "--storage", "postgresql+psycopg://me:secret@127.0.0.1:9/db"],
            r"Could not open the storage postgresql\+psycopg://me:\*\*\*@127.0.0.1:9/db: .*refused",
        ),
        (["small.yaml", "--count", 1, "--storage", "oracle://me@127.0.0.1/db"], "There is no driver for oracle://me"),
    ],
)
def test_bad_input_gets_one_message(refused, options, said, cache, tmp_path):
    write_sweep(tmp_path)
    divide = options.index("--") if "--" in options else len(options)
    options = [*options[:divide], "--", "--data.cache_dir", str(cache), *options[divide + 1 :]]
    assert re.search(said, refused(*options))


def test_a_command_that_sets_what_is_searched_is_refused(refused, tmp_path):
    """It would win over the best settings, which are a config."""
    write_sweep(tmp_path, command=["ser", "fit", "--config", CONFIG, "--optimizer.lr", 1, "${args}"])
    assert "--optimizer.lr cannot be given to the trials: the sweep sets it" in refused("small.yaml", "--count", 1)


def test_an_unknown_parameter_is_refused_before_any_trial(refused, tmp_path):
    write_sweep(tmp_path, parameters={"model.net.lstm_hiden": {"values": [8]}, "optimizer.lr": {"values": [1, 2]}})
    assert "no option 'lstm_hiden'. Did you mean 'lstm_hidden'?" in refused("small.yaml", "--count", 1)
