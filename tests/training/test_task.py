"""The task around any network, held against scikit-learn, NumPy and itself."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from audiomentations import PitchShift
from lightning.pytorch import seed_everything
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.utils.data import DataLoader

from ser.corpora import Synthetic
from ser.data import Augment, LogMel, PeakNoise, Preprocess
from ser.data.loaders import FILLER, Batch, EvalSampler
from ser.errors import UserError
from ser.models import CoRNN, DyCNN
from ser.models.layers import BatchNorm
from ser.training.schedules import InverseTimeDecay
from ser.training.task import EmotionClassifier
from tests.conftest import Mean


class Dropped(Mean):
    """One whose training depends on random numbers."""

    def __init__(self):
        super().__init__(2, (2, 8, 300))

    def forward(self, features, lengths):
        return super().forward(nn.functional.dropout(features, 0.3, self.training), lengths)


@pytest.fixture
def data(cache):
    return Synthetic(features=LogMel(), cache_dir=cache, batch_size=40)


@pytest.fixture
def trainer(make_trainer):
    return make_trainer(2, num_sanity_val_steps=0)


def test_scores_of_a_fit_agree_with_scikit_learn(data, trainer):
    seed_everything(3)
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, partial(torch.optim.Adam, lr=0.01))
    trainer.fit(task, data)
    (scores,) = trainer.test(task, data, verbose=False)
    predicted = trainer.predict(task, data)
    positions, probabilities = (torch.cat(parts) for parts in zip(*predicted, strict=True))
    answers = dict(zip(positions.tolist(), probabilities.argmax(1).tolist(), strict=True))
    truth = [data.labels.index(data.table[i].emotion) for i in data.split.test]
    test = [answers[i] for i in data.split.test]
    assert scores["test/uar"] == pytest.approx(balanced_accuracy_score(truth, test))
    assert scores["test/wa"] == pytest.approx(np.mean(np.equal(truth, test)))
    assert scores["test/macro_f1"] == pytest.approx(f1_score(truth, test, average="macro"))


def test_a_process_without_an_utterance_takes_part_and_counts_none(data, trainer):
    """With more processes than utterances; otherwise the others would wait for it for ever."""
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, normalize="none")
    data.prepare_data()
    spoken = data.test_dataloader().dataset
    everything = spoken.__getitems__(list(range(24)))
    shares = [list(EvalSampler(spoken, 26, rank)) for rank in range(26)]
    assert shares == [[item] for item in range(24)] + [[FILLER]] * 2
    batches = [spoken.__getitems__(share) for share in shares]
    scores = [
        trainer.test(task, DataLoader(held, batch_size=None), verbose=False)[0]
        for held in ([everything], batches, batches[::-1])
    ]
    assert scores[0] == pytest.approx(scores[1])
    assert scores[0] == pytest.approx(scores[2])
    outputs = trainer.predict(task, DataLoader(batches, batch_size=None))
    assert torch.cat([positions for positions, _ in outputs]).tolist() == everything.positions.tolist()


def test_statistics_are_those_of_the_training_split(data, trainer):
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels)
    trainer.fit(task, data)
    frames = []
    for i in data.split.train:
        frames.append(data.front_end(data.table[i].path).numpy())
    valid = np.concatenate(frames, axis=-1)
    np.testing.assert_allclose(task.feature_mean[..., 0], valid.mean(-1), atol=1e-4)
    np.testing.assert_allclose(task.feature_sigma[..., 0], valid.std(-1), rtol=1e-4)


class Keep(nn.Module):
    """Keeps what a network is given."""

    def forward(self, features, lengths):
        self.seen = features
        return torch.zeros(len(features), 2)


@pytest.mark.parametrize("pad_before_norm", [False, True])
def test_padding_is_zero_after_standardisation(pad_before_norm):
    net = Keep()
    task = EmotionClassifier(net, ["a", "b"], pad_before_norm=pad_before_norm)
    task.feature_mean, task.feature_sigma = torch.full((1, 3, 1), 2.0), torch.full((1, 3, 1), 4.0)
    features = torch.full((2, 1, 3, 5), 6.0)
    features[0, ..., 3:] = 0
    task(features, torch.tensor([3, 5]))
    assert (net.seen[0, ..., :3] == 1).all()
    assert (net.seen[1] == 1).all()
    assert (net.seen[0, ..., 3:] == (-0.5 if pad_before_norm else 0)).all()


def test_a_constant_feature_stays_finite():
    net = Keep()
    task = EmotionClassifier(net, ["a", "b"])
    task.feature_mean, task.feature_sigma = torch.full((1, 3, 1), 2.0), torch.zeros(1, 3, 1)
    task(torch.full((1, 1, 3, 5), 2.0), torch.tensor([5]))
    assert (net.seen == 0).all()


@pytest.mark.parametrize("pad_before_norm", [False, True])
def test_normalisation_per_utterance_is_over_its_valid_frames(pad_before_norm):
    net = Keep()
    task = EmotionClassifier(net, ["a", "b"], normalize="utterance", pad_before_norm=pad_before_norm)
    features = torch.randn(2, 1, 3, 7) * 5 + 2
    features[0, ..., 4:] = 0
    task(features, torch.tensor([4, 7]))
    for utterance, length in enumerate((4, 7)):
        valid = features[utterance, ..., :length].numpy()
        mean, sigma = valid.mean(-1, keepdims=True), valid.std(-1, keepdims=True)
        np.testing.assert_allclose(net.seen[utterance, ..., :length], (valid - mean) / sigma, atol=1e-5)
        padding = -mean / sigma if pad_before_norm else 0 * mean
        np.testing.assert_allclose(net.seen[utterance, ..., length:], padding.repeat(7 - length, -1), atol=1e-5)


def test_a_constant_utterance_stays_finite():
    net = Keep()
    EmotionClassifier(net, ["a", "b"], normalize="utterance")(torch.full((1, 1, 3, 5), 2.0), torch.tensor([5]))
    assert (net.seen == 0).all()


def test_sign_and_none(data, trainer):
    features = torch.tensor([-3.0, 0.0, 0.5, 9.0]).reshape(1, 1, 2, 2)
    for normalize, expected in (("sign", [-1, 0, 1, 1]), ("none", [-3, 0, 0.5, 9])):
        net = Keep()
        EmotionClassifier(net, ["a", "b"], normalize=normalize)(features, torch.tensor([2]))
        assert net.seen.flatten().tolist() == expected
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, normalize="sign")
    trainer.fit(task, data)
    assert task.feature_mean == 0  # no statistics are taken
    net = task.net = Keep()
    batch = next(iter(data.val_dataloader()))
    task(batch.features, batch.lengths)
    assert set(net.seen.unique().tolist()) == {-1.0, 0.0, 1.0}


def test_global_statistics_are_those_of_all_features(data, trainer):
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, normalize="global")
    trainer.fit(task, data)
    valid = np.concatenate([data.front_end(data.table[i].path).numpy().ravel() for i in data.split.train])
    assert task.feature_mean.item() == pytest.approx(valid.mean(dtype=float), rel=1e-4)
    assert task.feature_sigma.item() == pytest.approx(valid.std(dtype=float), rel=1e-4)


def test_pixels_have_statistics_of_their_own(data, trainer, cache):
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, normalize="pixel")
    with pytest.raises(UserError, match=r"needs all frames of every utterance: give --data\.pre"):
        trainer.fit(task, data)
    padded = Synthetic(preprocess=Preprocess(pad_waveform=True), features=LogMel(), cache_dir=cache, batch_size=40)
    trainer.fit(task, padded)
    utterances = np.stack([padded.front_end(padded.table[i].path).numpy() for i in padded.split.train])
    frames = utterances.shape[-1]  # of all of them; what is behind is padding
    np.testing.assert_allclose(task.feature_mean[..., :frames], utterances.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(task.feature_sigma[..., :frames], utterances.std(axis=0), atol=1e-3)
    net = task.net = Keep()
    batch = next(iter(padded.val_dataloader()))
    task(batch.features, batch.lengths)
    wanted = (batch.features - task.feature_mean) / task.feature_sigma.clamp_min(1e-6)
    torch.testing.assert_close(net.seen, wanted)
    assert not net.seen[..., frames:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "zscore"}, "normalize is 'zscore'; choose one of bin, global, pixel, utterance, sign, none"),
        ({"segment_scores": "median"}, "segment_scores is 'median'; choose one of mean, max"),
    ],
)
def test_unknown_choices_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        EmotionClassifier(Keep(), ["a", "b"], **options)


def test_batches_of_many_lengths_are_an_error_for_a_network_that_cannot_take_them(cache, trainer):
    data = Synthetic(padding="batch", cache_dir=cache)
    task = EmotionClassifier(DyCNN(data.num_classes, data.feature_shape), data.labels)
    with pytest.raises(UserError, match="padding is 'batch', but DyCNN takes clips of one length only"):
        trainer.fit(task, data)


@pytest.mark.parametrize("normalize", ["sign", "utterance", "global"])
def test_a_checkpoint_normalises_as_it_was_trained(data, trainer, tmp_path, normalize):
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, normalize=normalize)
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    other = EmotionClassifier(Mean(4, data.feature_shape), data.labels)  # as a verb may make it, with defaults
    checkpoint = torch.load(tmp_path / "task.ckpt", weights_only=True)
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    # A network of one's own is passed: a checkpoint must not decide which code runs.
    again = EmotionClassifier.load_from_checkpoint(tmp_path / "task.ckpt", net=Mean(4, data.feature_shape))
    batch = next(iter(data.val_dataloader()))
    with torch.inference_mode():
        expected = task.eval()(batch.features, batch.lengths)
        assert torch.equal(expected, again.eval()(batch.features, batch.lengths))
        assert torch.equal(expected, other.eval()(batch.features, batch.lengths))


class Three(Synthetic):
    """Fewer of one emotion, none of another, in training only."""

    @property
    def split(self):
        split = super().split
        kept = [i for i in split.train if self.table[i].emotion != "sadness"]
        few = [i for i in kept if self.table[i].emotion == "anger"][10:]
        return replace(split, train=tuple(i for i in kept if i not in few))


def test_class_weights_are_balanced_on_the_training_split(cache, trainer, tmp_path):
    data = Three(features=LogMel(), cache_dir=cache, batch_size=40)
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, class_weights="balanced")
    trainer.fit(task, data)
    emotions = [data.table[i].emotion for i in data.split.train]
    present = sorted(set(emotions))
    assert len(present) == 3
    expected = compute_class_weight("balanced", classes=np.array(present), y=emotions)
    weights = dict(zip(data.labels, task.emotion_weights.tolist(), strict=True))
    assert [weights[emotion] for emotion in present] == pytest.approx(expected)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    again = EmotionClassifier.load_from_checkpoint(tmp_path / "task.ckpt", net=Mean(4, data.feature_shape))
    assert torch.equal(again.emotion_weights, task.emotion_weights)


def test_class_weights_act_on_the_training_loss_only(monkeypatch):
    class Fixed(Keep):
        def forward(self, features, lengths):
            return torch.tensor([[2.0, 0.0], [2.0, 0.0]])

    task = EmotionClassifier(Fixed(), ["a", "b"])
    monkeypatch.setattr(task, "log", lambda *args, **kwargs: None)
    task.emotion_weights = torch.tensor([0.5, 3.0])
    batch = Batch(torch.zeros(2, 1, 3, 5), torch.tensor([5, 5]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    right, wrong = np.log(1 + np.exp(-2)), np.log(1 + np.exp(2))
    assert task.training_step(batch, 0).item() == pytest.approx((0.5 * right + 3 * wrong) / 2)
    assert task.validation_step(batch, 0)["loss"].item() == pytest.approx((right + wrong) / 2)


def test_a_python_checkpoint_reloads_by_itself(data, trainer, tmp_path):
    task = EmotionClassifier(CoRNN(4, data.feature_shape, lstm_hidden=8), data.labels, partial(torch.optim.SGD, lr=0.1))
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    torch.load(tmp_path / "task.ckpt", weights_only=True)  # plain data: safe to load from anybody
    again = EmotionClassifier.load_from_checkpoint(tmp_path / "task.ckpt")
    assert again.emotions == data.labels
    assert again.front_end == data.front_end.description()
    batch: Batch = next(iter(data.val_dataloader()))
    with torch.inference_mode():
        assert torch.equal(task.eval()(batch.features, batch.lengths), again.eval()(batch.features, batch.lengths))


def test_a_checkpoint_of_other_emotions_or_another_network_is_an_error(data, trainer, tmp_path):
    trainer.fit(EmotionClassifier(Mean(4, data.feature_shape), data.labels), data)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    checkpoint = torch.load(tmp_path / "task.ckpt", weights_only=True)
    with pytest.raises(UserError, match="recognises anger, happiness, neutral, sadness"):
        EmotionClassifier(Mean(4), ["sadness", "anger", "happiness", "neutral"]).on_load_checkpoint(checkpoint)
    with pytest.raises(UserError, match="another network"):
        EmotionClassifier(Mean(4, (1, 13, 300)), data.labels).on_load_checkpoint(checkpoint)


@pytest.mark.parametrize(("asked", "devices"), [(True, 2), (False, 2), (True, 1)])
def test_batch_norms_are_synchronised_where_the_trainer_is_asked_to(make_trainer, asked, devices):
    task = EmotionClassifier(nn.Sequential(CoRNN(2, (3, 8, 100)), BatchNorm(2)), ["a", "b"])
    task.trainer = make_trainer(1, devices=devices, strategy="ddp", sync_batchnorm=asked)
    task.setup("fit")
    found = {type(m).__name__: m.synchronised for m in task.modules() if hasattr(m, "synchronised")}
    assert found == dict.fromkeys(("BatchNorm", "MaskedBatchNorm"), asked and devices > 1)


def test_a_schedule_that_watches_validation(data, trainer):
    def plateau(optimizer):
        from lightning.pytorch.cli import ReduceLROnPlateau

        return ReduceLROnPlateau(optimizer, monitor="val/loss", factor=0.1, patience=0, threshold=1e9)

    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, partial(torch.optim.SGD, lr=1.0), plateau)
    trainer.fit(task, data)
    assert task.optimizers().param_groups[0]["lr"] == pytest.approx(0.01)  # from 1, after each of two epochs


@pytest.mark.parametrize(("interval", "steps"), [("step", 8), ("epoch", 2)])
def test_the_legacy_decay_of_keras(data, trainer, interval, steps):
    """As in the specification: lr after t steps = lr0 / (1 + d t)."""
    task = EmotionClassifier(
        Mean(4, data.feature_shape),
        data.labels,
        partial(torch.optim.SGD, lr=0.5),
        partial(InverseTimeDecay, decay=0.1),
        lr_scheduler_interval=interval,
    )
    trainer.fit(task, data)
    assert trainer.global_step == 8  # 2 epochs of 144 utterances, 40 at a time
    assert task.optimizers().param_groups[0]["lr"] == pytest.approx(0.5 / (1 + 0.1 * steps))


def test_the_decay_continues_where_it_was_saved():
    def make():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)
        return optimizer, InverseTimeDecay(optimizer, decay=1e-6)

    optimizer, schedule = make()
    assert optimizer.param_groups[0]["lr"] == 2.0
    for t in range(1, 1001):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2 / (1 + 1e-6 * t), rel=1e-12)
    other, continued = make()
    other.load_state_dict(optimizer.state_dict())
    continued.load_state_dict(schedule.state_dict())
    other.step()
    continued.step()
    assert other.param_groups[0]["lr"] == pytest.approx(2 / (1 + 1e-6 * 1001), rel=1e-12)
    with pytest.raises(UserError, match="decay is -1; it must be 0 or positive"):
        InverseTimeDecay(optimizer, decay=-1)


def test_the_same_seed_gives_the_same_weights(data, make_trainer):
    weights = []
    for _ in range(2):
        seed_everything(5)
        task = EmotionClassifier(CoRNN(4, data.feature_shape, lstm_hidden=8), data.labels)
        make_trainer(1).fit(task, data)
        weights.append(torch.cat([parameter.flatten() for parameter in task.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("online", "workers"), [([], 2), ([PitchShift(-2.0, 2.0, p=0.7), PeakNoise(p=1.0)], 0), ([PeakNoise(p=1.0)], 2)]
)
def test_a_resumed_fit_equals_an_uninterrupted_one(tiny, make_trainer, tmp_path, online, workers):
    augment, root = Augment(online=online), tiny().root

    def weights(epochs, **resumed):
        seed_everything(5)
        corpus = tiny(root, augment=augment, batch_size=3, num_workers=workers, preprocess=Preprocess(duration_s=0.3))
        task = EmotionClassifier(Dropped(), corpus.labels, partial(torch.optim.Adam, lr=0.1))
        trainer = make_trainer(epochs, num_sanity_val_steps=0, log_every_n_steps=1)
        trainer.fit(task, corpus, weights_only=True, **resumed)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return torch.cat([parameter.detach().flatten() for parameter in task.parameters()])

    first = weights(1)
    resumed = weights(3, ckpt_path=tmp_path / "1.ckpt")
    whole = weights(3)
    assert torch.equal(resumed, whole)
    assert not torch.equal(first, whole)
