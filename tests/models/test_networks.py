"""What holds for every network."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import ser.models
from ser.data.loaders import Batch
from ser.errors import UserError
from ser.models import (
    ACRNN,
    CNN1dLSTM,
    CNN2dLSTM,
    CoRNN,
    CRNNmLFLB,
    DyCNN,
    RawCRNN,
    ResCNN,
    TimeDistributedCNNLSTM,
)
from ser.models.layers import valid_frames
from ser.training.task import EmotionClassifier

# As small as each network allows: class, arguments, and features that it must reject.
SMALL: dict[str, tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "CoRNN": (CoRNN, {"feature_shape": (3, 5, 24), "lstm_hidden": 32, "conv_kernel": 7, "dropout": 0.0}, (1, 48000)),
    "ACRNN": (ACRNN, {"feature_shape": (3, 8, 24)}, (3, 3, 24)),
    "ACRNN norm": (ACRNN, {"feature_shape": (1, 8, 24), "norm": "fc", "squash_attention": True}, (40, 300)),
    "RawCRNN": (RawCRNN, {"feature_shape": (1, 3200), "dropout": 0.0}, (3, 40, 300)),
    "CNN2dLSTM": (CNN2dLSTM, {"feature_shape": (1, 128, 128)}, (1, 128, 110)),
    "CNN1dLSTM": (CNN1dLSTM, {"feature_shape": (1, 2048)}, (1, 40, 300)),
    "TimeDistributedCNNLSTM": (TimeDistributedCNNLSTM, {"feature_shape": (1, 128, 40)}, (1, 16, 100)),
    "DyCNN": (DyCNN, {"feature_shape": (1, 16, 32)}, (1, 8, 300)),
    "CNN": (DyCNN, {"feature_shape": (1, 16, 32), "dynamic": False, "bidirectional": False}, (1, 48000)),
    "ResCNN": (ResCNN, {"feature_shape": (1, 12, 128), "num_blocks": 2, "dropout": 0.0}, (1, 12, 60)),
    "ResCNN mean": (ResCNN, {"feature_shape": (1, 12, 128), "num_blocks": 1, "pooling": "mean"}, (12,)),
    "CRNNmLFLB": (
        CRNNmLFLB,
        {"feature_shape": (1, 128, 32), "kernels": (5, 3, 3, 3), "pool_time": (2, 2, 2, 2)},
        (1, 64, 259),
    ),
}


@pytest.fixture(params=SMALL)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    build, kwargs, _ = SMALL[request.param]
    return build(num_classes=3, **kwargs)


def twin_of(net: nn.Module, **options: Any) -> nn.Module:
    """Build a network with the same arguments, but `options`, and weights of its own."""
    arguments = {name: getattr(net, name) for name in inspect.signature(type(net)).parameters}
    return type(net)(**arguments | {name: value for name, value in options.items() if name in arguments})


def batch_for(net: nn.Module) -> tuple[Tensor, Tensor]:
    num_frames = net.feature_shape[-1]
    lengths = torch.tensor([num_frames, num_frames // 2, 1])
    features = torch.randn(3, *net.feature_shape, generator=torch.Generator().manual_seed(0))
    valid = valid_frames(lengths, num_frames)
    return features * valid.view(3, *[1] * (features.dim() - 2), -1), lengths


def test_table_has_every_network() -> None:
    tested = {build for build, _, _ in SMALL.values()}
    assert tested == {getattr(ser.models, name) for name in ser.models.__all__}


def test_arguments_have_defaults_and_are_attributes(net: nn.Module) -> None:
    parameters = inspect.signature(type(net)).parameters
    assert list(parameters)[:2] == ["num_classes", "feature_shape"]
    assert all(parameter.default is not parameter.empty for parameter in parameters.values())
    twin_of(net).load_state_dict(net.state_dict())


def test_a_batch_gives_what_single_utterances_give(net: nn.Module) -> None:
    features, lengths = batch_for(net.eval())
    logits = net(features, lengths)
    for item in range(3):
        single = net(features[item : item + 1], lengths[item : item + 1])
        torch.testing.assert_close(single[0], logits[item], rtol=1e-4, atol=1e-5)


def test_what_padding_holds_does_not_matter(net: nn.Module) -> None:
    features, lengths = batch_for(net.eval())
    logits = net(features, lengths)
    padding = ~valid_frames(lengths, features.shape[-1]).view(3, *[1] * (features.dim() - 2), -1)
    torch.testing.assert_close(net(features.masked_fill(padding, torch.nan), lengths), logits)
    net.mask_padding = False
    assert not torch.allclose(net(features.masked_fill(padding, 1.0), lengths), logits)


def test_says_whether_it_takes_clips_of_any_length(net: nn.Module) -> None:
    """If so, its logits do not depend on the padding of a batch; otherwise they do, or it cannot compute any."""
    frames = net.feature_shape[-1]
    features = torch.randn(1, *net.feature_shape[:-1], frames + max(1, frames // 20))  # which fill no pooling window
    padded, lengths = functional.pad(features, (0, frames)), torch.tensor([features.shape[-1]])
    logits = net.eval()(features, lengths)
    if net.any_length:
        torch.testing.assert_close(net(padded, lengths), logits, rtol=1e-4, atol=1e-5)
        assert not twin_of(net, mask_padding=False).any_length
    elif getattr(net, "pooling", None) == "flatten":
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            net(padded, lengths)
    else:
        assert not torch.allclose(net(padded, lengths), logits, rtol=1e-4, atol=1e-5)


def test_learns_a_batch_by_heart_and_knows_it_outside_training(net: nn.Module) -> None:
    net = twin_of(net, norm_momentum=0.1)  # that of the configs
    features, lengths = batch_for(net)
    targets = torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(100):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net.train()(features, lengths), targets)
        loss.backward()
        if step == 0:
            weights = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
            assert [name for name, weight in weights.items() if weight.grad is None] == []
        optimizer.step()
        if loss < 0.05:  # then batch norm's running statistics have to keep up
            with torch.no_grad():
                known = functional.cross_entropy(net.eval()(features, lengths), targets)
            if known < 0.05:
                return
    pytest.fail(f"after 100 steps on one batch the loss is {loss.item():.2f}")


def test_trains_in_bfloat16(net: nn.Module) -> None:
    features, lengths = batch_for(net.eval())
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        expected = net(features, lengths)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(features, lengths)
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        functional.cross_entropy(net.train()(features, lengths).float(), torch.tensor([0, 1, 2])).backward()
    torch.optim.Adam(weights).step()
    assert all(weight.isfinite().all() for weight in weights)
    assert not all(torch.equal(*pair) for pair in zip(weights, before, strict=True))


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")  # torch's own LSTM
def test_exports(net: nn.Module) -> None:
    features, lengths = batch_for(net.eval())
    exported = torch.export.export(net, (features, lengths)).module()
    torch.testing.assert_close(exported(features.flip(0), lengths.flip(0)), net(features.flip(0), lengths.flip(0)))


class KeepFirst(Callback):
    """Keeps the checkpoint of the first epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, task: EmotionClassifier) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_resumes_bit_exactly(net: nn.Module, make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    """As if it had never stopped: weights, statistics, temperature; dropout draws the same masks."""
    seed_everything(1)
    features, lengths = batch_for(net)
    batch = Batch(features, lengths, torch.tensor([0, 1, 2]), torch.arange(3))
    loader = DataLoader([batch] * 2, batch_size=None)
    path = tmp_path / "first.ckpt"
    tasks = [EmotionClassifier(twin_of(net, dropout=0.3), ["a", "b", "c"]) for _ in range(2)]
    make_trainer(2, callbacks=[KeepFirst(path)]).fit(tasks[0], loader)
    trainer = make_trainer(2)
    trainer.fit(tasks[1], loader, ckpt_path=path)
    assert trainer.global_step == 4
    first, second = (task.state_dict() for task in tasks)
    before = torch.load(path, weights_only=True)["state_dict"]
    assert any(not torch.equal(value, before[name]) for name, value in first.items())
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


@pytest.mark.parametrize("name", SMALL)
def test_rejects_features_that_it_cannot_take(name: str) -> None:
    build, kwargs, wrong = SMALL[name]
    with pytest.raises(UserError, match=rf"{build.__name__} got features .*(it needs .*: choose|choose longer clips)"):
        build(**kwargs | {"feature_shape": wrong})


@pytest.mark.parametrize(
    ("build", "kwargs", "message"),
    [
        (ACRNN, {"norm": "conv"}, "norm is 'conv'; choose one of linear, fc"),
        (TimeDistributedCNNLSTM, {"coverage": "last"}, "coverage is 'last'; choose one of uniform, first, all"),
        (TimeDistributedCNNLSTM, {"coverage": "first", "num_blocks": 44}, "219 frames; .* needs at least 220"),
        (ResCNN, {"pooling": "max"}, "pooling is 'max'; choose one of flatten, mean"),
        (ResCNN, {"output_units": 7}, "output_units is 7; it must be 0 or at least the 8 emotions"),
        (CRNNmLFLB, {"kernels": (3, 3)}, "give four numbers each"),
    ],
)
def test_rejects_options(build: type[nn.Module], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**kwargs)
