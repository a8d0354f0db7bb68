import io
import multiprocessing
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest
import rich
from rich.console import Console

from ser.data import parallel
from ser.data.parallel import in_parallel, progress
from ser.errors import UserError

forks = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="work is shared between forked processes here"
)


@forks
def test_many_items_are_shared_between_processes_and_come_in_order():
    offset = 1000  # a closure reaches the workers

    def work(number):
        time.sleep(0.002 if number % 16 < 8 else 0)
        return number + offset, os.getpid()

    results = list(in_parallel(work, range(400), "working"))
    assert [number for number, _ in results] == list(range(1000, 1400))
    workers = {pid for _, pid in results}
    assert len(workers) >= 2
    assert os.getpid() not in workers


def test_few_items_need_no_process():
    results = list(in_parallel(lambda number: (number, os.getpid()), range(20), "working"))
    assert results == [(number, os.getpid()) for number in range(20)]
    assert list(in_parallel(str, [], "working")) == []


@pytest.mark.parametrize("items", [10, 400])
def test_an_error_is_handed_on(items):
    def work(number):
        if number == 5:
            raise UserError("five is damaged")
        return number

    with pytest.raises(UserError, match="five is damaged"):
        list(in_parallel(work, range(items), "working"))
    assert not multiprocessing.active_children()


@forks
def test_work_waits_for_whoever_takes_the_results():
    started = multiprocessing.get_context("fork").Value("i", 0)

    def work(number):
        with started.get_lock():
            started.value += 1
        return number

    results = in_parallel(work, range(10_000), "working")
    assert next(results) == 0
    time.sleep(0.3)
    in_flight = started.value
    assert in_flight < 2000
    results.close()
    assert started.value < in_flight + 2000
    assert not multiprocessing.active_children()


@forks
def test_a_killed_worker_is_reported():
    def work(number):
        if number == 300:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(UserError, match=r"A process was killed while working, probably because memory ran out"):
        list(in_parallel(work, range(400), "working"))


@forks
def test_workers_die_with_a_killed_parent():
    context = multiprocessing.get_context("fork")
    pids = context.SimpleQueue()

    def build():
        for pid in in_parallel(lambda _: time.sleep(0.05) or os.getpid(), range(1000), "working"):
            pids.put(pid)

    parent = context.Process(target=build)
    parent.start()
    workers = {pids.get() for _ in range(17)}  # of three chunks
    parent.kill()
    parent.join()
    assert parent.pid not in workers
    for _ in range(100):
        if not any(_alive(worker) for worker in workers):
            return
        time.sleep(0.05)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    pytest.fail(f"workers outlived their parent: {workers}")


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_progress_bar_appears_after_two_seconds(capsys, monkeypatch):
    assert list(progress(range(3), 3, "quick work")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    clock = iter(range(0, 100, 3))
    monkeypatch.setattr(parallel, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    terminal = Console(file=io.StringIO(), force_terminal=True, force_interactive=True)
    monkeypatch.setattr(rich, "_console", terminal)
    assert list(progress(range(3), 3, "long work")) == [0, 1, 2]
    assert "long work" in terminal.file.getvalue()
