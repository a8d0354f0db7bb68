"""Segments: how an utterance is divided, and that it is still scored as one, and belongs to one partition."""

import csv
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import seed_everything
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import nn

from ser.data import Augment, PeakNoise, Preprocess, SpeechCorpus, Split
from ser.data.items import Items, check_rows
from ser.data.loaders import EvalSampler, loader
from ser.errors import UserError
from ser.runs.folder import RunFolder
from ser.runs.recorder import RunRecorder
from ser.training.metrics import by_utterance
from ser.training.task import EmotionClassifier

RATE_HZ = 8000
DIVIDED = Preprocess(duration_s=0.2, segment_hop_s=0.1)

# -- the division --


@pytest.mark.parametrize(
    ("samples", "starts"),
    [
        (1, [0]),
        (7999, [0]),
        (8000, [0]),
        (8001, [0, 4000]),
        (12_000, [0, 4000]),
        (12_001, [0, 4000, 8000]),
        (20_000, [0, 4000, 8000, 12_000]),
    ],
)
def test_a_segment_of_a_second_every_half_second(samples, starts):
    waveform = np.arange(1, samples + 1, dtype=np.float32)  # counts its samples
    pieces = Preprocess(None, duration_s=1.0, segment_hop_s=0.5).divide(waveform, RATE_HZ)
    assert [int(piece[0]) - 1 for piece in pieces] == starts
    assert [len(piece) for piece in pieces] == [8000] * (len(starts) - 1) + [samples - starts[-1]]
    assert pieces[-1][-1] == samples
    padded = Preprocess(None, duration_s=1.0, segment_hop_s=0.5, pad_waveform=True).divide(waveform, RATE_HZ)
    for piece, filled in zip(pieces, padded, strict=True):
        np.testing.assert_array_equal(filled, np.append(piece, np.zeros(8000 - len(piece), np.float32)))


def test_an_utterance_under_one_segment_can_be_padded_at_both_ends():
    centred = Preprocess(None, duration_s=1.0, segment_hop_s=0.5, pad_waveform="centred")
    (piece,) = centred.divide(np.ones(7997, np.float32), RATE_HZ)
    np.testing.assert_array_equal(piece, [0] + [1] * 7997 + [0, 0])
    longer = np.ones(8001, np.float32)  # whose last segment is padded at its end
    ends = replace(centred, pad_waveform=True).divide(longer, RATE_HZ)
    np.testing.assert_array_equal(centred.divide(longer, RATE_HZ), ends)
    with pytest.raises(UserError, match="pad_waveform is 'start'; choose one of false, true, centred"):
        Preprocess(pad_waveform="start")


@settings(deadline=None)
@given(samples=st.integers(1, 600), duration=st.integers(1, 200), share=st.floats(0.05, 1))
def test_segments_cover_an_utterance_and_no_more(samples, duration, share):
    hop = max(round(share * duration), 1)
    waveform = np.arange(samples, dtype=np.float32)
    pieces = Preprocess(None, duration_s=duration / 1000, segment_hop_s=hop / 1000).divide(waveform, 1000)
    for number, piece in enumerate(pieces):
        np.testing.assert_array_equal(piece, waveform[number * hop : number * hop + duration])
    ends = [piece[-1] for piece in pieces]
    assert ends.index(samples - 1) == len(pieces) - 1  # the first that reaches the end is the last


def test_what_comes_before_the_division_is_of_the_whole_utterance():
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 3000).astype(np.float32)
    options = {"top_db": None, "pre_emphasis": 0.97, "waveform_norm": "zscore"}
    whole = Preprocess(**options, duration_s=3.0)(waveform, 1000)
    pieces = Preprocess(**options, duration_s=1.0, segment_hop_s=0.5).divide(waveform, 1000)
    assert len(pieces) == 5
    for number, piece in enumerate(pieces):
        np.testing.assert_array_equal(piece, whole[500 * number : 500 * number + 1000])


@pytest.mark.parametrize("hop", [0, -0.5, 1.5])
def test_a_hop_that_leaves_something_out_is_rejected(hop):
    with pytest.raises(UserError, match=rf"segment_hop_s is {hop}; it must be over 0 and at most duration_s = 1.0"):
        Preprocess(duration_s=1.0, segment_hop_s=hop)


# -- batches --


def segments_of(corpus, position):
    return corpus.front_end.segments(corpus.table[position].path)


def test_the_segments_that_room_is_kept_for_are_those_that_an_utterance_has(make_corpus, tiny):
    """Before trimming; counted by its duration."""
    corpus = tiny(make_corpus(), preprocess=Preprocess(top_db=None, duration_s=0.2, segment_hop_s=0.1))
    for utterance, look in zip(corpus.table, corpus.recordings, strict=True):
        made = corpus.front_end.segments(utterance.path)
        assert corpus.front_end.preprocess.count(look.duration_s) == len(made) > 1
    assert Preprocess().count(60.0) == 1


def test_training_items_are_segments(tiny):
    corpus = tiny(preprocess=DIVIDED, batch_size=4)
    batches = list(corpus.train_dataloader())
    expected = sorted(
        (position, segment.numpy().tobytes())
        for position in corpus.split.train
        for segment in segments_of(corpus, position)
    )
    assert len(expected) > 2 * len(corpus.split.train)
    assert [len(batch.targets) for batch in batches[:-1]] == [4] * (len(batches) - 1)
    assert expected == sorted(
        (position.item(), features[..., :length].numpy().tobytes())
        for batch in batches
        for features, length, _, position in zip(*batch, strict=True)
    )
    assert any(len(batch.positions.unique()) == 4 for batch in batches)  # of several utterances


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("partition", ["val", "test"])
def test_an_utterance_is_in_one_batch_of_one_process_with_all_its_segments(tiny, partition, world_size):
    corpus = tiny(preprocess=DIVIDED)
    dataset = getattr(corpus, f"{partition}_dataloader")().dataset
    met = []
    for rank in range(world_size):
        for batch in loader(dataset, EvalSampler(dataset, world_size, rank), 3, 0):
            positions, counts = batch.positions.unique_consecutive(return_counts=True)
            assert len(positions) <= 3
            assert [len(segments_of(corpus, position)) for position in positions.tolist()] == counts.tolist()
            met += positions.tolist()
            ours = [segment for position in positions.tolist() for segment in segments_of(corpus, position)]
            for features, length, segment in zip(batch.features, batch.lengths, ours, strict=True):
                assert torch.equal(features[..., :length], segment)
                assert (features[..., length:] == 0).all()
    assert sorted(met) == list(corpus.split[partition])


# -- scores --


class Mean(nn.Module):
    """The simplest network: a linear layer on the mean of the valid frames."""

    def __init__(self, num_classes=2, features=16):
        super().__init__()
        self.num_classes = num_classes
        self.features = features
        self.linear = nn.Linear(features, num_classes)

    def forward(self, features, lengths):
        return self.linear(features.flatten(1, 2).sum(-1) / lengths[:, None])


@settings(deadline=None, max_examples=50)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_posteriors_are_averaged_over_each_utterance(counts, seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(3), sum(counts)).astype(np.float32)
    utterances = generator.permutation(len(counts))
    positions = torch.from_numpy(np.repeat(utterances, counts))
    found, targets, order = by_utterance(torch.from_numpy(probabilities), positions % 3, positions)
    assert order.tolist() == utterances.tolist()
    assert targets.tolist() == (utterances % 3).tolist()
    for row, position in zip(found.numpy(), utterances, strict=True):
        np.testing.assert_allclose(row, probabilities[positions.numpy() == position].mean(axis=0), rtol=1e-5)


def test_the_largest_posterior_of_an_utterances_segments():
    values = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    found, _, order = by_utterance(values, torch.zeros(3), torch.tensor([5, 5, 2]), "max")
    assert order.tolist() == [5, 2]
    assert torch.equal(found, torch.tensor([[0.9, 0.6], [0.2, 0.8]]))


@pytest.fixture
def fitted(tiny, make_trainer):
    seed_everything(4)
    corpus = tiny(preprocess=DIVIDED, batch_size=3)
    task = EmotionClassifier(Mean(), corpus.labels, partial(torch.optim.Adam, lr=0.05))
    make_trainer(3, num_sanity_val_steps=0, log_every_n_steps=1).fit(task, corpus)
    return task.eval(), corpus


def expected_posteriors(task, corpus, position):
    """Return the mean of the softmax of each segment's logits, computed one by one in NumPy."""
    rows = []
    for segment in segments_of(corpus, position):
        standard = (segment.numpy() - task.feature_mean.numpy()) / task.feature_sigma.numpy()
        weight, bias = (value.detach().numpy() for value in (task.net.linear.weight, task.net.linear.bias))
        logits = weight @ standard.reshape(16, -1).mean(axis=-1) + bias
        rows.append(np.exp(logits) / np.exp(logits).sum())
    return np.mean(rows, axis=0), np.array(rows)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
@pytest.mark.parametrize("partition", ["val", "test"])
def test_an_utterances_score_is_that_of_the_mean_of_its_segments(fitted, make_trainer, tmp_path, partition):
    task, corpus = fitted
    trainer = make_trainer(1, callbacks=[RunRecorder(RunFolder(tmp_path / "runs", "run"))])
    verb = {"val": trainer.validate, "test": trainer.test}[partition]
    (scores,) = verb(task, corpus, verbose=False)
    positions = corpus.split[partition]
    expected = [expected_posteriors(task, corpus, position) for position in positions]
    means = np.array([mean for mean, _ in expected])
    truth = np.array([corpus.labels.index(corpus.table[position].emotion) for position in positions])
    said = means.argmax(axis=1)
    assert scores[f"{partition}/uar"] == pytest.approx(balanced_accuracy_score(truth, said))
    assert scores[f"{partition}/wa"] == pytest.approx((truth == said).mean())
    assert scores[f"{partition}/macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert max(np.ptp(rows[:, 0]) for _, rows in expected) > 0.01  # segments differ, so that their mean is something
    if partition == "test":
        with (tmp_path / "runs/run/predictions.csv").open() as file:
            written = list(csv.DictReader(file))
        assert [row["file"] for row in written] == [corpus.table[position].path.name for position in positions]
        stated = np.array([[float(row[f"p_{label}"]) for label in corpus.labels] for row in written])
        np.testing.assert_allclose(stated, means, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_every_utterance_is_predicted_once(fitted, make_trainer):
    task, corpus = fitted
    parts = make_trainer(1).predict(task, corpus)
    positions, probabilities = (torch.cat(part) for part in zip(*parts, strict=True))
    assert positions.tolist() == list(range(16))
    for position, row in zip(positions.tolist(), probabilities.numpy(), strict=True):
        np.testing.assert_allclose(row, expected_posteriors(task, corpus, position)[0], atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_the_largest_of_its_segments_posteriors_may_be_an_utterances_score(fitted, make_trainer):
    task, corpus = fitted
    task.segment_scores = "max"
    parts = make_trainer(1).predict(task, corpus)
    positions, probabilities = (torch.cat(part) for part in zip(*parts, strict=True))
    largest = np.array([expected_posteriors(task, corpus, position)[1].max(axis=0) for position in positions.tolist()])
    np.testing.assert_allclose(probabilities.numpy(), largest / largest.sum(axis=1, keepdims=True), atol=1e-5)
    assert probabilities.sum(dim=1).allclose(torch.ones(16))
    (scores,) = make_trainer(1).test(task, corpus, verbose=False)
    truth = [corpus.labels.index(corpus.table[position].emotion) for position in corpus.split.test]
    assert scores["test/uar"] == pytest.approx(
        balanced_accuracy_score(truth, largest[list(corpus.split.test)].argmax(axis=1))
    )


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_every_utterance_counts_once_in_the_validation_loss(fitted, make_trainer):
    """However many segments it has: the mean over utterances of the mean cross-entropy of their segments."""
    task, corpus = fitted
    (scores,) = make_trainer(1).validate(task, corpus, verbose=False)
    losses = []
    for position in corpus.split.val:
        _, rows = expected_posteriors(task, corpus, position)
        losses.append(-np.log(rows[:, corpus.labels.index(corpus.table[position].emotion)]).mean())
    assert scores["val/loss"] == pytest.approx(np.mean(losses), rel=1e-4)


# -- partitions --

SPLIT = Split(train=(0, 1), val=(2,), test=(3,))


def items(*rows):
    """Return items from (position, first row, number of rows, copy) each."""
    return Items(*np.array(rows, np.int64).reshape(-1, 4).T)


SOUND = {
    "train": items((0, 0, 1, 0), (0, 1, 1, 0), (0, 8, 1, 1), (1, 2, 1, 0), (1, 9, 1, 1)),
    "val": items((2, 3, 2, 0)),
    "test": items((3, 5, 3, 0)),
}


def test_sides_of_which_none_holds_anothers_are_let_pass():
    check_rows(SOUND, SPLIT)


@pytest.mark.parametrize(
    ("partition", "held", "message"),
    [
        ("val", items((2, 3, 2, 0), (2, 10, 1, 1)), "val holds 1 augmented copies; only train may"),
        ("test", items((3, 5, 3, 2)), "test holds 1 augmented copies; only train may"),
        ("val", items((2, 3, 1, 0), (0, 4, 1, 0)), "val holds copies or segments of 1 utterances of another partition"),
        (
            "train",
            items((0, 0, 1, 0), (2, 10, 1, 1)),
            "train holds copies or segments of 1 utterances of another partition",
        ),
        (
            "train",
            items((2, 3, 1, 0), (3, 5, 1, 0)),
            "train holds copies or segments of 2 utterances of another partition",
        ),
        ("val", items((2, 2, 3, 0)), "val and train share 1 rows of the feature cache"),
        ("test", items((3, 7, 3, 0)), "test and train share 2 rows of the feature cache"),
    ],
)
def test_what_is_in_another_partition_than_its_source_stops_the_run(partition, held, message):
    with pytest.raises(UserError, match=message):
        check_rows({**SOUND, partition: held}, SPLIT)


def test_the_rows_of_items_are_consecutive_from_their_first():
    some = items((0, 5, 2, 0), (1, 0, 1, 0), (2, 9, 3, 0))
    assert some.rows().tolist() == [5, 6, 0, 9, 10, 11]
    assert some.rows(np.array([2, 0])).tolist() == [9, 10, 11, 5, 6]
    assert items().rows().tolist() == []


def test_every_fit_is_held_against_its_split(tiny, monkeypatch):
    corpus = tiny(preprocess=DIVIDED, augment=Augment(copies=[PeakNoise(p=1.0)]))
    corpus.prepare_data()
    corpus.setup("fit")
    sound = SpeechCorpus._items
    leak = {"val": "train", "train": "train", "test": "test"}  # as a slip of the pen would
    monkeypatch.setattr(SpeechCorpus, "_items", lambda self, partition: sound(self, leak[partition]))
    for stage in ("fit", "validate", "test"):
        with pytest.raises(UserError, match="val holds copies or segments of 8 utterances of another partition"):
            corpus.setup(stage)
