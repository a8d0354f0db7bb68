import ctypes
import mmap
import os
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, seed_everything
from scipy.stats import chisquare
from torch import nn

from ser.data import LogMel
from ser.data.items import Items
from ser.data.loaders import FILLER, Batch, EvalSampler, FeatureSet, TrainSampler, loader
from ser.features.shards import Rows
from ser.features.store import FeatureStore

FRAMES = 7
STORED = 60


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of two files that say where they come from: row r holds r + 1 in each of its r % 7 + 1 valid frames."""
    numbers, frames = np.arange(STORED)[:, None, None], np.arange(FRAMES)
    values = np.where(frames <= numbers % FRAMES, numbers + 1, 0).repeat(2, axis=1).astype(np.float32)
    paths = [tmp_path_factory.mktemp("rows") / name for name in ("first", "second")]
    for path, half in zip(paths, np.split(values, 2), strict=True):
        path.write_bytes(half.tobytes())
    return Rows((2, FRAMES), paths, [STORED // 2] * 2, np.arange(STORED) % FRAMES + 1)


def items_of(rows, counts, trim=False):
    """A set of items with so many rows each, from the last row backwards."""
    counts = np.array(counts, np.int64)
    items = Items(10 * np.arange(len(counts)), STORED - np.cumsum(counts), counts, np.zeros_like(counts))
    return FeatureSet(rows, torch.from_numpy(rows.lengths), items, [item % 3 for item in range(len(counts))], trim)


def batches_of(dataset, sampler=EvalSampler, batch_size=4, *, epoch=0, workers=0, rank=0, world_size=1, **options):
    batches = loader(dataset, sampler(dataset, world_size, rank, **options), batch_size, workers)
    batches.sampler.set_epoch(epoch)
    return list(batches)


def positions(batches):
    return [position for batch in batches for position in batch.positions.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_holds_what_belongs_together(rows, workers):
    batches = batches_of(items_of(rows, [1] * 10), workers=workers)
    assert [len(batch.targets) for batch in batches] == [4, 4, 2]
    assert positions(batches) == list(range(0, 100, 10))
    for batch in batches:
        assert isinstance(batch, Batch)
        assert batch.features.shape == (len(batch.targets), 2, FRAMES)
        assert batch.features.dtype == torch.float32
        assert batch.lengths.dtype == batch.targets.dtype == batch.positions.dtype == torch.int64
        for features, length, target, position in zip(*batch, strict=True):
            row = STORED - 1 - position // 10
            assert (features[:, :length] == row + 1).all()
            assert (features[:, length:] == 0).all()
            assert length == row % FRAMES + 1
            assert target == position // 10 % 3


@settings(deadline=None, max_examples=20)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=15), batch_size=st.integers(1, 5))
def test_an_items_rows_stay_together_in_their_order(rows, counts, batch_size):
    seen = 0
    ends = STORED - np.cumsum([0, *counts[:-1]])
    for batch in batches_of(items_of(rows, counts), batch_size=batch_size):
        number = min(batch_size, len(counts) - seen)
        expected = [
            (item, row) for item in range(seen, seen + number) for row in range(ends[item] - counts[item], ends[item])
        ]
        assert batch.positions.tolist() == [10 * item for item, _ in expected]
        assert batch.targets.tolist() == [item % 3 for item, _ in expected]
        assert batch.features[:, 0, 0].tolist() == [row + 1 for _, row in expected]
        assert batch.lengths.tolist() == [row % FRAMES + 1 for _, row in expected]
        seen += number
    assert seen == len(counts)


def test_a_batch_is_a_copy_that_may_be_changed(tiny):
    corpus = tiny(batch_size=16)
    before = next(iter(corpus.predict_dataloader())).features
    next(iter(corpus.predict_dataloader())).features.zero_()
    assert torch.equal(next(iter(corpus.predict_dataloader())).features, before)
    assert before.abs().sum() > 0


def test_trimmed_batches_end_with_their_longest_segment(rows):
    whole = batches_of(items_of(rows, [1] * 10))
    trimmed = batches_of(items_of(rows, [1] * 10, trim=True))
    assert [batch.features.shape[-1] for batch in trimmed] == [4, 7, 3]
    for short, full in zip(trimmed, whole, strict=True):
        assert torch.equal(short.features, full.features[..., : short.features.shape[-1]])
        assert short.features.is_contiguous()
        assert full.features[..., short.features.shape[-1] :].abs().sum() == 0


def test_the_corpus_trims_on_request(tiny, make_corpus):
    root = make_corpus()
    fixed = list(tiny(root, batch_size=4).train_dataloader())
    assert {batch.features.shape[-1] for batch in fixed} == {300}
    for batch in tiny(root, batch_size=4, padding="batch").train_dataloader():
        assert batch.features.shape[-1] == batch.lengths.max() < 300


def test_batches_equal_the_rows_of_the_cache(tiny, cache_dir):
    corpus = tiny(batch_size=5)
    for name in ("train", "val", "test", "predict"):
        batches = list(getattr(corpus, f"{name}_dataloader")())
        features = FeatureStore(cache_dir, corpus.front_end)
        for batch in batches:
            rows = np.array(
                [span.first for span in features.spans([corpus.recordings[i].digest for i in batch.positions])]
            )
            np.testing.assert_array_equal(batch.features, features.rows.read(rows))
            assert batch.lengths.tolist() == features.rows.lengths[rows].tolist()
            assert [corpus.labels[t] for t in batch.targets] == [corpus.table[i].emotion for i in batch.positions]
        expected = corpus.split[name] if name != "predict" else range(16)
        assert sorted(positions(batches)) == sorted(expected)
        if name != "train":
            assert positions(batches) == list(expected)


# -- read ahead --


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampler", [TrainSampler, EvalSampler])
def test_every_batch_but_the_first_is_announced_while_the_one_before_is_used(rows, sampler, workers, monkeypatch):
    dataset = items_of(rows, [1, 3, 2, 1, 4, 1, 2, 1, 1, 2])
    announced = []
    monkeypatch.setattr(rows, "read_ahead", lambda numbers: announced.extend(numbers.tolist()))
    batches = loader(dataset, sampler(dataset, 1, 0), 3, workers)
    read = []
    for batch in batches:
        read += [int(first) - 1 for first in batch.features[:, 0, 0]]
        in_use, ahead = len(read), len(announced)
        assert announced[:in_use] == read
        assert in_use == 18 or ahead > in_use
        assert workers or ahead <= in_use + 3 * 4
    assert sorted(announced) == list(range(STORED - 18, STORED))  # each once


def in_file_cache(file, start, size):
    """Return how many bytes of a piece of a file are in the system's file cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped)) + start
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
    return mmap.PAGESIZE * sum(page & 1 for page in pages)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked what its file cache holds")
def test_the_system_reads_the_next_batch_from_the_disk_meanwhile(tmp_path):
    size = 16 * mmap.PAGESIZE
    path, numbers = tmp_path / "rows", np.arange(64)
    with path.open("wb") as file:
        file.write(np.repeat(np.float32(numbers + 1), size // 4).data)
        file.flush()
        os.fsync(file.fileno())
    items = Items(numbers, numbers, np.ones(64, np.int64), numbers * 0)
    dataset = FeatureSet(Rows((size // 4,), [path], [64], numbers * 0 + 1), torch.ones(64), items, [0] * 64)
    with path.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if in_file_cache(opened, 0, 64 * size):
            pytest.skip("this file system keeps its files in memory")
        batches = iter(loader(dataset, TrainSampler(dataset, 1, 0), 4, 0))
        next(batches)
        order = TrainSampler(dataset, 1, 0).draws()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(in_file_cache(opened, row * size, size) < size for row in order[4:8]):
            time.sleep(0.01)
        assert [in_file_cache(opened, row * size, size) for row in order[:8]] == [size] * 8
        assert sum(in_file_cache(opened, row * size, size) for row in order[8:]) < 20 * size


# -- order --


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 2), epoch=st.integers(0, 50), sampling=st.sampled_from(["shuffle", "balanced"]))
def test_the_training_order_follows_seed_and_epoch_alone(rows, seed, epoch, sampling):
    def order(seed, epoch):
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PL_GLOBAL_SEED", str(seed))  # what Lightning's seed_everything leaves behind
            torch.rand(3)  # what else is drawn does not matter
            return positions(batches_of(items_of(rows, [1] * 40), TrainSampler, epoch=epoch, sampling=sampling))

    first = order(seed, epoch)
    if sampling == "shuffle":
        assert sorted(first) == list(range(0, 400, 10))
    assert order(seed, epoch) == first
    others = [order(seed, epoch + 1), order(seed + 1, epoch), order(seed + 1, epoch + 1)]
    assert first not in others
    assert others[0] not in others[1:]


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_the_training_order_does_not_depend_on_workers(rows, sampling):
    dataset = items_of(rows, [1] * 40)
    orders = [positions(batches_of(dataset, TrainSampler, epoch=2, workers=n, sampling=sampling)) for n in (0, 2)]
    assert orders[0] == orders[1]


@settings(deadline=None, max_examples=30)
@given(number=st.integers(1, 30), epoch=st.integers(0, 2**31), sampling=st.sampled_from(["shuffle", "balanced"]))
def test_a_draw_says_item_and_epoch(rows, number, epoch, sampling):
    sampler = TrainSampler(items_of(rows, [1] * number), 1, 0, sampling)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == number
    assert {draw // number for draw in drawn} == {epoch}


class Listener(LightningModule):
    """Notes which utterances it is given."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen = {}

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(self.current_epoch, []).extend(batch.positions.tolist())
        torch.rand(3)
        return self.net(batch.features.mean().reshape(1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def seen(corpus, make_trainer, seed, epochs):
    seed_everything(seed)
    trainer = make_trainer(epochs, limit_val_batches=0, log_every_n_steps=1)
    listener = Listener()
    trainer.fit(listener, datamodule=corpus)
    return listener.seen


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_lightning_shuffles_anew_in_every_epoch_and_the_same_with_the_same_seed(
    tiny, make_corpus, make_trainer, monkeypatch
):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")  # seed_everything sets them; this takes them back
    root = make_corpus()
    first = seen(tiny(root, batch_size=3), make_trainer, seed=7, epochs=3)
    assert len(first) == 3
    assert [sorted(order) for order in first.values()] == [sorted(first[0])] * 3
    assert first[0] != first[1] != first[2]
    assert seen(tiny(root, batch_size=3), make_trainer, seed=7, epochs=3) == first
    assert seen(tiny(root, batch_size=3), make_trainer, seed=8, epochs=1)[0] != first[0]


# -- balanced --


def imbalanced(rows, numbers=(600, 240, 60)):
    """A set of nothing but targets, so many of each class."""
    targets = np.repeat(range(len(numbers)), numbers)
    none = np.zeros_like(targets)
    return FeatureSet(rows, torch.ones(STORED), Items(none, none, none + 1, none), targets.tolist())


def drawn(dataset, epoch, rank=0, world_size=1):
    sampler = TrainSampler(dataset, world_size, rank, "balanced")
    sampler.set_epoch(epoch)
    return [draw - epoch * len(dataset) for draw in sampler]


def test_balanced_draws_have_as_many_of_every_class(rows):
    dataset = imbalanced(rows)
    times = np.zeros(900)
    for epoch in range(20):
        items = drawn(dataset, epoch)
        assert len(items) == 900
        shares = np.bincount(dataset.targets[items], minlength=3) / 900
        assert (abs(shares - 1 / 3) < 0.08).all()  # five standard deviations
        np.add.at(times, items, 1)
    for target, number in enumerate((600, 240, 60)):  # and within a class every item is as likely as any other
        of_class = times[dataset.targets == target]
        assert of_class.sum() == pytest.approx(6000, abs=320)
        assert chisquare(of_class).pvalue > 1e-3
        assert number == len(of_class)


@pytest.mark.parametrize("world_size", [2, 3])
def test_shares_of_a_balanced_draw_are_that_of_one_process(rows, world_size):
    dataset = imbalanced(rows)
    for epoch in range(3):
        shares = [drawn(dataset, epoch, rank, world_size) for rank in range(world_size)]
        assert [item for together in zip(*shares, strict=True) for item in together] == drawn(dataset, epoch)


def test_the_corpus_balances_on_request(make_corpus, tiny):
    root = make_corpus()
    for path in root.glob("*_anger_s2.wav"):
        path.unlink()  # 4 angry and 8 neutral utterances to train on
    for sampling, low, high in (("shuffle", 1 / 3, 1 / 3), ("balanced", 0.42, 0.58)):
        corpus = tiny(root, sampling=sampling)
        batches = corpus.train_dataloader()
        shares = Counter()
        for epoch in range(40):
            batches.sampler.set_epoch(epoch)
            shares.update(corpus.table[position].emotion for position in positions(batches))
        assert shares.total() == 40 * 6
        assert low <= shares["anger"] / shares.total() <= high
        assert positions(corpus.test_dataloader()) == list(corpus.split.test)


# -- several processes --


@pytest.mark.parametrize("world_size", range(1, 6))
@settings(deadline=None, max_examples=24)
@given(count=st.integers(0, 23))
def test_evaluation_meets_every_utterance_once_however_many_processes(rows, world_size, count):
    dataset = items_of(rows, [1] * count)
    shares = [list(EvalSampler(dataset, world_size, rank)) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share if index != FILLER) == list(range(count))
    for rank, share in enumerate(shares):
        sampler = EvalSampler(dataset, world_size, rank)
        assert len(sampler) == len(share)
        assert (share == [FILLER]) == (0 < count <= rank)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("world_size", range(1, 6))
def test_evaluation_batches_of_all_processes_are_the_set(rows, world_size):
    dataset = items_of(rows, [1] * 17)
    shares = [batches_of(dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(position for batches in shares for position in positions(batches)) == list(range(0, 170, 10))


def test_training_shares_are_disjoint_and_equally_long(rows):
    dataset = items_of(rows, [1] * 18)
    shares = [positions(batches_of(dataset, TrainSampler, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(position for share in shares for position in share) == list(range(0, 180, 10))
    assert [len(share) for share in shares] == [6, 6, 6]


def test_waveform_like_features_keep_their_shape(tiny):
    corpus = tiny(features=LogMel(8000, 8, n_fft=256, deltas=0), batch_size=2)
    assert next(iter(corpus.test_dataloader())).features.shape == (2, 1, 8, 300)
