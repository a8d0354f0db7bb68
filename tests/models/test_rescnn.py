import pytest
import torch
from torch import nn

from ser.models import ResCNN


@pytest.mark.parametrize("post_add", [False, True])
def test_residual_block_is_the_identity_without_its_second_convolution(post_add: bool) -> None:
    block = ResCNN(num_blocks=1, post_add=post_add).residual[0]
    nn.init.zeros_(block.second.weight)
    signals = torch.randn(2, 64, 1, 3).relu()  # what the trunk gives out is not negative
    assert torch.equal(block(signals)[0], signals)


def test_residual_block_grows_unless_the_relu_comes_last() -> None:
    signals = torch.randn(2, 64, 1, 3)
    literal = ResCNN(num_blocks=1).residual[0]
    assert (literal(signals)[0] >= signals).all()
    assert (ResCNN(num_blocks=1, post_add=True).residual[0](signals)[0] >= 0).all()


def test_spare_units_are_not_in_the_logits() -> None:
    net = ResCNN(num_classes=8, output_units=9, num_blocks=0).eval()
    net.classifier.bias.data[8:].fill_(50.0)
    logits = net(torch.randn(2, 1, 12, 216), torch.tensor([216, 216]))
    assert logits.shape == (2, 8)
    assert logits.max() < 50
