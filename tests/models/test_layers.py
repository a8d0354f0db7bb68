import pytest
import torch
from torch import nn

from ser.errors import UserError
from ser.models.layers import (
    LSTM,
    BatchNorm,
    Dropout,
    TemporalPooling,
    as_sequence,
    check_features,
    follow_keras,
    last_valid,
    reverse_valid,
    silence_padding,
    valid_frames,
)

LENGTHS = torch.tensor([7, 1, 5])


def test_valid_frames_and_last_valid() -> None:
    assert valid_frames(torch.tensor([2, 3]), 3).tolist() == [[True, True, False], [True, True, True]]
    sequence = torch.arange(21.0).view(3, 7, 1)
    assert last_valid(sequence, LENGTHS).flatten().tolist() == [6, 7, 18]
    assert last_valid(sequence, None).flatten().tolist() == [6, 13, 20]


def test_silence_padding_of_signals_and_images() -> None:
    for shape in ((3, 1, 7), (3, 2, 4, 7)):
        x = torch.full(shape, torch.nan)
        x[..., :2] = 1.0
        silent = silence_padding(x, torch.tensor([2, 1, 2]))
        assert silent.sum() == 5 * silent[0].numel() / 7
        assert silence_padding(x, None) is x


def test_as_sequence_concatenates_channels() -> None:
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    assert torch.equal(as_sequence(images)[1, 2], images[1, :, :, 2].flatten())


@pytest.mark.parametrize("found", [(2, 40), (1, 40, 300), (1, 0)])
def test_check_features(found: tuple[int, ...]) -> None:
    check_features("Net", (1, 40), (1, "samples"), "waveforms")
    with pytest.raises(
        UserError, match=r"^Net got features of shape \(.*\); it needs \(1, samples\): choose waveforms$"
    ):
        check_features("Net", found, (1, "samples"), "waveforms")


def test_reverse_valid_is_its_own_inverse_and_keeps_padding_last() -> None:
    sequence = torch.arange(21.0).view(3, 7, 1)
    reversed_ = reverse_valid(sequence, LENGTHS)
    assert reversed_[2, :5, 0].tolist() == [18, 17, 16, 15, 14]
    assert set(reversed_[2, 5:, 0].tolist()) == {19, 20}
    assert torch.equal(reverse_valid(reversed_, LENGTHS), sequence)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_equals_torch_on_packed_sequences(bidirectional: bool) -> None:
    lstm = LSTM(4, 6, bidirectional=bidirectional)
    reference = nn.LSTM(4, 6, batch_first=True, bidirectional=bidirectional)
    weights = {name: weight for name, weight in lstm.ahead.named_parameters()}
    if lstm.back is not None:
        weights |= {f"{name}_reverse": weight for name, weight in lstm.back.named_parameters()}
    reference.load_state_dict(weights)
    sequence = torch.randn(3, 7, 4)
    packed = nn.utils.rnn.pack_padded_sequence(sequence, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, (states, _) = reference(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    outputs, final = lstm(sequence, LENGTHS)
    for item, length in enumerate(LENGTHS):
        torch.testing.assert_close(outputs[item, :length], expected[item, :length])
    torch.testing.assert_close(final, torch.cat(tuple(states), dim=-1))  # forward's last, backward's first frame
    assert final.shape[-1] == lstm.output_size


def test_bidirectional_lstm_equals_manual_reversal() -> None:
    lstm = LSTM(4, 6, bidirectional=True)
    sequence = torch.randn(2, 9, 4)
    outputs, final = lstm(sequence)
    backward = lstm.back(sequence.flip(1))[0]
    torch.testing.assert_close(final, torch.cat((lstm.ahead(sequence)[0][:, -1], backward[:, -1]), dim=-1))
    torch.testing.assert_close(outputs[:, :, 6:], backward.flip(1))


def test_keras_lstm_has_one_bias_which_alone_trains() -> None:
    lstm = LSTM(4, 6)
    follow_keras(lstm)
    assert sum(weight.numel() for weight in lstm.parameters() if weight.requires_grad) == 4 * (4 * 6 + 6 * 6 + 6)
    optimizer = torch.optim.SGD([weight for weight in lstm.parameters() if weight.requires_grad], lr=1.0)
    lstm(torch.randn(2, 5, 4))[1].sum().backward()
    optimizer.step()
    assert not lstm.ahead.bias_hh_l0.any()
    assert lstm.ahead.bias_ih_l0.grad.any()


def test_keras_initial_weights() -> None:
    net = nn.Sequential(LSTM(4, 6), nn.Linear(50, 30), BatchNorm(3))
    follow_keras(net)
    lstm, linear, norm = net[0].ahead, net[1], net[2]
    assert lstm.bias_ih_l0.tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 12
    assert not lstm.bias_hh_l0.any()
    torch.testing.assert_close(lstm.weight_hh_l0.T @ lstm.weight_hh_l0, torch.eye(6))
    limit = (6 / (4 + 24)) ** 0.5
    assert 0.8 * limit < lstm.weight_ih_l0.abs().max() <= limit
    limit = (6 / 80) ** 0.5
    assert 0.9 * limit < linear.weight.abs().max() <= limit
    assert not linear.bias.any()
    assert (norm.momentum, norm.eps) == (0.01, 1e-3)
    follow_keras(net, 0.1)
    assert (norm.momentum, norm.eps) == (0.1, 1e-3)
    for share in (0.0, 1.5):
        with pytest.raises(UserError, match=f"norm_momentum is {share}; it must be more than 0 and at most 1"):
            follow_keras(net, share)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_lstm_stays_in_single_precision_on_a_cpu(lengths: torch.Tensor | None) -> None:
    lstm, sequence = LSTM(4, 6, bidirectional=True), torch.randn(3, 7, 4)
    expected = lstm(sequence, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(*pair) for pair in zip(lstm(sequence, lengths), expected, strict=True))
        assert lstm(sequence.bfloat16(), lengths)[1].dtype == torch.float32


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 4)])
def test_running_statistics_begin_with_the_first_batches(shape: tuple[int, ...]) -> None:
    """The mean of the first 1 / momentum batches, then as in torch."""
    norm, reference = BatchNorm(3), nn.BatchNorm2d(3)
    norm.momentum = reference.momentum = 0.25
    batches = [torch.randn(shape) * (1 + number) + number for number in range(8)]
    means = [batch.transpose(0, 1).flatten(1).mean(1) for batch in batches]
    variances = [batch.transpose(0, 1).flatten(1).var(1) for batch in batches]
    for number, batch in enumerate(batches, start=1):
        torch.testing.assert_close(norm(batch), reference(batch.view(5, 3, *shape[2:] or (1, 1))).view(shape))
        if number <= 4:
            torch.testing.assert_close(norm.running_mean, sum(means[:number]) / number)
            torch.testing.assert_close(norm.running_var, sum(variances[:number]) / number)
            reference.load_state_dict(norm.state_dict())
        else:
            assert torch.equal(norm.running_mean, reference.running_mean)
            assert torch.equal(norm.running_var, reference.running_var)
            resumed = BatchNorm(3)
            resumed.momentum = 0.25
            resumed.load_state_dict(norm.state_dict())
            norm = resumed
    assert (norm.momentum, norm.num_batches_tracked) == (0.25, 8)
    before = norm.running_mean.clone()
    norm.eval()(batches[0])
    assert torch.equal(norm.running_mean, before)


def test_dropout() -> None:
    torch.manual_seed(0)
    x = torch.ones(100, 1001, requires_grad=True)
    dropped = Dropout(0.2)(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.005)
    assert dropped.unique().tolist() == pytest.approx([0, 1.25], abs=1e-4)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)
    assert not torch.equal(Dropout(0.2)(x), dropped)
    assert Dropout(0.2).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5)(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(UserError, match=r"dropout is 1\.5"):
        Dropout(1.5)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_pooling_equals_pooling_of_each_utterance(lengths: torch.Tensor | None) -> None:
    sequence = torch.randn(3, 7, 4)
    attention = TemporalPooling("attention", 4)
    expected = {
        "mean": lambda frames: frames.mean(0),
        "max": lambda frames: frames.amax(0),
        "last": lambda frames: frames[-1],
        "attention": lambda frames: (attention.score(frames).softmax(0) * frames).sum(0),
    }
    for pooling, reduce in expected.items():
        pool = attention if pooling == "attention" else TemporalPooling(pooling, 4)
        pooled = pool(sequence, lengths)
        ends = [7] * 3 if lengths is None else lengths
        for item, end in enumerate(ends):
            torch.testing.assert_close(pooled[item], reduce(sequence[item, :end]))
    with pytest.raises(UserError, match="choose one of mean, last, max, attention"):
        TemporalPooling("median", 4)
