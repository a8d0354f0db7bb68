from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from ser.errors import UserError
from ser.models.convolutions import Conv, ConvBlock, ConvStack
from ser.models.layers import BatchNorm, Dropout, silence_padding


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel", [(3, 5), (2, 2), (1, 8)])
def test_same_padding_puts_the_smaller_half_first_as_torch_and_keras_do(kernel: tuple[int, int]) -> None:
    conv = Conv(2, 3, kernel)
    images = torch.randn(2, 2, 6, 11)
    expected = functional.conv2d(images, conv.weight, conv.bias, padding="same")
    torch.testing.assert_close(conv(images), expected)


@pytest.mark.parametrize(
    ("samples", "kernel", "left", "right"),
    [(48000, 400, 120, 120), (48000, 240, 40, 40), (48000, 1600, 720, 720), (48001, 240, 119, 120), (3, 1, 0, 0)],
)
def test_same_padding_with_a_stride(samples: int, kernel: int, left: int, right: int) -> None:
    """Keras pads so that there is one output per stride begun (systems, sections 1.2 and 3.5)."""
    conv = Conv(1, 1, (1, kernel), stride=160)
    signals = torch.randn(1, 1, 1, samples)
    expected = functional.conv2d(functional.pad(signals, (left, right)), conv.weight, conv.bias, stride=(1, 160))
    assert expected.shape[-1] == -(-samples // 160)
    torch.testing.assert_close(conv(signals), expected)


def test_conv_is_initialised_as_in_keras() -> None:
    conv = Conv(4, 8, (3, 5))
    limit = (6 / (15 * (4 + 8))) ** 0.5
    assert 0.9 * limit < conv.weight.abs().max() <= limit
    assert not conv.bias.any()


@pytest.mark.parametrize(
    ("block", "shape", "lengths"),
    [
        (ConvBlock(Conv(2, 3, (3, 3)), pool=(2, 4)), (3, 4, 4), [1, 1, 2, 4]),
        (ConvBlock(Conv(2, 3, (2, 2), same=False), pool=(1, 2)), (3, 7, 8), [1, 2, 4, 8]),
        (ConvBlock(Conv(2, 3, (1, 5), stride=3)), (3, 8, 6), [1, 2, 3, 6]),
        (ConvBlock(Conv(2, 3, (2, 2), stride=3, same=False)), (3, 7, 6), [1, 1, 3, 6]),
    ],
)
def test_block_shrinks_images_and_lengths(block: ConvBlock, shape: tuple[int, int, int], lengths: list[int]) -> None:
    images, left = block(torch.randn(4, 2, 8, 18), torch.tensor([1, 4, 8, 18]))
    assert images.shape[1:] == block.output_shape(8, 18) == shape
    assert left.tolist() == lengths
    assert all(not image[..., length:].any() for image, length in zip(images, lengths, strict=True))
    whole, none = block(torch.randn(4, 2, 8, 18))
    assert none is None
    assert whole[..., -1].any()


@pytest.mark.parametrize("norm", ["before", "after", "none"])
@pytest.mark.parametrize("activation", ["relu", "elu", "leaky_relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_block_computes_of_a_padded_utterance_what_it_does_of_the_utterance_alone(
    norm: Any, activation: Any, dtype: torch.dtype
) -> None:
    """Neither padding nor what bias and batch norm make of it gets into a pooling window that is partly valid."""
    block = ConvBlock(Conv(2, 3, (3, 3)), activation, norm=norm, pool=(2, 4))
    for parameter in block.parameters():
        nn.init.uniform_(parameter, -2, 2)
    block.conv.bias.data.add_(5)  # so that padding comes out of the convolution larger than speech
    block.eval().to(dtype)
    images = torch.randn(6, 2, 8, 18, dtype=dtype)
    lengths = torch.tensor([1, 3, 4, 5, 8, 17])
    images = silence_padding(images, lengths).requires_grad_()
    output, left = block(images, lengths)
    assert output.dtype == dtype
    output.square().sum().backward()
    assert images.grad.isfinite().all()
    for image, length, padded, valid in zip(images, lengths, output, left, strict=True):
        alone = block.conv(image[None, :, :, :length])
        for layer in block.layers:
            if isinstance(layer, nn.MaxPool2d):  # the last window is as long as what is left
                alone = functional.max_pool2d(alone, (2, 4), ceil_mode=True)[..., : images.shape[-1] // 4]
            else:
                alone = layer(alone)
        torch.testing.assert_close(padded[..., :valid], alone[0])


def test_block_orders_its_layers() -> None:
    conv = Conv(1, 2, (3, 3))

    def order(**kwargs: Any) -> list[type[nn.Module]]:
        return [type(layer) for layer in ConvBlock(conv, "elu", **kwargs).layers]

    norm, act, pool = BatchNorm, nn.ELU, nn.MaxPool2d
    assert order() == [norm, act]
    assert order(norm="none") == [act]
    assert order(norm="after", pool=(2, 2)) == [act, norm, pool]
    assert order(dropout=0.1, pool=(2, 2)) == [norm, act, Dropout, pool]
    assert order(pool=(2, 2)) == [norm, pool, act]  # the same as [norm, act, pool], see below
    assert ConvBlock(conv, "leaky_relu").layers[1].negative_slope == 0.01
    with pytest.raises(UserError, match="activation is 'tanh'; choose one of relu, elu, leaky_relu"):
        ConvBlock(conv, "tanh")


@pytest.mark.parametrize(
    ("name", "activation"), [("relu", functional.relu), ("elu", functional.elu), ("leaky_relu", functional.leaky_relu)]
)
def test_pooling_first_is_pooling_last(name: str, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    block = ConvBlock(Conv(2, 3, (3, 3)), name, pool=(2, 2))
    images = torch.randn(4, 2, 8, 18)
    expected = functional.max_pool2d(activation(block.layers[0](block.conv(images))), 2)
    weights = torch.randn_like(expected)
    gradients = []
    for outputs in (block(images)[0], expected):
        gradients.append(torch.autograd.grad((outputs * weights).sum(), block.conv.weight))
        torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(*gradients)


def test_stack_says_where_nothing_is_left() -> None:
    blocks = [ConvBlock(Conv(1, 1, (3, 3)), pool=(2, 4)) for _ in range(3)]
    assert ConvStack("Net", (1, 8, 70), blocks).output_shape == (1, 1, 1)
    with pytest.raises(
        UserError,
        match=r"Net got .*\(1, 8, 60\), which are too small: convolution block 3 of 3 would leave 1 bins and 0",
    ):
        ConvStack("Net", (1, 8, 60), blocks)
