import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import SimpleNamespace

import pytest
import rich
from rich.console import Console

from ser import parallel
from ser.errors import UserError
from ser.parallel import in_chunks, progress

forks = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="work is shared between forked processes here"
)


@forks
def test_many_items_are_shared_between_processes_and_come_in_order():
    offset = 1000  # a closure reaches the workers

    def work(numbers):
        time.sleep(0.02 if numbers[0] % 64 else 0)
        return [number + offset for number in numbers], os.getpid()

    results = list(in_chunks(work, range(400), "working"))
    assert list(chain.from_iterable(numbers for numbers, _ in results)) == list(range(1000, 1400))
    workers = {pid for _, pid in results}
    assert len(workers) >= 2
    assert os.getpid() not in workers


def test_few_items_need_no_process():
    assert list(in_chunks(lambda numbers: os.getpid(), range(80), "working")) == [os.getpid()] * 3
    assert list(in_chunks(list, [], "working")) == []


def test_a_cluster_is_used_and_left_open():
    with ThreadPoolExecutor(1) as executor:
        cluster = SimpleNamespace(executor=executor, slots=1, lost=())
        assert list(in_chunks(list, range(40), "working", cluster)) == [list(range(32)), list(range(32, 40))]
        assert executor.submit(int).result() == 0


@pytest.mark.parametrize("items", [10, 400])
def test_an_error_is_handed_on(items):
    def work(numbers):
        if 5 in numbers:
            raise UserError("five is damaged")
        return numbers

    with pytest.raises(UserError, match="five is damaged"):
        list(in_chunks(work, range(items), "working"))
    assert not multiprocessing.active_children()


@forks
def test_who_stops_taking_results_stops_the_work():
    started = multiprocessing.get_context("fork").Value("i", 0)

    def work(numbers):
        with started.get_lock():
            started.value += 1
        time.sleep(0.01)

    results = in_chunks(work, range(100_000), "working")
    next(results)
    results.close()
    assert started.value < 50
    assert not multiprocessing.active_children()


INTERRUPTED = """
import os, signal, time
from ser.parallel import in_chunks

def work(numbers):
    print("working", flush=True)
    time.sleep(600)

try:
    list(in_chunks(work, range(400), "working"))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@forks
def test_ctrl_c_ends_the_work_at_once():
    build = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, start_new_session=True)
    assert build.stdout.readline() == b"working\n"
    os.killpg(build.pid, signal.SIGINT)
    printed, _ = build.communicate(timeout=60)
    assert printed.splitlines()[-1] == b"interrupted"
    assert build.returncode == 0


@forks
def test_a_killed_worker_is_reported():
    def work(numbers):
        if 300 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match=r"A process was killed while working, probably because memory ran out"):
        list(in_chunks(work, range(400), "working"))


@forks
def test_workers_die_with_a_killed_parent():
    context = multiprocessing.get_context("fork")
    pids = context.SimpleQueue()

    def build():
        for pid in in_chunks(lambda _: time.sleep(0.2) or os.getpid(), range(5000), "working"):
            pids.put(pid)

    parent = context.Process(target=build)
    parent.start()
    workers = {pids.get() for _ in range(4)}
    parent.kill()
    parent.join()
    assert parent.pid not in workers
    for _ in range(600):
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
