import pytest
import torch
from torch.nn import functional

from ser.errors import UserError
from ser.models import DyCNN
from ser.models.dycnn import DynamicConv


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
    DyCNN(annealing=0.0, dynamic=False).on_step(0, 1000)


@pytest.mark.parametrize("kwargs", [{"initial_temperature": 0.5}, {"annealing": 1.5}])
def test_refuses_annealing(kwargs: dict) -> None:
    with pytest.raises(UserError, match="must be at least 1, the latter a share"):
        DyCNN(**kwargs)
