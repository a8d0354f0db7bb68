import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from ser.errors import UserError
from ser.models import CoRNN
from ser.models.cornn import MaskedBatchNorm, RelativeAttention, relative_scores, sinusoids
from ser.models.layers import valid_frames

SMALL = {"lstm_hidden": 8, "num_heads": 2, "conv_kernel": 7, "ffn_factor": 2}
small = partial(CoRNN, 4, (3, 5, 30), **SMALL)
LENGTHS = torch.tensor([20, 1, 13])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def batch(num_frames: int = 20) -> torch.Tensor:
    features = torch.randn(3, 3, 5, num_frames)
    return features * valid_frames(LENGTHS, num_frames)[:, None, None]


def test_frames_are_ordered_static_delta_deltadelta() -> None:
    seen = []
    net = small()
    net.bilstm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features = batch()
    net(features, LENGTHS)
    assert torch.equal(seen[0][0, 4], torch.cat([features[0, channel, :, 4] for channel in range(3)]))


@pytest.mark.parametrize("masked", [False, True])
def test_relative_attention_equals_its_definition(masked: bool) -> None:
    attention = RelativeAttention(8, 2, dropout=0.0)
    x = torch.randn(3, 20, 8)
    valid = valid_frames(LENGTHS, 20) if masked else torch.ones(3, 20, dtype=torch.bool)
    query, key, value = attention.in_projection(x).chunk(3, dim=-1)
    encoding = attention.position_projection(sinusoids(20, 8, x.device))
    expected = torch.zeros(3, 20, 8)
    for item in range(3):
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            u, v = attention.content_bias[head, 0], attention.position_bias[head, 0]
            for i in range(20):
                scores = torch.full((20,), -torch.inf)
                for j in range(20):
                    if valid[item, j]:
                        q, k, r = query[item, i, part], key[item, j, part], encoding[19 - (i - j), part]
                        scores[j] = ((q + u) @ k + (q + v) @ r) / 4**0.5
                expected[item, i, part] = scores.softmax(0) @ value[item, :, part]
    outputs = attention(x, valid if masked else None)
    torch.testing.assert_close(outputs, attention.out_projection(expected), rtol=1e-4, atol=1e-6)


def test_sinusoids_encode_the_distance() -> None:
    encoding = sinusoids(3, 4, torch.device("cpu"))  # distances 2, 1, 0, -1, -2, -3
    assert encoding.shape == (6, 4)
    torch.testing.assert_close(encoding[2], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(encoding[0, ::2], torch.tensor([2.0, 2.0 + torch.pi / 2]).sin())


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_relative_scores_and_their_gradient(num_frames: int) -> None:
    query = torch.randn(2, 3, num_frames, 4, dtype=torch.float64, requires_grad=True)
    positions = torch.randn(3, 4, 2 * num_frames, dtype=torch.float64, requires_grad=True)
    scores = relative_scores(query, positions)
    for i in range(num_frames):
        for j in range(num_frames):
            expected = torch.einsum("bhd,hd->bh", query[:, :, i], positions[:, :, num_frames - 1 - i + j])
            torch.testing.assert_close(scores[:, :, i, j], expected)
    assert torch.autograd.gradcheck(relative_scores, (query, positions))


def test_relative_attention_is_shift_equivariant() -> None:
    attention = RelativeAttention(8, 2, dropout=0.0)
    x = torch.zeros(1, 20, 8)
    x[:, :9] = torch.randn(1, 9, 8)
    valid = valid_frames(torch.tensor([9]), 20)
    outputs = attention(x, valid)[:, :9]
    shifted = attention(x.roll(6, 1), valid.roll(6, 1))[:, 6:15]
    torch.testing.assert_close(shifted, outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_norm_equals_torch_on_the_valid_frames(dtype: torch.dtype) -> None:
    norm, reference = MaskedBatchNorm(4, eps=1e-3, momentum=0.01), nn.BatchNorm1d(4, eps=1e-3, momentum=0.01)
    for module in (norm, reference):
        nn.init.uniform_(module.weight, generator=torch.Generator().manual_seed(0))
    x = (torch.randn(3, 7, 4) * 2 + 5).to(dtype).requires_grad_()
    valid = valid_frames(torch.tensor([7, 1, 5]), 7)
    outputs, expected = norm(x, valid), reference(x[valid].float())
    torch.testing.assert_close(outputs[valid], expected)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    towards = torch.randn(3, 7, 4)
    (gradient,) = torch.autograd.grad((outputs * towards)[valid].sum(), x)
    (expected_gradient,) = torch.autograd.grad((expected * towards[valid]).sum(), x)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-5)
    norm.eval(), reference.eval()
    torch.testing.assert_close(norm(x, valid).flatten(0, 1), reference(x.flatten(0, 1)))


def test_batch_norm_without_mask_is_torchs() -> None:
    x = torch.randn(3, 7, 4)
    torch.testing.assert_close(MaskedBatchNorm(4)(x), nn.BatchNorm1d(4)(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("pooling", ["mean", "last", "max", "attention"])
@pytest.mark.parametrize(
    "kwargs", [{}, {"use_bilstm": False}, {"use_conformer": False}, {"num_blocks": 2, "fc_hidden": 6}]
)
def test_padding_never_changes_logits(pooling: str, kwargs: dict) -> None:
    net = small(pooling=pooling, **kwargs).eval()
    features = batch()
    logits = net(features, LENGTHS)
    padding = ~valid_frames(LENGTHS, 20)[:, None, None].expand_as(features)
    for content in (3.0, torch.nan, torch.inf):
        torch.testing.assert_close(net(features.masked_fill(padding, content), LENGTHS), logits)
    torch.testing.assert_close(net(functional.pad(features, (0, 11), value=2.0), LENGTHS), logits)
    for item, length in enumerate(LENGTHS):
        single = net(features[item : item + 1, ..., :length], LENGTHS[item : item + 1])
        torch.testing.assert_close(single[0], logits[item])


def test_padding_changes_neither_gradients_nor_statistics_in_training() -> None:
    net = small(dropout=0.0)
    nets = [net, copy.deepcopy(net)]
    for net, padding in zip(nets, (0, 9), strict=True):
        net(functional.pad(batch_of_seed(), (0, padding), value=torch.nan), LENGTHS).logsumexp(1).sum().backward()
    for (name, weight), (_, other) in zip(*(net.named_parameters() for net in nets), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, buffer), (_, other) in zip(*(net.named_buffers() for net in nets), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)


def batch_of_seed() -> torch.Tensor:
    torch.manual_seed(1)
    return batch()


def test_mask_padding_false_takes_padding_for_speech() -> None:
    net = small(mask_padding=False).eval()
    features = batch()
    padded = functional.pad(features, (0, 5))
    assert not torch.allclose(net(padded, LENGTHS), net(features, LENGTHS))
    masked = small().eval()
    masked.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(features, LENGTHS), masked(features, torch.full((3,), 20)))


@pytest.mark.parametrize(
    ("dtype", "use_bilstm"),
    [(torch.bfloat16, True), (torch.float16, False)],  # torch has no LSTM in half precision on a CPU
)
def test_half_precision(dtype: torch.dtype, use_bilstm: bool) -> None:
    net = small(dropout=0.1, use_bilstm=use_bilstm)
    features = batch()
    net.eval()
    expected = net(features, LENGTHS)
    with torch.autocast("cpu", dtype):
        logits = net(features, LENGTHS)
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.05)
    net.train()
    with torch.autocast("cpu", dtype):
        loss = functional.cross_entropy(net(features, LENGTHS).float(), torch.tensor([0, 1, 2]))
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"feature_shape": (1, 48000)}, r"\(1, 48000\); it needs \(channels, mel bins, frames\)"),
        ({"use_bilstm": False, "use_conformer": False}, "needs the BiLSTM, the Conformer or both"),
        ({"num_heads": 3}, "width 16 cannot be split among 3 heads"),
        ({"conv_kernel": 4}, "conv_kernel is 4; it must be odd"),
        ({"pooling": "sum"}, "pooling is 'sum'"),
    ],
)
def test_rejects(kwargs: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CoRNN(**{"feature_shape": (3, 5, 30), **SMALL, **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "count"),
    [({}, 1_845_764), ({"use_conformer": False}, 257_028), ({"use_bilstm": False}, 1_620_740)],
)
def test_parameter_counts(kwargs: dict, count: int) -> None:
    """Plain torch LSTM, 4 classes (systems, sections 3.3 and 3.4)."""
    assert sum(weight.numel() for weight in CoRNN(**kwargs).parameters()) == count


def test_parameter_counts_by_module() -> None:
    net = CoRNN()
    block = net.conformer[0]
    count = {
        name: sum(weight.numel() for weight in module.parameters())
        for name, module in [("bilstm", net.bilstm), ("block", block), *block.named_children()]
    }
    assert count["bilstm"] == 256_000
    assert count["block"] == 1_588_736
    assert count["ffn_before"] == count["ffn_after"] == 526_080
    assert count["attention_norm"] + count["attention"] == 329_728
    assert count["convolution"] == 206_336
    assert count["norm"] == 512


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")  # torch's own LSTM
def test_exports_for_any_batch_size() -> None:
    net = small().eval()
    size = torch.export.Dim("size", min=2)
    exported = torch.export.export(net, (batch(), LENGTHS), dynamic_shapes=({0: size}, {0: size})).module()
    features, lengths = torch.randn(5, 3, 5, 20), torch.tensor([20, 2, 9, 10, 20])
    torch.testing.assert_close(exported(features, lengths), net(features, lengths))


def test_compiles_as_one_graph_without_its_lstm() -> None:
    net = small(use_bilstm=False, dropout=0.0)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    features = batch()
    torch.testing.assert_close(compiled(features, LENGTHS), net(features, LENGTHS))


def test_learns() -> None:
    net = small(dropout=0.0)
    features, targets = batch(), torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(features, LENGTHS), targets)
        loss.backward()
        optimizer.step()
    assert loss < 0.1
