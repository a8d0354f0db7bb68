import pytest
import torch

from ser.models import TimeDistributedCNNLSTM


@pytest.mark.parametrize(
    ("coverage", "starts"),
    [("first", range(0, 90, 5)), ("uniform", range(0, 205, 12)), ("all", range(0, 215, 5))],
)
def test_time_distributed_blocks(coverage: str, starts: range) -> None:
    """Frame i is in block i // 5, column i % 5, of the first 90 frames; uniform blocks reach frame 208."""
    net = TimeDistributedCNNLSTM(coverage=coverage)
    blocks, hop = net.cut(torch.arange(219).expand(1, 1, 128, 219))
    assert hop == starts.step
    assert blocks.shape == (1, len(starts), 1, 128, 5)
    for block, start in zip(blocks[0, :, 0, 7], starts, strict=True):
        assert block.tolist() == list(range(start, start + 5))


def test_first_coverage_never_sees_the_rest() -> None:
    net = TimeDistributedCNNLSTM(coverage="first").eval()
    features, lengths = torch.randn(2, 1, 128, 219), torch.tensor([219, 200])
    logits = net(features, lengths)
    features[..., 90:] = 5.0
    torch.testing.assert_close(net(features, lengths), logits)
    features[..., 89] = 5.0
    assert not torch.allclose(net(features, lengths), logits)
