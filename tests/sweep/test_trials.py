"""Trials of a study: which are run, stopped, repeated, given up.

The fits here are processes that take a setting and leave the files that a fit leaves, since a real one takes ten
seconds to start; test_sweep.py runs real ones.
"""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from ser.cli import main
from ser.errors import UserError
from ser.parallel import Machine
from ser.sweep import trials
from ser.sweep.space import Sweep, read_sweep
from ser.sweep.study import open_storage, open_study, storage_url
from ser.sweep.trials import Plan, Trials, ended_and_running

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
CONFIG = {"trainer": {"max_epochs": 27}, "data": {"init_args": {"fold": 0}}}

# Its validation UAR is the learning rate, and half of it in the first epoch; a fold is worth 0.1.
FIT = """
import argparse, json, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--optimizer.lr", dest="lr", type=float)
for name in ("run.root", "run.experiment", "run.name", "test_checkpoint", "does"):
    parser.add_argument("--" + name, dest=name)
parser.add_argument("--data.fold", dest="fold", type=int, default=0)
options = vars(parser.parse_known_args(sys.argv[4:])[0])
assert options["test_checkpoint"] == "none"
run = pathlib.Path(options["run.root"], options["run.experiment"], options["run.name"])
run.mkdir()
(run / "pid").write_text(str(os.getpid()))
if options["does"] == "crash" and options["lr"] < 0.5:
    sys.exit("Traceback (most recent call last):\\n  ...\\nRuntimeError: mat1 and mat2 cannot be multiplied")
if options["does"] == "refuse" and options["lr"] < 0.5:
    print("ser: error: There is no folder x; give another.")
    sys.exit(2)
def stop(*_):
    (run / "stopped").touch()
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
uar = options["lr"] + 0.1 * options["fold"]
scores = [uar / 2, uar]
for epoch in range(1, len(scores) + 1):
    rows = "".join(f"{number},{score}\\n" for number, score in enumerate(scores[:epoch]))
    (run / "new.csv").write_text("epoch,val/uar\\n" + rows)
    (run / "new.csv").replace(run / "history.csv")
    time.sleep(0.1)
parent = int(os.environ["SER_PARENT"])  # with which a real one ends
while os.getppid() == parent and (options["does"] == "hang" or (options["does"] == "linger" and options["lr"] < 0.5)):
    time.sleep(0.1)
(run / "metrics.json").write_text(json.dumps({"val": {"uar": uar}}))
"""


@pytest.fixture(autouse=True)
def fits(tmp_path, monkeypatch):
    script = tmp_path / "fit"
    script.write_text(f"#!{sys.executable}\n{FIT}")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(trials, "POLL_S", 0.05)


@pytest.fixture
def start(tmp_path):
    """Return a function that opens the study and makes what runs its trials."""

    def make(*options, folds=None, jobs=1, url=None, early_terminate=None, method="grid", values=(0.6, 0.9, 0.3)):
        file = tmp_path / "tiny.yaml"
        content = {
            "command": ["ser", "fit", *options, "${args}"],
            "method": method,
            "metric": {"name": "val/uar", "goal": "maximize"},
            "parameters": {"optimizer.lr": {"values": list(values)}},
        }
        file.write_text(json.dumps(content | ({"early_terminate": early_terminate} if early_terminate else {})))
        sweep = read_sweep(file)
        experiment = tmp_path / "runs/tiny"
        experiment.mkdir(parents=True, exist_ok=True)
        storage = open_storage(storage_url(url, experiment))
        study = open_study(storage, tmp_path.name, sweep, CONFIG, folds)
        return Tiny(study, sweep, Plan(sweep.options, experiment, folds), jobs)

    return make


@dataclass
class Tiny:
    """A study whose trials run on this machine."""

    study: optuna.Study
    sweep: Sweep
    plan: Plan
    jobs: int

    def run(self, count, show):
        with Machine([{}] * self.jobs) as machine:
            Trials(self.study, self.sweep, self.plan, machine).run(count, show)


def run_of(tmp_path, name):
    return tmp_path / "runs/tiny" / name


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if sys.platform == "linux" else True


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_grid_takes_every_setting_once_and_the_best_is_known(start, tmp_path):
    running = start()
    shown = []
    running.run(3, lambda: shown.append(ended_and_running(running.study)))
    assert sorted(trial.params["optimizer.lr"] for trial in running.study.trials) == [0.3, 0.6, 0.9]
    assert {trial.state for trial in running.study.trials} == {TrialState.COMPLETE}
    best = running.study.best_trial
    assert best.value == best.params["optimizer.lr"] == 0.9
    assert best.intermediate_values == {1: 0.45, 2: 0.9}
    assert best.user_attrs["runs"]["folders"] == [str(run_of(tmp_path, f"trial{best.number}"))]
    assert max(under_way for _, under_way in shown) == 1
    running.run(3, lambda: None)  # enough have ended
    assert len(running.study.trials) == 3


def begun(tmp_path):
    """The runs whose fits have reported epochs."""
    return [history.parent for history in run_of(tmp_path, "").glob("trial*/history.csv")]


def test_as_many_run_at_once_as_there_are_jobs(start, tmp_path):
    running = start("--does", "hang", jobs=2)

    def interrupt():
        if len(begun(tmp_path)) == 2:
            time.sleep(0.5)  # in which a third would begin
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.run(3, interrupt)
    assert len(begun(tmp_path)) == 2
    assert [trial.state for trial in running.study.trials] == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2


def test_the_score_of_several_folds_is_their_mean(start, tmp_path):
    running = start(folds=[1, 3], values=(0.2,))
    running.run(1, lambda: None)
    (trial,) = running.study.trials
    assert trial.value == pytest.approx((0.3 + 0.5) / 2)
    assert trial.user_attrs["uar"] == pytest.approx([0.3, 0.5])
    assert trial.intermediate_values == pytest.approx({1: 0.15, 2: 0.3})  # of the first fold
    assert {path.name for path in run_of(tmp_path, "").glob("trial*")} == {"trial0-fold1", "trial0-fold3"}


def test_a_hopeless_trial_is_stopped_before_its_end(start, tmp_path):
    once = {"type": "hyperband", "max_iter": 2, "s": 1}  # one bracket, which looks at the first epoch
    running = start("--does", "linger", early_terminate=once, values=(0.9, 0.2, 0.1))
    running.study.sampler = optuna.samplers.RandomSampler()
    for value in (0.9, 0.2, 0.1):
        running.study.enqueue_trial({"optimizer.lr": value})
    running.run(3, lambda: None)
    assert [trial.state for trial in running.study.trials] == [TrialState.COMPLETE] + [TrialState.PRUNED] * 2
    assert [trial.intermediate_values for trial in running.study.trials[1:]] == [{1: 0.1}, {1: 0.05}]
    for run in (run_of(tmp_path, "trial1"), run_of(tmp_path, "trial2")):
        assert (run / "stopped").exists()  # it could end in order
        assert not alive(int((run / "pid").read_text()))


def test_a_crash_is_recorded_and_does_not_stop_the_study(start):
    running = start("--does", "crash")
    running.run(3, lambda: None)
    failed = [trial for trial in running.study.trials if trial.state == TrialState.FAIL]
    assert [trial.params["optimizer.lr"] for trial in failed] == [0.3]
    assert failed[0].user_attrs["error"] == "RuntimeError: mat1 and mat2 cannot be multiplied"
    assert running.study.best_value == 0.9


def test_a_fit_that_was_killed_says_so(start, tmp_path):
    running = start("--does", "hang", values=(0.5,))

    def kill():
        if begun(tmp_path) and alive(int((run_of(tmp_path, "trial0") / "pid").read_text())):
            os.kill(int((run_of(tmp_path, "trial0") / "pid").read_text()), signal.SIGKILL)

    running.run(1, kill)
    assert running.study.trials[0].user_attrs["error"] == "it was ended by SIGKILL, probably because memory ran out"


def test_a_mistake_in_every_trial_stops_the_study(start):
    running = start("--does", "refuse", values=(0.1, 0.2, 0.3, 0.4))
    with pytest.raises(UserError, match=r"^The first 3 trials failed: There is no folder x; give another\.$"):
        running.run(4, lambda: None)
    assert [trial.state for trial in running.study.trials] == [TrialState.FAIL] * 3


def test_a_mistake_in_some_trials_does_not(start):
    running = start("--does", "refuse", values=(0.1, 0.2, 0.9, 0.3))
    running.study.sampler = optuna.samplers.RandomSampler()
    for value in (0.1, 0.9, 0.2, 0.3):
        running.study.enqueue_trial({"optimizer.lr": value})
    running.run(4, lambda: None)
    assert [trial.state for trial in running.study.trials].count(TrialState.FAIL) == 3


def test_what_is_interrupted_is_requeued(start, tmp_path):
    running = start("--does", "hang", values=(0.5,))

    def interrupt():
        if begun(tmp_path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.run(1, interrupt)
    assert (run_of(tmp_path, "trial0") / "stopped").exists()
    assert [trial.state for trial in running.study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert ended_and_running(running.study) == (0, 0)

    start(values=(0.5,)).run(1, lambda: None)
    assert [trial.state for trial in running.study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert running.study.trials[1].params == {"optimizer.lr": 0.5}
    assert ended_and_running(running.study) == (1, 0)


def test_a_run_folder_that_is_taken_is_left_alone(start, tmp_path):
    taken = run_of(tmp_path, "trial0")
    taken.mkdir(parents=True)
    (taken / "history.csv").write_text("epoch,val/uar\n0,1.0\n")
    running = start(values=(0.5,))
    running.run(1, lambda: None)
    assert running.study.best_value == 0.5
    assert running.study.best_trial.intermediate_values == {1: 0.25, 2: 0.5}


def test_a_trial_whose_processes_die_is_given_up(start):
    running = start(method="random", values=(0.5,))
    for number in range(trials.RETRIES + 1):
        assert number == len(running.study.get_trials(states=[TrialState.FAIL]))
        running.study.tell(running.study.ask(running.sweep.space), state=TrialState.FAIL)
        trials.requeue(running.study, running.study.trials[number])
    assert [trial.state for trial in running.study.trials] == [TrialState.FAIL] * (trials.RETRIES + 1)
    assert ended_and_running(running.study) == (1, 0)


@pytest.fixture(scope="module")
def postgresql():
    """Return the address of a database on a PostgreSQL that runs for these tests."""
    known = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]  # as Debian has it
    binaries = next((Path(initdb).resolve().parent for initdb in known if initdb), None)
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: sweeps are not tested on it")
    folder = Path(tempfile.mkdtemp(prefix="ser-postgresql-"))
    root = os.geteuid() == 0
    if root:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
    user = ["runuser", "-u", "postgres", "--"] if root else []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def control(program, *options):
        command = [*user, binaries / program, "-D", folder / "data", *options]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

    try:
        control("initdb", "--username", "ser", "--auth", "trust", "--no-sync")
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        control("pg_ctl", "--wait", "--log", folder / "log", "-o", settings, "start")
        try:
            yield f"postgresql+psycopg://ser@127.0.0.1:{port}/postgres"
        finally:
            control("pg_ctl", "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request):
    return request.getfixturevalue("postgresql") if request.param == "postgresql" else None


def in_processes(number, task):
    processes = [multiprocessing.get_context("fork").Process(target=task) for _ in range(number)]
    for process in processes:
        process.start()
    return processes


def test_processes_share_a_study(start, address):
    values = [number / 10 for number in range(1, 7)]
    processes = in_processes(3, lambda: start(url=address, values=values).run(6, lambda: None))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    study = start(url=address, values=values).study
    completed = study.get_trials(states=[TrialState.COMPLETE])
    assert sorted(trial.params["optimizer.lr"] for trial in completed) == values
    assert len({trial.user_attrs["runs"]["process"] for trial in completed}) > 1
    assert ended_and_running(study) == (6, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_what_a_killed_process_ran_is_repeated(start, address, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "HEARTBEAT_S", 1)
    monkeypatch.setattr(trials, "STALE_S", 2)
    (process,) = in_processes(1, lambda: start("--does", "hang", url=address, values=(0.7,)).run(1, lambda: None))
    pid = run_of(tmp_path, "trial0") / "pid"
    wait_for(lambda: (run_of(tmp_path, "trial0") / "history.csv").exists())
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    wait_for(lambda: not alive(int(pid.read_text())))  # nobody follows it any more

    running = start(url=address, values=(0.7,))
    before = time.monotonic()
    running.run(1, lambda: None)
    assert time.monotonic() - before > trials.HEARTBEAT_S  # it could have been alive
    assert [trial.state for trial in running.study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert running.study.trials[1].params == {"optimizer.lr": 0.7}


def test_trials_that_cannot_be_compared_are_refused(start):
    start(folds=[0, 1])
    with pytest.raises(UserError, match=r"(?s)folds: \[0, 1\], now \[2\].*--name"):
        start(folds=[2])
    with pytest.raises(UserError, match=r"parameters\.optimizer\.lr: .*0\.9.*, now"):
        start(folds=[0, 1], values=(0.5,))


POPEN = '{"class_path": "subprocess.Popen", "init_args": {"args": "touch PWNED", "shell": true}}'


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.WAITING])
@pytest.mark.parametrize("name", ["model.net", "optimizer.lr"])
def test_a_stored_trial_cannot_say_what_runs(start, tmp_path, name, state):
    running = start(values=(0.5, 0.7))
    choices = CategoricalDistribution([POPEN])
    score = 0.9 if state == TrialState.COMPLETE else None
    running.study.add_trial(create_trial(state=state, value=score, params={name: POPEN}, distributions={name: choices}))

    def use():  # it came after the study was opened
        running.run(3, lambda: None)
        running.sweep.overlay(running.study.best_trial.params)

    with pytest.raises(UserError, match="The study holds a trial"):
        use()
    with pytest.raises(UserError, match=rf"The study holds a trial with {name} = '.*subprocess.*--name"):
        start(values=(0.5, 0.7))
    for made in tmp_path.rglob("trial*.log"):
        assert "Popen" not in made.read_text()
    assert not list(tmp_path.rglob("PWNED"))


def test_a_queued_trial_cannot_leave_the_bounds(start, tmp_path):
    running = start(values=(0.5, 0.7), method="random")
    running.study.enqueue_trial({"optimizer.lr": 0.6})
    with pytest.raises(UserError, match="The study holds a trial"):
        running.run(1, lambda: None)
    assert not run_of(tmp_path, "trial0").exists()


def test_a_hopeless_trial_is_pruned_even_if_it_has_ended(start, monkeypatch):
    monkeypatch.setattr(trials, "POLL_S", 1.0)  # every fit ends between two looks
    once = {"type": "hyperband", "max_iter": 2, "s": 1}
    running = start(early_terminate=once, values=(0.9, 0.2))
    running.study.sampler = optuna.samplers.RandomSampler()
    for value in (0.9, 0.2):
        running.study.enqueue_trial({"optimizer.lr": value})
    running.run(2, lambda: None)
    assert [trial.state for trial in running.study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]


def test_the_seed_of_a_sweep_repeats_its_trials(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ser"])
    config = Path(__file__).parents[2] / "configs/cornn.yaml"
    content = {
        "command": ["ser", "fit", "--config", str(config), "${args}"],
        "method": "bayes",
        "metric": {"name": "val/uar", "goal": "maximize"},
        "parameters": {"optimizer.lr": {"min": 0.1, "max": 0.9}},
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(content))

    def sweep(root, seed, count):
        options = ["--count", count, "--seed", seed, "--root", tmp_path / root, "--", "--data.cache_dir", cache]
        assert main(["sweep", *map(str, [tmp_path / "tiny.yaml", *options]), "--trainer.accelerator", "cpu"]) == 0
        storage = f"sqlite:///{tmp_path / root / 'sweep-tiny/study.db'}"
        return [trial.params for trial in optuna.load_study(study_name="sweep-tiny", storage=storage).trials]

    once = sweep("a", 5, 3)
    assert sweep("b", 5, 2) == once[:2]
    assert sweep("b", 5, 3) == once  # goes on with what comes next
    assert sweep("c", 6, 1) != once[:1]
    assert main(["sweep", str(tmp_path / "tiny.yaml"), "--count", "1", "--seed", "-1"]) == 2
