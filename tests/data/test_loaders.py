import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, seed_everything
from torch import nn

from ser.data import LogMel
from ser.data.cache import FeatureCache
from ser.data.loaders import Batch, EachOnce, FeatureSet, loader


def features_of(count, frames=7):
    """A set whose rows say where they come from: row r holds r in every valid frame, rows are in reverse order."""
    lengths = torch.arange(count) % frames + 1
    array = np.zeros((count + 3, 2, frames), np.float32)
    rows = np.arange(count)[::-1].copy() + 3
    for position, row in enumerate(rows):
        array[row, :, : lengths[position]] = position + 1
    targets = [position % 3 for position in range(count)]
    return FeatureSet(array, rows, lengths, targets, [10 * position for position in range(count)])


def batches_of(dataset, batch_size=4, *, shuffle=False, epoch=0, workers=0, rank=0, world_size=1):
    batches = loader(dataset, batch_size, shuffle=shuffle, num_workers=workers, rank=rank, world_size=world_size)
    batches.sampler.set_epoch(epoch)
    return list(batches)


def positions(batches):
    return [position for batch in batches for position in batch.positions.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_holds_what_belongs_together(workers):
    dataset = features_of(10)
    batches = batches_of(dataset, workers=workers)
    assert [len(batch.targets) for batch in batches] == [4, 4, 2]
    assert positions(batches) == list(range(0, 100, 10))
    for batch in batches:
        assert isinstance(batch, Batch)
        assert batch.features.shape == (len(batch.targets), 2, 7)
        assert batch.features.dtype == torch.float32
        assert batch.lengths.dtype == batch.targets.dtype == batch.positions.dtype == torch.int64
        for row, length, target, position in zip(*batch, strict=True):
            assert (row[:, :length] == position / 10 + 1).all()
            assert (row[:, length:] == 0).all()
            assert length == position // 10 % 7 + 1
            assert target == position // 10 % 3


def test_a_batch_is_a_copy_that_may_be_changed(tiny):
    corpus = tiny(batch_size=16)
    before = next(iter(corpus.predict_dataloader())).features
    next(iter(corpus.predict_dataloader())).features.zero_()
    assert torch.equal(next(iter(corpus.predict_dataloader())).features, before)
    assert before.abs().sum() > 0


def test_trimmed_batches_end_with_their_longest_utterance():
    dataset = features_of(10)
    dataset.trim = True
    whole = batches_of(features_of(10))
    trimmed = batches_of(dataset)
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
    features = FeatureCache(cache_dir, corpus.front_end)
    for name in ("train", "val", "test", "predict"):
        batches = list(getattr(corpus, f"{name}_dataloader")())
        features._read_index()
        for batch in batches:
            rows = features.rows([corpus.recordings[i].digest for i in batch.positions])
            np.testing.assert_array_equal(batch.features, features.array()[rows])
            assert torch.equal(batch.lengths, features.lengths(rows))
            assert [corpus.labels[t] for t in batch.targets] == [corpus.table[i].emotion for i in batch.positions]
        expected = corpus.split.side(name) if name != "predict" else range(16)
        assert sorted(positions(batches)) == sorted(expected)
        if name != "train":
            assert positions(batches) == list(expected)


# -- order --


@given(st.integers(0, 2**32 - 2), st.integers(0, 50))
def test_the_training_order_follows_seed_and_epoch_alone(seed, epoch):
    def order(seed, epoch):
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PL_GLOBAL_SEED", str(seed))  # what Lightning's seed_everything leaves behind
            torch.rand(3)  # what else is drawn does not matter
            return positions(batches_of(features_of(40), shuffle=True, epoch=epoch))

    first = order(seed, epoch)
    assert sorted(first) == list(range(0, 400, 10))
    assert order(seed, epoch) == first
    others = [order(seed, epoch + 1), order(seed + 1, epoch), order(seed + 1, epoch + 1)]
    assert first not in others
    assert others[0] not in others[1:]


def test_the_training_order_does_not_depend_on_workers():
    orders = [positions(batches_of(features_of(40), shuffle=True, epoch=2, workers=workers)) for workers in (0, 2)]
    assert orders[0] == orders[1]


class Listener(LightningModule):
    """Notes which utterances it is given."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.heard = {}

    def training_step(self, batch, batch_idx):
        self.heard.setdefault(self.current_epoch, []).extend(batch.positions.tolist())
        torch.rand(3)
        return self.net(batch.features.mean().reshape(1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def heard(corpus, make_trainer, seed, epochs):
    seed_everything(seed)
    trainer = make_trainer(epochs, limit_val_batches=0, log_every_n_steps=1)
    listener = Listener()
    trainer.fit(listener, datamodule=corpus)
    return listener.heard


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_lightning_shuffles_anew_in_every_epoch_and_the_same_with_the_same_seed(
    tiny, make_corpus, make_trainer, monkeypatch
):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")  # seed_everything sets them; this takes them back
    root = make_corpus()
    first = heard(tiny(root, batch_size=3), make_trainer, seed=7, epochs=3)
    assert len(first) == 3
    assert [sorted(order) for order in first.values()] == [sorted(first[0])] * 3
    assert first[0] != first[1] != first[2]
    assert heard(tiny(root, batch_size=3), make_trainer, seed=7, epochs=3) == first
    assert heard(tiny(root, batch_size=3), make_trainer, seed=8, epochs=1)[0] != first[0]


# -- several processes --


@pytest.mark.parametrize("world_size", range(1, 6))
@given(count=st.integers(0, 23))
def test_evaluation_meets_every_utterance_once_however_many_processes(world_size, count):
    dataset = features_of(count)
    shares = [list(EachOnce(dataset, world_size, rank)) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(count))
    for rank, share in enumerate(shares):
        sampler = EachOnce(dataset, world_size, rank)
        assert len(sampler) == len(share)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("world_size", range(1, 6))
def test_evaluation_batches_of_all_processes_are_the_set(world_size):
    shares = [batches_of(features_of(17), rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(position for batches in shares for position in positions(batches)) == list(range(0, 170, 10))


def test_training_shares_are_disjoint_and_equally_long():
    shares = [positions(batches_of(features_of(18), shuffle=True, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(position for share in shares for position in share) == list(range(0, 180, 10))
    assert [len(share) for share in shares] == [6, 6, 6]


def test_waveform_like_features_keep_their_shape(tiny):
    corpus = tiny(features=LogMel(8000, 8, n_fft=256, deltas=0), batch_size=2)
    assert next(iter(corpus.test_dataloader())).features.shape == (2, 1, 8, 300)
