"""A cross-validation, a sweep and a build of features on a Dask cluster: a real scheduler and two real workers."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from ser.cli import main
from ser.corpora import Synthetic
from ser.errors import UserError
from ser.parallel import connect

distributed = pytest.importorskip("distributed")
CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")
SETTINGS = [
    "--config",
    CONFIG,
    "--model.net.lstm_hidden",
    "8",
    "--model.net.ffn_factor",
    "1",
    "--data.batch_size",
    "12",
]
SETTINGS += ["--trainer.accelerator", "cpu", "--trainer.logger", "false"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


def dask(role, folder, *options):
    """Start a scheduler or a worker on the loopback, which leads a group of processes."""
    command = [sys.executable, "-m", "dask", role, "--scheduler-file", str(folder / "scheduler.json")]
    with (folder / f"{role}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--no-dashboard", *options], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The scheduler's file of a cluster with two workers, each of which runs one task at a time on one core."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    processes = [dask("scheduler", folder, "--host", "127.0.0.1", "--port", "0")]
    while not file.exists():
        assert processes[0].poll() is None, (folder / "scheduler.log").read_text()
        time.sleep(0.1)
    cores = sorted(os.sched_getaffinity(0))
    for number in range(2):
        worker = dask("worker", folder, "--nthreads", "1", "--local-directory", str(folder / f"worker{number}"))
        os.sched_setaffinity(worker.pid, {cores[number % len(cores)]})
        processes.append(worker)
    yield str(file)
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def without_features(cache, tmp_path_factory):
    """A cache that holds the embedded corpus and no features."""
    folder = tmp_path_factory.mktemp("cache") / "shared"
    shutil.copytree(cache, folder, ignore=shutil.ignore_patterns("features"))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ser"])
    return tmp_path


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def assert_same_scores(one, other):
    """Compare the tables of two runs, but for the time that they took and the last digits."""
    assert len(one) == len(other) > 0
    for ours, theirs in zip(one, other, strict=True):
        for name in ours.keys() - {"seconds", "fold", "seed"}:
            try:
                assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-4)
            except ValueError:
                assert ours[name] == theirs[name]


def fit_here(cache, *options):
    """Run a fit in this process, and return its run folder."""
    before = set(Path("here").glob("*/*"))
    assert main(["fit", *SETTINGS, "--data.cache_dir", str(cache), "--run.root", "here", *map(str, options)]) == 0
    (run,) = set(Path("here").glob("*/*")) - before
    return run


def processes_with(argument):
    """Return the processes that were called with an argument."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument in command.read_text(errors="replace").split("\0"):
                found.append(int(command.parent.name))
        except OSError:  # has ended meanwhile
            continue
    return found


def test_features_are_computed_on_the_workers(cluster, cache, without_features):
    with connect(cluster) as connected:
        built, known = (Synthetic(cache_dir=folder) for folder in (without_features, cache))
        built.cluster = connected
        built.prepare_data()
    with distributed.Client(scheduler_file=cluster, set_as_default=False) as client:
        assert any(client.run(lambda: "ser.features.store" in sys.modules).values())
    known.prepare_data()
    for ours, theirs in zip(built.statistics(), known.statistics(), strict=True):
        assert ours.equal(theirs)


def test_a_sweep_gives_the_scores_of_fits_here(cluster, cache, here):
    sweep = {
        "command": ["ser", "fit", *SETTINGS, "--trainer.max_epochs", 2, "${args}"],
        "method": "grid",
        "metric": {"name": "val/uar", "goal": "maximize"},
        "parameters": {"optimizer.lr": {"values": [0.001, 0.01]}},
    }
    (here / "small.yaml").write_text(yaml.safe_dump(sweep))
    shared = ["--data.cache_dir", str(cache)]
    assert main(["sweep", "small.yaml", "--count", "2", "--cluster", cluster, "--", *shared]) == 0
    trials = optuna.load_study(study_name="sweep-small", storage="sqlite:///runs/sweep-small/study.db").trials
    assert sorted(trial.params["optimizer.lr"] for trial in trials) == [0.001, 0.01]
    lr = trials[0].params["optimizer.lr"]
    alone = fit_here(cache, "--optimizer.lr", lr, "--trainer.max_epochs", 2, "--test_checkpoint", "none")
    assert_same_scores(rows(here / "runs/sweep-small/trial0/history.csv"), rows(alone / "history.csv"))
    assert list(trials[0].intermediate_values) == [1, 2]


def test_a_cross_validation_goes_on_where_its_worker_was_killed(cluster, cache, here):
    options = [*SETTINGS, "--trainer.max_epochs", "3", "--data.cache_dir", str(cache), "--run.root", str(here / "runs")]
    command = [sys.executable, "-m", "ser", "crossval", *options, "--folds", "0,1", "--cluster", cluster]
    with (here / "printed").open("wb") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=printed)
    run = here / "runs/cornn-synthetic/fold0-seed1"
    deadline = time.monotonic() + 200
    while not (run / "checkpoints/last.ckpt").exists():
        assert process.poll() is None, (here / "printed").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (fit,) = processes_with("fold0-seed1")
    worker = int(Path(f"/proc/{fit}/stat").read_text().rpartition(")")[2].split()[1])
    os.killpg(os.getpgid(worker), signal.SIGKILL)
    while Path(f"/proc/{fit}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (run / "predictions.csv").exists()

    assert process.wait(250) == 0, (here / "printed").read_text()
    assert [path.name for path in sorted(run.parent.glob("fold*"))] == ["fold0-seed1", "fold1-seed1"]
    assert (here / "runs/cornn-synthetic/logs/fold0-seed1.log").read_text().count("--ckpt_path last") == 1
    for fold in (0, 1):
        alone = fit_here(cache, "--data.fold", fold, "--trainer.max_epochs", 3)
        for table in ("predictions.csv", "history.csv"):
            assert_same_scores(rows(run.with_name(f"fold{fold}-seed1") / table), rows(alone / table))


def test_a_folder_that_is_not_shared_is_named(cluster, tmp_path, monkeypatch):
    with connect(cluster) as connected:
        connected.check({"--run.root": tmp_path}, {"--data.root": tmp_path})
        with pytest.raises(UserError, match=r"nowhere of .* is not on the worker on .*: give a --data\.root on a disk"):
            connected.check({"--run.root": tmp_path}, {"--data.root": tmp_path / "nowhere"})
        monkeypatch.setattr("ser.parallel.__version__", "0")
        with pytest.raises(UserError, match=r"has ser .*, this machine 0: install the same"):
            connected.check({}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere.json", __file__])
def test_a_cluster_that_does_not_answer_gets_one_message(address, monkeypatch):
    monkeypatch.setattr("ser.parallel.CONNECT_WITHIN_S", 0.5)
    expected = (
        "No Dask scheduler answers at tcp" if "tcp" in address else "it must be an address, such as tcp://HOST:8786"
    )
    with pytest.raises(UserError, match=expected), connect(address):
        pass
