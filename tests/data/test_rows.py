import multiprocessing
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser.data import rows as module
from ser.data.rows import Rows

SHAPE = (2, 3)


@pytest.fixture
def rows(tmp_path):
    stored = Rows(tmp_path / "rows.f32", SHAPE, np.float32)
    stored.truncate(0)
    return stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 30), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("read"), st.lists(st.integers(0, 30), max_size=5)),
    st.tuples(st.just("close")),
)


@settings(deadline=None, max_examples=50)
@given(steps=st.lists(STEPS, max_size=20), resident=st.sampled_from([1, 100, 2**20]))
def test_what_was_written_is_read_in_any_order_while_the_file_grows(folder, steps, resident):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RESIDENT_BYTES", resident)
        stored = Rows(folder / "rows.f32", SHAPE, np.float32)
        stored.truncate(0)
        expected = np.zeros((0, *SHAPE), np.float32)  # rows that were skipped hold zeros
        for name, *arguments in steps:
            if name == "write":
                row, value = arguments
                grown = max(row + 1 - len(expected), 0)
                expected = np.concatenate([expected, np.zeros((grown, *SHAPE), np.float32)])
                expected[row] = np.arange(6, dtype=np.float32).reshape(SHAPE) + np.float32(value)
                stored.write(row, expected[row])
            elif name == "read":
                chosen = np.array([row for row in arguments[0] if row < len(expected)], np.int64)
                if len(expected):
                    np.testing.assert_array_equal(stored.read(chosen), expected[chosen])
            else:
                stored.close()
            assert stored.stored() == len(expected)
        stored.close()


def test_what_is_read_is_a_copy(rows):
    rows.write(0, np.ones(SHAPE, np.float32))
    rows.read(np.array([0]))[:] = 5
    assert (rows.read(np.array([0])) == 1).all()


def test_rows_of_any_layout_in_memory_are_written_as_they_are(rows):
    values = np.arange(6, dtype=np.float32).reshape(3, 2).T
    rows.write(0, values)
    np.testing.assert_array_equal(rows.read(np.array([0]))[0], values)


def test_rows_beyond_the_end_are_an_error(rows):
    rows.write(3, np.ones(SHAPE, np.float32))
    with pytest.raises(IndexError):
        rows.read(np.array([4]))


def test_a_part_of_a_row_does_not_count(rows):
    rows.write(1, np.ones(SHAPE, np.float32))
    with rows.path.open("ab") as file:
        file.write(b"part")
    assert rows.stored() == 2
    rows.truncate(1)
    assert rows.stored() == 1


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Rows(tmp_path / "gone", SHAPE, np.float32).stored()


def test_rows_are_opened_anew_in_another_process(rows):
    rows.write(0, np.full(SHAPE, 7, np.float32))
    rows.read(np.array([0]))
    sent = pickle.dumps(rows)
    assert len(sent) < 1000
    assert (pickle.loads(sent).read(np.array([0])) == 7).all()


def write_every_third(stored, first):
    for row in range(first, 300, 3):
        stored.write(row, np.full(SHAPE, row, np.float32))


def test_several_processes_write_to_one_file(rows):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_every_third, args=(rows, first)) for first in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    np.testing.assert_array_equal(rows.read(np.arange(300))[:, 0, 0], np.arange(300))


def resident_bytes():
    """Return how much of files this process has mapped in memory."""
    return 1024 * int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what of files is in memory")
def test_memory_stays_flat_however_much_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESIDENT_BYTES", 4 * 2**20)
    large = Rows(tmp_path / "large", (2**18,), np.float32)  # a MiB each
    large.truncate(96)
    large.write(95, np.ones(2**18, np.float32))
    large.read(np.array([0]))
    before = resident_bytes()
    for row in range(96):
        assert large.read(np.array([row])).max() == (row == 95)
        assert resident_bytes() - before < 16 * 2**20
