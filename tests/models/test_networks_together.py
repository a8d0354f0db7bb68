"""What holds for every network that several processes train together."""

from pathlib import Path

import pytest
import torch
from test_networks import SMALL, batch_for, twin_of
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

Learnt = dict[tuple[str, bool], dict[str, Tensor]]  # by network and precision


def trained(name: str, items: slice, *, together: bool, half_precision: bool = False) -> dict[str, Tensor]:
    """Train a network for two steps on a part of a batch, and return what it has learnt."""
    torch.manual_seed(0)
    build, kwargs, _ = SMALL[name]
    net = twin_of(build(num_classes=3, **kwargs), dropout=0.0)
    for module in net.modules():
        if hasattr(module, "p"):  # dropout that is no option
            module.p = 0.0
    features, lengths = (torch.cat([part, part.flip(0)])[:4] for part in batch_for(net))
    features = features + torch.arange(4).view(4, *[1] * (features.dim() - 1)) * (features != 0)  # unlike statistics
    targets = torch.tensor([0, 1, 2, 0])
    model: nn.Module = DistributedDataParallel(net) if together else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision):
            logits = model(features[items], lengths[items])
        functional.cross_entropy(logits.float(), targets[items]).backward()
        optimizer.step()
    return net.state_dict()


def train_a_half(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # Of unlike lengths, so that one process's statistics are not the other's.
    learnt = {
        (name, half_precision): trained(name, slice(rank, None, 2), together=True, half_precision=half_precision)
        for name in SMALL
        for half_precision in (False, True)
    }
    torch.save(learnt, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[Learnt]:
    folder = tmp_path_factory.mktemp("together")
    torch.multiprocessing.spawn(train_a_half, args=(folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_two_processes_learn_what_one_learns(name: str, halves: list[Learnt]) -> None:
    """Weights and, synchronised, the running statistics of batch norms."""
    alone = trained(name, slice(None), together=False)
    for half in halves:
        assert half[name, False].keys() == alone.keys()
        for key, value in alone.items():
            assert torch.allclose(half[name, False][key], value, rtol=1e-3, atol=1e-4), key


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_two_processes_learn_the_same_in_bfloat16(name: str, halves: list[Learnt]) -> None:
    ours, others = (half[name, True] for half in halves)
    assert all(value.isfinite().all() for value in ours.values())
    assert [key for key, value in ours.items() if not torch.equal(value, others[key])] == []
    assert any(not torch.allclose(value, halves[0][name, False][key], atol=1e-6) for key, value in ours.items())
