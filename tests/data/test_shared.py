import json
import multiprocessing
import os
import signal
import time
from typing import NamedTuple

import pytest
from filelock import FileLock, Timeout

from ser.data import shared
from ser.data.shared import Journal, SharedWork, alone

processes = multiprocessing.get_context("forkserver")  # the test's own has threads
processes.set_forkserver_preload(["ser.data.shared", "pytest"])


def taken_in(path):
    blocks = []
    Journal(path).take_in(lambda block: blocks.append(block) is None)
    return blocks


# -- journals --


def test_blocks_come_once_and_in_order(tmp_path):
    writer, reader = (Journal(tmp_path / "index") for _ in range(2))
    seen = []
    reader.take_in(seen.append)
    assert seen == []
    for number in range(3):
        writer.append(b"block %d" % number)
        writer.take_in(lambda _: True)
        reader.take_in(lambda block: seen.append(block) is None)
        assert seen == [b"block %d" % i for i in range(number + 1)]
    assert taken_in(tmp_path / "index") == seen


def test_a_journal_cut_at_any_byte_holds_the_blocks_before(tmp_path):
    path = tmp_path / "index"
    ends = [0]
    for block in (b"first", b"second", b"third"):
        journal = Journal(path)
        journal.take_in(lambda _: True)
        journal.append(block)
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        for rest in (b"", bytes(50), b"\xff" * 50):  # what a power failure leaves
            path.write_bytes(whole[:length] + rest)
            number = sum(end <= length for end in ends[1:])
            assert taken_in(path) == [b"first", b"second", b"third"][:number]
    journal = Journal(path)
    path.write_bytes(whole[:-1])
    journal.take_in(lambda _: True)
    journal.append(b"fourth")
    assert taken_in(path) == [b"first", b"second", b"fourth"]


@pytest.mark.parametrize("byte", [0, 8, 12, 16])  # of size, check and content
def test_a_changed_byte_ends_a_journal(tmp_path, byte):
    path = tmp_path / "index"
    Journal(path).append(b"first", b"second")
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    assert taken_in(path) == []


def test_what_is_not_accepted_is_offered_again_or_overwritten(tmp_path):
    path = tmp_path / "index"
    Journal(path).append(b"good", b"bad", b"good")
    journal = Journal(path)
    seen = []
    for _ in range(2):
        journal.take_in(lambda block: seen.append(block) or block == b"good")
    assert seen == [b"good", b"bad", b"bad"]
    journal.append(b"new")
    assert taken_in(path) == [b"good", b"new"]


# -- work --


class Item(NamedTuple):
    key: str


class Job:
    """Work whose results are the keys of the items."""

    def __init__(self, folder):
        self.folder = folder
        self.known = {}
        self.work = SharedWork(folder, self.known, self.take_in)

    def take_in(self, part, block):
        self.known.update(dict.fromkeys(json.loads(block), part))
        return True

    def do(self, keys, work):
        self.folder.mkdir(exist_ok=True)
        with self.work.part() as part:
            self.work.do(
                part,
                [Item(key) for key in keys],
                work,
                lambda results: self.work.publish(part, json.dumps(results).encode()),
                "counting",
            )
        return part


def test_parts_are_used_again_and_hold_what_was_published_in_them(tmp_path):
    assert Job(tmp_path).do("abc", lambda item: item.key) == 0
    assert Job(tmp_path).do("cde", lambda item: item.key) == 0
    job = Job(tmp_path)
    job.work.look()
    assert job.known == dict.fromkeys("abcde", 0)
    with job.work.part() as first, Job(tmp_path).work.part() as second:
        assert (first, second) == (0, 1)
        with pytest.raises(Timeout), alone(tmp_path):
            pass
    with alone(tmp_path), pytest.raises(Timeout), FileLock(tmp_path / "lock", timeout=0):
        pass


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_lost_claims_cost_work_but_no_results(tmp_path, damage):
    Job(tmp_path).do("abc", lambda item: item.key)
    if damage is None:
        (tmp_path / "claims").unlink()
    else:
        (tmp_path / "claims").write_bytes(damage)
    done = []
    job = Job(tmp_path)
    job.do("abcd", lambda item: done.append(item.key) or item.key)
    assert done == ["d"]
    assert sorted(job.known) == list("abcd")


def work_slowly(folder, started):
    shared.PUBLISH_EVERY_S = 0

    def work(item):
        if item.key == "3":
            started.set()
            time.sleep(600)
        return item.key

    Job(folder).do("0123456789", work)


def test_the_rest_of_a_killed_process_is_done_by_who_waits_and_nothing_else(tmp_path, capsys):
    started = processes.Event()
    killed = processes.Process(target=work_slowly, args=(tmp_path, started))
    killed.start()
    assert started.wait(60)
    done = []

    def work(item):
        if killed.is_alive():
            assert item.key == "x"  # which the other knows nothing of
            os.kill(killed.pid, signal.SIGKILL)
            killed.join()
        done.append(item.key)
        return item.key

    job = Job(tmp_path)
    assert job.do("0123456789x", work) == 1
    assert done == ["x", *"3456789"]
    assert sorted(job.known) == [*"0123456789", "x"]
    assert capsys.readouterr().out == "Other processes are counting that are needed here, too; waiting for 7.\n"


def test_who_claims_often_claims_more(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "CLAIMED_AT_FIRST", 4)
    claims = []
    job = Job(tmp_path)

    def work(item):
        claimed = json.loads((tmp_path / "claims").read_text())[0]
        claims.append(len(claimed))
        return item.key

    job.do([str(number) for number in range(28)], work)
    assert claims == [4] * 4 + [12] * 8 + [28] * 16  # none is published before the end
