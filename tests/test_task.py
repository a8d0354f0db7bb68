"""The task around any network, held against scikit-learn, NumPy and itself."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import nn

from ser.corpora import Synthetic
from ser.data import LogMel
from ser.data.loaders import Batch
from ser.errors import UserError
from ser.models import CoRNN
from ser.task import EmotionClassifier


class Mean(nn.Module):
    """The simplest network: a linear layer on the mean of the valid frames."""

    def __init__(self, num_classes=4, feature_shape=(1, 40, 300)):
        super().__init__()
        self.num_classes = num_classes
        self.feature_shape = feature_shape
        self.linear = nn.Linear(feature_shape[0] * feature_shape[1], num_classes)

    def forward(self, features, lengths):
        return self.linear(features.flatten(1, 2).sum(-1) / lengths[:, None])


@pytest.fixture
def data(cache):
    return Synthetic(features=LogMel(), cache_dir=cache, batch_size=40)


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        max_epochs=2,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
    )


def test_scores_of_a_fit_agree_with_scikit_learn(data, trainer):
    seed_everything(3)
    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, partial(torch.optim.Adam, lr=0.01))
    trainer.fit(task, data)
    (scores,) = trainer.test(task, data, verbose=False)
    predicted = trainer.predict(task, data)
    positions, probabilities = (torch.cat(parts) for parts in zip(*predicted, strict=True))
    said = dict(zip(positions.tolist(), probabilities.argmax(1).tolist(), strict=True))
    truth = [data.labels.index(data.table[i].emotion) for i in data.split.test]
    test = [said[i] for i in data.split.test]
    assert scores["test/uar"] == pytest.approx(balanced_accuracy_score(truth, test))
    assert scores["test/wa"] == pytest.approx(np.mean(np.equal(truth, test)))
    assert scores["test/macro_f1"] == pytest.approx(f1_score(truth, test, average="macro"))


def test_statistics_are_those_of_the_training_side(data, trainer):
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


def test_a_checkpoint_of_other_emotions_or_another_network_is_refused(data, trainer, tmp_path):
    trainer.fit(EmotionClassifier(Mean(4, data.feature_shape), data.labels), data)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    checkpoint = torch.load(tmp_path / "task.ckpt", weights_only=True)
    with pytest.raises(UserError, match="recognises anger, happiness, neutral, sadness"):
        EmotionClassifier(Mean(4), ["sadness", "anger", "happiness", "neutral"]).on_load_checkpoint(checkpoint)
    with pytest.raises(UserError, match="another network"):
        EmotionClassifier(Mean(4, (1, 13, 300)), data.labels).on_load_checkpoint(checkpoint)


def test_a_schedule_that_watches_validation(data, trainer):
    def plateau(optimizer):
        from lightning.pytorch.cli import ReduceLROnPlateau

        return ReduceLROnPlateau(optimizer, monitor="val/loss", factor=0.1, patience=0, threshold=1e9)

    task = EmotionClassifier(Mean(4, data.feature_shape), data.labels, partial(torch.optim.SGD, lr=1.0), plateau)
    trainer.fit(task, data)
    assert task.optimizers().param_groups[0]["lr"] == pytest.approx(0.01)  # from 1, after each of two epochs


def test_the_same_seed_gives_the_same_weights(data, tmp_path):
    weights = []
    for _ in range(2):
        seed_everything(5)
        task = EmotionClassifier(CoRNN(4, data.feature_shape, lstm_hidden=8), data.labels)
        trainer = Trainer(
            max_epochs=1,
            logger=False,
            accelerator="cpu",
            enable_checkpointing=False,
            barebones=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(task, data)
        weights.append(torch.cat([parameter.flatten() for parameter in task.parameters()]))
    assert torch.equal(*weights)
