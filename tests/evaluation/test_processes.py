"""Fits side by side, with verbs that answer at once in place of fits."""

import os
import sys
from pathlib import Path

import pytest

from ser.evaluation.processes import Fit, run_side_by_side, share_machine
from ser.runs.folder import RunFolder


def call(tmp_path, name, *arguments):
    return Fit(name, arguments, RunFolder(tmp_path, name), tmp_path / "logs" / f"{name}.log")


def children():
    """The processes that this one has started and that are still there."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_one_that_fails_does_not_take_the_others_with_it(tmp_path):
    calls = [call(tmp_path, "bad", "fti"), call(tmp_path, "good", "--version"), call(tmp_path, "help", "--help")]
    ended = {one.fit.name: one for one in run_side_by_side(calls, [{}, {}], epochs=None)}
    assert ended["good"].failure is None
    assert ended["help"].failure is None
    assert ended["bad"].bad_input
    assert ended["bad"].failure.startswith("'fti' is not a verb. Did you mean fit?")
    assert calls[2].log.read_text().startswith("usage: ser VERB")


def test_an_earlier_output_stays_in_the_log_and_is_not_taken_for_this_one(tmp_path):
    once = call(tmp_path, "bad", "fti")
    once.log.parent.mkdir()
    once.log.write_text("ser: error: of yesterday\n")
    (ended,) = run_side_by_side([once], [{}], epochs=None)
    assert "of yesterday" not in ended.failure
    assert once.log.read_text().startswith("ser: error: of yesterday\nser: error: 'fti'")


def test_what_is_raised_is_named_and_what_was_killed_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    killed = {"PYTHONPATH": str(tmp_path)}
    (ended,) = run_side_by_side([call(tmp_path, "killed", "--version")], [killed], epochs=None)
    assert ended.failure == "it was ended by SIGKILL, probably because memory ran out"
    assert not ended.bad_input

    (tmp_path / "sitecustomize.py").unlink()
    (tmp_path / "torch.py").write_text("raise RuntimeError('no torch today')\n")
    (ended,) = run_side_by_side([call(tmp_path, "broken", "fit", "--help")], [killed], epochs=None)
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
    (ended,) = run_side_by_side([call(tmp_path, name, "--version")], [slow], epochs=None)
    assert ended.failure is None
    assert name in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_leaving_early_ends_those_that_run(tmp_path):
    before = children()
    calls = [call(tmp_path, "quick", "--version"), call(tmp_path, "slow", "fit", "--help")]
    ended = run_side_by_side(calls, [{}, {}], epochs=None)
    assert next(ended).fit.name == "quick"
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
