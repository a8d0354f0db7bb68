"""Fits side by side, with verbs that answer at once in place of fits."""

import os
import re
import sys
from pathlib import Path

import pytest

from ser.parallel import Machine, share_machine
from ser.runs.fits import Fit, run_side_by_side
from ser.runs.folder import RunFolder


def call(tmp_path, name, *arguments):
    return Fit(name, arguments, RunFolder(tmp_path, name), tmp_path / "logs" / f"{name}.log")


def run(calls, shares):
    """Run calls on this machine, and return how each ended, by name."""
    with Machine(shares) as machine:
        return {fit.name: ended for fit, ended in run_side_by_side(calls, machine, epochs=None)}


def children():
    """The processes that this one has started and that are still there."""
    return {
        child for thread in Path("/proc/self/task").iterdir() for child in (thread / "children").read_text().split()
    }


def test_one_that_fails_does_not_take_the_others_with_it(tmp_path):
    calls = [call(tmp_path, "bad", "fti"), call(tmp_path, "good", "--version"), call(tmp_path, "help", "--help")]
    ended = run(calls, [{}, {}])
    assert ended["good"].failure is None
    assert ended["help"].failure is None
    assert ended["bad"].bad_input
    assert ended["bad"].failure.startswith("'fti' is not a verb. Did you mean fit?")
    assert "ser --help\nusage: ser VERB" in calls[2].log.read_text()


def test_an_earlier_output_stays_in_the_log_and_is_not_taken_for_this_one(tmp_path):
    once = call(tmp_path, "bad", "fti")
    once.log.parent.mkdir()
    once.log.write_text("ser: error: of yesterday\n")
    (ended,) = run([once], [{}]).values()
    assert "of yesterday" not in ended.failure
    assert re.match(r"ser: error: of yesterday\n.*: ser fti\nser: error: 'fti'", once.log.read_text())


def test_what_is_raised_is_named_and_what_was_killed_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    killed = {"PYTHONPATH": str(tmp_path)}
    (ended,) = run([call(tmp_path, "killed", "--version")], [killed]).values()
    assert ended.failure == "it was ended by SIGKILL, probably because memory ran out"
    assert not ended.bad_input

    (tmp_path / "sitecustomize.py").unlink()
    (tmp_path / "torch.py").write_text("raise RuntimeError('no torch today')\n")
    (ended,) = run([call(tmp_path, "broken", "fit", "--help")], [killed]).values()
    assert ended.failure == "RuntimeError: no torch today"
    assert not ended.bad_input


def test_names_are_shown_as_they_are_in_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rich._console", None)  # Rich's own, which an earlier test has made where there is no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    name = "fold 0 ([/01], [x])"
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(1)\n")  # long enough to be shown
    slow = {"PYTHONPATH": str(tmp_path)}
    (ended,) = run([call(tmp_path, name, "--version")], [slow]).values()
    assert ended.failure is None
    assert name in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_leaving_early_ends_those_that_run(tmp_path):
    before = children()
    calls = [call(tmp_path, "quick", "--version"), call(tmp_path, "slow", "fit", "--help")]
    with Machine([{}, {}]) as machine:
        ended = run_side_by_side(calls, machine, epochs=None)
        assert next(ended)[0].name == "quick"
        assert len(children() - before) == 1
        ended.close()
        assert not children() - before


def test_cores_and_gpus_are_shared(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert share_machine(2, []) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert share_machine(3, ["0"]) == [{"OMP_NUM_THREADS": "2"}] * 3  # one GPU between them
    assert share_machine(99, []) == [{"OMP_NUM_THREADS": "1"}] * 99
    assert [share["CUDA_VISIBLE_DEVICES"] for share in share_machine(3, ["4", "6"])] == ["4", "6", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert share_machine(2, []) == [{"OMP_NUM_THREADS": "3"}] * 2  # what the user has set
