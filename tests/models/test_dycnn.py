from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.nn import functional
from torch.utils.data import DataLoader

from ser.data.loaders import Batch
from ser.errors import UserError
from ser.models import DyCNN
from ser.models.dycnn import DynamicConv
from ser.training.task import EmotionClassifier


@pytest.fixture
def conv() -> DynamicConv:
    torch.manual_seed(0)
    return DynamicConv(3, 5, (3, 3), temperature=1.0)


IMAGES = torch.randn(4, 3, 6, 9, generator=torch.Generator().manual_seed(0))


def test_every_utterance_is_convolved_with_its_own_mixture(conv: DynamicConv) -> None:
    torch.nn.init.normal_(conv.bias)
    attention = conv.attention(IMAGES)
    torch.testing.assert_close(attention.sum(1), torch.ones(4))
    for image, share, result in zip(IMAGES, attention, conv(IMAGES), strict=True):
        mixed = sum(share[k] * functional.conv2d(image, conv.weight[k], conv.bias[k], padding=1) for k in range(4))
        torch.testing.assert_close(result, mixed)


def test_one_hot_attention_is_a_plain_convolution(conv: DynamicConv) -> None:
    torch.nn.init.zeros_(conv.scores[-1].weight)
    conv.scores[-1].bias.data = torch.tensor([0.0, 0.0, 100.0, 0.0])
    torch.testing.assert_close(conv(IMAGES), functional.conv2d(IMAGES, conv.weight[2], conv.bias[2], padding=1))


def test_identical_kernels_make_attention_irrelevant(conv: DynamicConv) -> None:
    conv.weight.data[:] = conv.weight.data[:1].clone()
    torch.testing.assert_close(conv(IMAGES), functional.conv2d(IMAGES, conv.weight[0], conv.bias[0], padding=1))


def test_gradients_reach_all_kernels(conv: DynamicConv) -> None:
    conv(IMAGES).square().sum().backward()
    assert conv.weight.grad.flatten(1).any(1).all()
    assert conv.bias.grad.any(1).all()
    assert all(weight.grad.any() for weight in conv.scores.parameters())


def test_high_temperature_is_near_uniform(conv: DynamicConv) -> None:
    torch.nn.init.normal_(conv.scores[-1].weight)
    assert (conv.attention(IMAGES) - 0.25).abs().max() > 0.01
    conv.temperature.fill_(1e4)
    torch.testing.assert_close(conv.attention(IMAGES), torch.full((4, 4), 0.25), atol=1e-3, rtol=0)


def test_attention_looks_at_valid_frames_only(conv: DynamicConv) -> None:
    padded = functional.pad(IMAGES, (0, 7))
    torch.testing.assert_close(conv.attention(padded, torch.full((4,), 9)), conv.attention(IMAGES))


def test_temperature_falls_linearly_to_one_and_is_saved() -> None:
    net = DyCNN(channels=(4, 4), feature_shape=(1, 8, 8), lstm_hidden=4)
    temperatures = lambda: {round(value.item(), 4) for name, value in net.state_dict().items() if "temperature" in name}  # noqa: E731
    assert temperatures() == {30.0}
    for step, expected in [(0, 30.0), (50, 15.5), (100, 1.0), (999, 1.0)]:
        net.on_step(step, 1000)
        assert temperatures() == {expected}
    net.on_step(100, 9000)  # resumed, to train longer
    assert temperatures() == {1.0}
    DyCNN(annealing=0.0, dynamic=False).on_step(0, 1000)


class Temperatures(Callback):
    """Keeps the temperature of every training batch, and the checkpoint of the first epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, task: EmotionClassifier, *_: object) -> None:
        self.seen += {round(value.item(), 4) for name, value in task.named_buffers() if "temperature" in name}

    def on_train_epoch_end(self, trainer: Trainer, task: EmotionClassifier) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(
    ("accumulate", "expected"),
    [(1, [31, 25, 19, 13, 7, *[1] * 5]), (2, [31, 31, 21, 21, 11, *[1] * 5])],  # 10 steps, or 6: 3 in every epoch
)
def test_temperature_follows_the_steps_of_the_optimiser_also_after_a_resumption(
    accumulate: int, expected: list[int], make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    batch = Batch(torch.randn(2, 1, 8, 8), torch.tensor([8, 5]), torch.tensor([0, 1]), torch.arange(2))
    loader = DataLoader([batch] * 5, batch_size=None)
    first, second = Temperatures(tmp_path / "first.ckpt"), Temperatures(tmp_path / "none.ckpt")
    for callback, checkpoint in ((first, None), (second, first.path)):
        net = DyCNN(2, (1, 8, 8), channels=(4, 4), lstm_hidden=4, initial_temperature=31, annealing=0.5)
        trainer = make_trainer(2, callbacks=[callback], accumulate_grad_batches=accumulate)
        trainer.fit(EmotionClassifier(net, ["a", "b"]), loader, ckpt_path=checkpoint)
    assert first.seen == expected
    assert second.seen == expected[5:]


@pytest.mark.parametrize("kwargs", [{"initial_temperature": 0.5}, {"annealing": 1.5}])
def test_rejects_annealing(kwargs: dict) -> None:
    with pytest.raises(UserError, match="must be at least 1, the latter a share"):
        DyCNN(**kwargs)
