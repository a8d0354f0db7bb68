import multiprocessing
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser.data.rows import RowFile, Rows, consecutive
from ser.errors import UserError

SHAPE = (2, 3)


@pytest.fixture
def rows(tmp_path):
    stored = RowFile(tmp_path / "rows.f32", SHAPE, np.float32)
    stored.truncate(0)
    return stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


def read(stored, rows):
    """Read some rows of one file."""
    return Rows([stored], np.zeros(stored.stored(), np.int16), np.arange(stored.stored())).read(
        np.array(rows, np.int64)
    )


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 30), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("read"), st.lists(st.integers(0, 30), max_size=5)),
    st.tuples(st.just("close")),
)


@settings(deadline=None, max_examples=50)
@given(steps=st.lists(STEPS, max_size=20))
def test_what_was_written_is_read_in_any_order_while_the_file_grows(folder, steps):
    stored = RowFile(folder / "rows.f32", SHAPE, np.float32)
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
                np.testing.assert_array_equal(read(stored, chosen), expected[chosen])
        else:
            stored.close()
        assert stored.stored() == len(expected)
    stored.close()


def test_what_is_read_is_a_copy(rows):
    rows.write(0, np.ones(SHAPE, np.float32))
    read(rows, [0])[:] = 5
    assert (read(rows, [0]) == 1).all()


def test_rows_of_any_layout_in_memory_are_written_as_they_are(rows):
    values = np.arange(6, dtype=np.float32).reshape(3, 2).T
    rows.write(0, values)
    np.testing.assert_array_equal(read(rows, [0])[0], values)


def test_rows_beyond_the_end_are_an_error(rows):
    rows.write(3, np.ones(SHAPE, np.float32))
    with pytest.raises(IndexError):
        read(rows, [4])


def test_a_part_of_a_row_does_not_count(rows):
    rows.write(1, np.ones(SHAPE, np.float32))
    with rows.path.open("ab") as file:
        file.write(b"part")
    assert rows.stored() == 2
    rows.truncate(1)
    assert rows.stored() == 1


def test_a_file_that_is_not_there_holds_nothing(tmp_path):
    assert RowFile(tmp_path / "gone", SHAPE, np.float32).stored() == 0


def test_rows_are_opened_anew_in_another_process(rows):
    rows.write(0, np.full(SHAPE, 7, np.float32))
    read(rows, [0])
    sent = pickle.dumps(rows)
    assert len(sent) < 1000
    assert (read(pickle.loads(sent), [0]) == 7).all()


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
    np.testing.assert_array_equal(read(rows, range(300))[:, 0, 0], np.arange(300))


def test_rows_of_several_files_are_numbered_as_one(tmp_path):
    files = [RowFile(tmp_path / name, SHAPE, np.float32) for name in "ab"]
    for number, file in enumerate(files):
        file.truncate(4)
        for row in range(4):
            file.write(row, np.full(SHAPE, 10 * number + row, np.float32))
    both = Rows(files, np.array([0, 1, 1, 0, 1]), np.array([3, 0, 2, 1, 3]))
    chosen = np.array([4, 0, 0, 2, 1])
    both.expect(chosen)
    assert both.read(chosen)[:, 0, 0].tolist() == [13, 3, 3, 12, 10]
    assert pickle.loads(pickle.dumps(both)).read(chosen)[:, 0, 0].tolist() == [13, 3, 3, 12, 10]
    assert both.read(chosen[:0]).shape == (0, *SHAPE)


def test_a_file_that_is_cut_while_it_is_read_is_named(rows):
    rows.write(3, np.ones(SHAPE, np.float32))
    open_rows = Rows([rows], np.zeros(4, np.int16), np.arange(4))
    open_rows.read(np.array([3]))
    rows.truncate(3)
    with pytest.raises(UserError, match=r"rows.f32 was cut off while it was in use\. Start again: what is missing is"):
        open_rows.read(np.array([3]))


def test_consecutive_numbers():
    assert consecutive(np.array([7, 0, 3]), np.array([2, 3, 1])).tolist() == [7, 8, 0, 1, 2, 3]
    assert consecutive(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def resident_bytes():
    """Return how much of this process is in memory, files that it maps included."""
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what of a process is in memory")
def test_memory_stays_flat_however_much_is_read(tmp_path):
    large = RowFile(tmp_path / "large", (2**18,), np.float32)  # a MiB each
    large.truncate(96)
    large.write(95, np.ones(2**18, np.float32))
    read(large, [0])
    before = resident_bytes()
    for row in range(96):
        assert read(large, [row]).max() == (row == 95)
        assert resident_bytes() - before < 8 * 2**20
