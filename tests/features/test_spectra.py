import math

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser.data import FrontEnd, LogMel, Preprocess
from ser.errors import UserError
from ser.features.audio import audio_files, read
from ser.features.spectrograms import delta, mel_filters
from ser.settings.class_paths import describe

NOISE = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, 20_001).astype(np.float32))


def reference(waveform, features):
    """Compute the static log-mel spectrogram with librosa.

    librosa puts a window that is shorter than n_fft in the middle of n_fft samples; uncentred frames of ours start
    with the window, so that as many zeros are put in front.
    """
    margin = 0 if features.center else features.n_fft - features.win_length
    power = librosa.feature.melspectrogram(
        y=np.pad(np.asarray(waveform, np.float64), (margin // 2, margin - margin // 2)),
        sr=features.sample_rate_hz,
        n_fft=features.n_fft,
        win_length=features.win_length,
        hop_length=features.hop_length,
        window={"rectangular": "boxcar"}.get(features.window, features.window),
        center=features.center,
        pad_mode="constant",
        n_mels=features.n_mels,
        htk=features.mel_scale == "htk",
        norm=None if features.mel_scale == "htk" else "slaney",
    )
    return np.log(np.maximum(power, 1e-10))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"center": True},
        {"window": "hann"},
        {"window": "rectangular", "window_ms": 20.0},
        {"mel_scale": "slaney"},
        {"sample_rate_hz": 22_050, "n_fft": 1024, "n_mels": 64},
        {"n_fft": 400, "window_ms": 385 / 16},
        {
            "sample_rate_hz": 44_100, "n_fft": 2048, "window_ms": 2048 / 44.1, "hop_ms": 512 / 44.1, "n_mels": 128,
            "window": "hann", "mel_scale": "slaney", "center": True,
        },
    ],
)  # fmt: skip
def test_log_mel_is_librosas(options):
    features = LogMel(**options)
    expected = reference(NOISE, features)
    computed = features(NOISE)
    assert computed.shape == (1, *expected.shape)
    np.testing.assert_allclose(computed[0], expected, atol=2e-4)


def test_log_mel_of_real_speech_is_librosas(corpora):
    features = LogMel(deltas=2)
    for path in audio_files(corpora / "emodb")[::40]:
        waveform = Preprocess(pre_emphasis=0.97)(read(path, 16_000), 16_000)
        static = reference(waveform, features)
        first = librosa.feature.delta(static, width=5, mode="nearest")
        expected = np.stack([static, first, librosa.feature.delta(first, width=5, mode="nearest")])
        np.testing.assert_allclose(features(torch.from_numpy(waveform)), expected, atol=5e-3)


# -- frames --


def test_three_seconds_fill_298_of_300_frames():
    features = LogMel(deltas=2)
    assert features.shape(48_000) == (3, 40, 300)
    assert features(torch.ones(48_000)).shape == (3, 40, 298)


@pytest.mark.parametrize(
    ("samples", "sample_rate_hz", "n_fft", "hop", "frames"),
    [
        (128_000, 16_000, 2048, 512, 251),
        (56_000, 16_000, 512, 256, 219),
        (56_000, 16_000, 512, 512, 110),
        (48_000, 16_000, 512, 512, 94),
        (132_300, 44_100, 2048, 512, 259),
        (110_250, 44_100, 2048, 512, 216),
    ],
)
def test_centred_frame_counts_of_the_papers(samples, sample_rate_hz, n_fft, hop, frames):
    window_ms, hop_ms = 1000 * n_fft / sample_rate_hz, 1000 * hop / sample_rate_hz
    features = LogMel(sample_rate_hz, 40, window_ms, hop_ms, n_fft, center=True)
    assert features.shape(samples) == (1, 40, frames)
    assert features(torch.ones(samples)).shape == (1, 40, frames)


@settings(deadline=None, max_examples=60)
@given(
    most=st.integers(1, 3000),
    share=st.floats(0, 1),
    center=st.booleans(),
    window_ms=st.sampled_from([2.0, 25.0, 32.0]),
    hop_ms=st.sampled_from([1.0, 10.0, 40.0]),
)
def test_no_utterance_has_more_frames_than_its_shape(most, share, center, window_ms, hop_ms):
    features = LogMel(8000, 4, window_ms, hop_ms, 256, deltas=1, center=center)
    frames = features(NOISE[: max(1, round(share * most))]).shape[-1]
    assert 1 <= frames <= features.shape(most)[-1]


@pytest.mark.parametrize("sample", [0, 159, 160, 399, 400, 2000, 3999])
def test_an_uncentred_frame_starts_at_its_hop_and_is_one_window_long(sample):
    waveform = NOISE[:4000].clone()
    features = LogMel()
    before = features(waveform)[0]
    waveform[sample] += 0.1
    changed = (features(waveform)[0] != before).any(dim=0).nonzero().flatten().tolist()
    frames = before.shape[-1]
    assert changed == [i for i in range(frames) if 160 * i <= sample < 160 * i + 400]


def test_a_centred_frame_is_centred_on_its_hop():
    impulse = torch.zeros(4000)
    impulse[10 * 160] = 1.0
    loudness = LogMel(center=True)(impulse)[0].sum(dim=0)
    assert int(loudness.argmax()) == 10


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.filterwarnings("ignore:n_fft=512 is too large")  # librosa's
def test_a_single_sample_has_a_frame(center):
    features = LogMel(center=center, deltas=2)
    computed = features(torch.tensor([0.5]))
    assert computed.shape == (3, 40, 1)
    padded = torch.tensor([0.5]) if center else torch.nn.functional.pad(torch.tensor([0.5]), (0, 399))
    np.testing.assert_allclose(computed[0], reference(padded, features), atol=2e-4)
    assert (computed[1:] == 0).all()


def test_silence_is_the_floor():
    assert LogMel()(torch.zeros(1000)).flatten().tolist() == pytest.approx([math.log(1e-10)] * 40 * 4)


# -- derivatives --


def test_delta_of_a_case_worked_by_hand():
    # d[t] = (x[t+1] - x[t-1] + 2 (x[t+2] - x[t-2])) / 10, with 1 and 5 repeated beyond the ends.
    computed = delta(torch.tensor([[1.0, 2.0, 4.0, 4.0, 5.0]]))
    expected = [
        ((2 - 1) + 2 * (4 - 1)) / 10,
        ((4 - 1) + 2 * (4 - 1)) / 10,
        ((4 - 2) + 2 * (5 - 1)) / 10,
        ((5 - 4) + 2 * (5 - 2)) / 10,
        ((5 - 4) + 2 * (5 - 4)) / 10,
    ]
    assert computed.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("frames", [5, 6, 40])
def test_delta_is_librosas(frames):
    static = np.random.default_rng(1).standard_normal((7, frames)).astype(np.float32)
    expected = librosa.feature.delta(static, width=5, mode="nearest")
    np.testing.assert_allclose(delta(torch.from_numpy(static)), expected, atol=1e-6)


def test_delta_with_another_reach_is_the_slope_of_a_line():
    slope = delta(3.0 * torch.arange(20.0)[None], reach=4)
    assert slope[0, 4:-4].tolist() == pytest.approx([3.0] * 12)


def test_derivatives_are_channels_of_their_own():
    static, first, second = LogMel(deltas=2)(NOISE)
    torch.testing.assert_close(static, LogMel()(NOISE)[0])
    torch.testing.assert_close(first, delta(static))
    torch.testing.assert_close(second, delta(delta(static)))
    assert LogMel(deltas=1)(NOISE).shape[0] == LogMel(deltas=1).shape(20_001)[0] == 2


# -- bad settings --


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_ms": 40.0}, r"A window of 40.0 ms has 640 samples at 16000 Hz; it must fit n_fft = 512"),
        ({"window_ms": 0.01}, r"A window of 0.01 ms has 0 samples"),
        ({"n_mels": -3}, r"n_mels is -3; it must be at least 1"),
        ({"n_mels": 0}, r"n_mels is 0; it must be at least 1"),
        ({"hop_ms": 0.01}, r"hop_ms = 0.01 is less than one sample at 16000 Hz"),
        ({"n_mels": 256}, r"\d+ of 256 mel filters are empty: a transform of 512 points at 16000 Hz is too coarse"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_log_mel_rejects_what_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        LogMel(**options)


def test_mel_filters_are_librosas():
    for scale in ("htk", "slaney"):
        expected = librosa.filters.mel(
            sr=16_000, n_fft=512, n_mels=40, htk=scale == "htk", norm=None if scale == "htk" else "slaney"
        )
        np.testing.assert_allclose(mel_filters(16_000, 512, 40, scale), expected, atol=1e-5 * expected.max())


# -- the whole way --


def test_front_end_reads_trims_and_computes(make_corpus):
    path = audio_files(make_corpus())[0]
    front_end = FrontEnd(Preprocess(pre_emphasis=0.9, duration_s=0.15), LogMel(8000, 8, n_fft=256, deltas=1))
    trimmed, _ = librosa.effects.trim(read(path), top_db=60)
    emphasised = np.append(trimmed[0], trimmed[1:] - 0.9 * trimmed[:-1])[: round(0.15 * 8000)]
    computed = front_end(path)
    np.testing.assert_allclose(computed[0], reference(emphasised, front_end.features), atol=1e-3)
    assert front_end.shape == (2, 8, 15)
    assert computed.shape == (2, 8, 13)
    assert not computed.requires_grad


def test_the_front_ends_description_makes_it_again():
    front_end = FrontEnd(Preprocess(30.0, 0.97, 2.0), LogMel(8000, 20, n_fft=256, deltas=1, window="hann"))
    description = front_end.description()
    assert description["features"]["class_path"] == "ser.data.LogMel"
    again = FrontEnd(Preprocess(**description["preprocess"]), LogMel(**description["features"]["init_args"]))
    assert again.description() == description
    assert describe(again) == describe(front_end)
    assert FrontEnd(Preprocess(), LogMel()).description() != description
