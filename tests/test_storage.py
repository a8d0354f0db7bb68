import multiprocessing
import os
import random
import time

import pytest

from ser.storage import write_atomically


def rewrite(path):
    for number in range(1_000_000):
        write_atomically(path, bytes([number % 256]) * 4_000_000)


def test_a_write_that_is_killed_leaves_the_old_content_or_the_new(tmp_path):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"\0" * 4_000_000)
    moments = random.Random(1)
    seen = set()
    for _ in range(20):
        before = path.stat().st_mtime_ns
        writer = multiprocessing.get_context("fork").Process(target=rewrite, args=(path,))
        writer.start()
        while path.stat().st_mtime_ns == before:  # it has begun
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))
        writer.kill()
        writer.join()
        content = path.read_bytes()
        assert len(content) == 4_000_000
        assert content == content[:1] * 4_000_000
        seen.add(content[:1])
    assert len(seen) > 1, "nothing was written between the kills"


def test_folders_are_made_and_nothing_but_the_file_remains(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


def test_a_write_that_fails_leaves_the_old_content_and_no_other_file(tmp_path):
    path = tmp_path / "file"
    path.mkdir()  # cannot be replaced by a file
    with pytest.raises(IsADirectoryError):
        write_atomically(path, b"new")
    assert os.listdir(tmp_path) == ["file"]
