"""What holds for every network that several processes train together."""

from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
import torch
from test_networks import SMALL, twin_of
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ser.models.layers import silence_padding

Learnt = dict[tuple[str, bool], dict[str, Tensor]]  # by network and precision


def trained(
    name: str, items: slice, *, together: bool, half_precision: bool = False, steps: int = 2
) -> dict[str, Tensor]:
    """Train a network on a part of a batch, and return what it has learnt."""
    torch.manual_seed(0)
    build, kwargs, _ = SMALL[name]
    net = twin_of(build(num_classes=3, **kwargs), dropout=0.0)
    for module in net.modules():
        if hasattr(module, "p"):  # dropout that is no option
            module.p = 0.0
        if hasattr(module, "synchronised"):
            module.synchronised = together
    frames = net.feature_shape[-1]
    lengths = torch.tensor([frames, frames // 2, frames // 4 * 3, frames])
    loudness = torch.arange(1, 5).view(4, *[1] * len(net.feature_shape))  # so that the halves' statistics are not alike
    features = silence_padding(torch.randn(4, *net.feature_shape) * loudness, lengths)
    targets = torch.tensor([0, 1, 2, 0])
    model: nn.Module = DistributedDataParallel(net) if together else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision):
            logits = model(features[items], lengths[items])
        functional.cross_entropy(logits.float(), targets[items]).backward()
        optimizer.step()
    return net.state_dict()


def train_a_half(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    learnt = {
        (name, half_precision): trained(name, slice(rank, None, 2), together=True, half_precision=half_precision)
        for name in SMALL
        for half_precision in (False, True)
    }
    torch.save(learnt, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, starting: BaseContext) -> list[Learnt]:
    folder = tmp_path_factory.mktemp("together")
    method = starting.get_start_method()
    torch.multiprocessing.start_processes(train_a_half, args=(folder,), nprocs=2, start_method=method)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_two_processes_learn_what_one_learns(name: str, halves: list[Learnt]) -> None:
    """Weights and, synchronised, the running statistics of batch norms."""
    before, alone = (trained(name, slice(None), together=False, steps=steps) for steps in (0, 2))
    for half in halves:
        assert half[name, False].keys() == alone.keys()
        for key, value in alone.items():
            # Of single values, rounding decides which of two that are nearly equal is pooled.
            apart, learnt = ((value - other).double().norm() for other in (half[name, False][key], before[key]))
            assert apart <= 0.05 * learnt + 1e-5, key


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_two_processes_learn_the_same_in_bfloat16(name: str, halves: list[Learnt]) -> None:
    ours, others = (half[name, True] for half in halves)
    assert all(value.isfinite().all() for value in ours.values())
    assert [key for key, value in ours.items() if not torch.equal(value, others[key])] == []
    assert any(not torch.allclose(value, halves[0][name, False][key], atol=1e-6) for key, value in ours.items())
