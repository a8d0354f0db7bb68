"""The front-ends of the papers, each against librosa, SciPy or a case worked by hand."""

import warnings

import librosa
import numpy as np
import pytest
import scipy.fft
import scipy.signal
import soundfile
import torch

from ser.data import MFCC, FrontEnd, LogMel, Preprocess, Waveform
from ser.errors import UserError

RATE_HZ = 16_000
LIBROSA = {"window_ms": None, "hop_ms": None, "n_fft": 2048, "n_mels": 128, "window": "hann", "center": True}
FE_ACRNN = (Preprocess(pre_emphasis=0.97), LogMel(deltas=2))
FE_001_2D = (Preprocess(None, duration_s=8, pad_waveform=True), LogMel(**LIBROSA, mel_scale="slaney", scale="db"))
FE_001_TD = (
    Preprocess(None, duration_s=3.5, waveform_norm="peak", pad_waveform=True),
    LogMel(**{**LIBROSA, "n_fft": 512, "hop_ms": 16}, mel_scale="slaney", scale="db_of_max", top_db=80),
)
FE_001_RAW = (Preprocess(None, duration_s=1, waveform_norm="rms"), Waveform())
FE_002_LM = (Preprocess(pre_emphasis=0.97), LogMel())
FE_002_MFCC = (Preprocess(pre_emphasis=0.97), MFCC(deltas=2))
FE_003 = (
    Preprocess(None, duration_s=2.5, offset_s=0.5, pad_waveform=True),
    MFCC(LogMel(44_100, **LIBROSA, mel_scale="slaney", scale="db", top_db=80), drop_first=True),
)
FE_003_TUTORIAL = (Preprocess(None, duration_s=2.5), MFCC(LogMel(n_mels=26), drop_first=True))
FE_004 = (Preprocess(wiener=True, pad_waveform=True), LogMel(44_100, **LIBROSA, scale="db", top_db=80))
# Front-end, shape of its fixed length, and the frames that a recording of that length and of 1.2 s fill.
FRONT_ENDS = {
    "FE-ACRNN": (*FE_ACRNN, (3, 40, 300), 298, 118),
    "FE-001-2D": (*FE_001_2D, (1, 128, 251), 251, 251),
    "FE-001-TD": (*FE_001_TD, (1, 128, 219), 219, 219),
    "FE-001-RAW": (*FE_001_RAW, (1, 16_000), 16_000, 16_000),
    "FE-002-LM": (*FE_002_LM, (1, 40, 300), 298, 118),
    "FE-002-MFCC": (*FE_002_MFCC, (1, 39, 300), 298, 118),
    "FE-003": (*FE_003, (1, 12, 216), 216, 216),
    "FE-003 of the tutorial": (*FE_003_TUTORIAL, (1, 12, 250), 248, 118),
    "FE-004": (*FE_004, (1, 128, 259), 259, 259),
}


def noise(seconds, rate_hz=RATE_HZ, seed=0):
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate_hz))
    return (0.1 * samples / (1 + np.linspace(0, 3, len(samples)))).astype(np.float32)


SPEECH = noise(1.5)


def compute(features, waveform=SPEECH):
    return features(torch.from_numpy(waveform)).numpy()


# -- frames --


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_frames_of_the_papers(name, tmp_path):
    preprocess, features, shape, frames, frames_of_short = FRONT_ENDS[name]
    front_end = FrontEnd(preprocess, features)
    assert front_end.shape == shape
    for seconds, expected in ((preprocess.offset_s + preprocess.duration_s + 0.1, frames), (1.2, frames_of_short)):
        soundfile.write(tmp_path / "a.wav", noise(seconds, features.sample_rate_hz), features.sample_rate_hz)
        found = front_end(tmp_path / "a.wav")
        assert found.shape == (*shape[:-1], expected)
        assert found.isfinite().all()


@pytest.mark.parametrize(("samples", "hop_ms", "frames"), [(128_000, 32, 251), (56_000, 16, 219), (48_000, 32, 94)])
def test_frame_arithmetic(samples, hop_ms, frames):
    features = LogMel(n_fft=2048, window_ms=128, hop_ms=hop_ms, center=True)
    assert features.shape(samples)[-1] == compute(features, np.resize(SPEECH, samples)).shape[-1] == frames


def test_sizes_in_samples():
    for rate_hz in (16_000, 44_100):
        features = LogMel(rate_hz, n_fft=2048, window_ms=None, hop_ms=None)
        assert (features.win_length, features.hop_length) == (2048, 512)
    assert LogMel(44_100, n_fft=2048, window_ms=46.44, hop_ms=11.61).hop_length == 512


# -- log-mel against librosa --


def librosa_mel(scale="slaney", mode="constant", **how):
    options = {"n_fft": 2048, "hop_length": 512, "n_mels": 128, "htk": scale == "htk"} | how
    norm = "slaney" if scale == "slaney" else None
    return librosa.feature.melspectrogram(y=SPEECH, sr=RATE_HZ, pad_mode=mode, norm=norm, **options)


@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
@pytest.mark.parametrize(("center", "mode"), [(True, "constant"), ("reflect", "reflect")])
def test_decibels_are_librosas(mel_scale, center, mode):
    features = LogMel(**{**LIBROSA, "center": center}, mel_scale=mel_scale, scale="db", top_db=80)
    expected = librosa.power_to_db(librosa_mel(mel_scale, mode), top_db=80)
    np.testing.assert_allclose(compute(features)[0], expected, atol=2e-3)


@pytest.mark.parametrize("window", ["hann", "hamming", "blackman", "nuttall"])
def test_any_window_of_scipy(window):
    features = LogMel(**{**LIBROSA, "window": window, "window_ms": 100}, mel_scale="slaney")
    expected = np.log(np.maximum(librosa_mel(window=window, win_length=1600), 1e-10))
    np.testing.assert_allclose(compute(features)[0], expected, atol=2e-3)


def test_decibels_relative_to_the_maximum():
    features = LogMel(**LIBROSA, mel_scale="slaney", scale="db_of_max", top_db=20)
    expected = librosa.power_to_db(librosa_mel(), ref=np.max, top_db=20)
    found = compute(features)[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert found.max() == 0
    assert found.min() == -20


@pytest.mark.parametrize("gain", [0.01, 1, 30])
def test_the_signs_of_paper_001_which_takes_power_for_amplitude(gain):
    """20 log10 of power over 80 dB, of which its program sees the sign alone, is a doubled 10 log10 over 40 dB."""
    expected = np.sign(librosa.amplitude_to_db(gain**2 * librosa_mel(), ref=1.0, top_db=80))
    found = np.sign(compute(LogMel(**LIBROSA, mel_scale="slaney", scale="db", top_db=40), gain * SPEECH)[0])
    assert (found != expected).mean() < 1e-3  # rounding of what is next to 0 dB


def test_the_scale_of_a_waveform_does_not_matter_to_levels_relative_to_the_maximum():
    """Paper 001 divides by the largest sample instead of the largest magnitude."""
    features = LogMel(**LIBROSA, mel_scale="slaney", scale="db_of_max", top_db=80)
    by_sample, by_magnitude = (compute(features, SPEECH / scale) for scale in (SPEECH.max(), np.abs(SPEECH).max()))
    assert SPEECH.max() < np.abs(SPEECH).max()
    np.testing.assert_allclose(by_sample, by_magnitude, atol=2e-3)


def test_a_waveform_shorter_than_a_window():
    for center, frames in ((False, 1), (True, 1), ("reflect", 3)):
        found = compute(LogMel(**{**LIBROSA, "center": center}), SPEECH[:100])
        assert found.shape == (1, 128, frames)
        assert np.isfinite(found).all()


# -- MFCC --


def test_mfcc_are_librosas():
    features = MFCC(LogMel(**LIBROSA, mel_scale="slaney", scale="db", top_db=80))
    expected = librosa.feature.mfcc(y=SPEECH, sr=RATE_HZ, n_mfcc=13, n_fft=2048, hop_length=512)
    np.testing.assert_allclose(compute(features)[0], expected, atol=1e-2)
    without = MFCC(features.log_mel, drop_first=True)
    np.testing.assert_allclose(compute(without)[0], expected[1:], atol=1e-2)
    mean = MFCC(features.log_mel, reduce="mean")
    assert mean.shape(110_250)[:2] == (1, 1)
    np.testing.assert_allclose(compute(mean)[0], expected.mean(0, keepdims=True), atol=1e-2)


def test_mfcc_with_deltas():
    found = compute(MFCC(deltas=2))[0]
    static = scipy.fft.dct(compute(LogMel())[0], norm="ortho", axis=0)[:13]
    np.testing.assert_allclose(found[:13], static, atol=1e-4)
    padded = np.pad(static, ((0, 0), (2, 2)), mode="edge")
    delta = (padded[:, 3:-1] - padded[:, 1:-3] + 2 * (padded[:, 4:] - padded[:, :-4])) / 10
    np.testing.assert_allclose(found[13:26], delta, atol=1e-4)
    assert found.shape[0] == 39


def test_a_waveform_stays_itself():
    np.testing.assert_array_equal(compute(Waveform()), SPEECH[None])
    assert Waveform().shape(48_000) == (1, 48_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogMel(window="triangel"), "window is 'triangel'; give one of hamming, hann, rectangular, or"),
        (lambda: LogMel(window="kaiser"), "without parameters"),
        (lambda: LogMel(scale="log"), "scale is 'log'; choose one of ln, db, db_of_max"),
        (lambda: LogMel(top_db=80), "needs a scale in dB"),
        (lambda: LogMel(scale="db", top_db=0), "top_db is 0"),
        (lambda: LogMel(window_ms=25, n_fft=256), "400 samples at 16000 Hz; it must fit n_fft"),
        (lambda: MFCC(LogMel(deltas=1)), "give deltas to MFCC itself"),
        (lambda: MFCC(n_mfcc=41), "it must be 1 to 40, the number of mel filters"),
        (lambda: MFCC(n_mfcc=1, drop_first=True), "it must be 2 to 40"),
    ],
)
def test_features_reject_wrong_settings(make, message):
    with pytest.raises(UserError, match=message):
        make()


# -- preprocessing --


def test_the_wiener_filter_is_scipys():
    found = Preprocess(None, wiener=True)(SPEECH, RATE_HZ)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scipy.signal.wiener(SPEECH.astype(float), 3), atol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_the_wiener_filter_leaves_what_is_constant(level):
    constant = np.full(100, level, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Preprocess(None, wiener=True)(np.concatenate([constant, SPEECH, constant]), RATE_HZ)
        np.testing.assert_array_equal(Preprocess(None, wiener=True)(0 * constant, RATE_HZ), 0 * constant)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1:99], constant[1:99], atol=1e-6)  # its first window reaches before it


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("none", [0.1, -0.4, 0.2, 0.1]),
        ("zscore", np.array([0.1, -0.4, 0.2, 0.1]) / np.sqrt(0.22 / 4)),
        ("rms", np.array([0.1, -0.4, 0.2, 0.1]) / np.sqrt(0.22 / 4)),
        ("peak", [0.25, -1, 0.5, 0.25]),
    ],
)
def test_waveform_norms(norm, expected):
    waveform = np.array([0.1, -0.4, 0.2, 0.1], np.float32)
    found = Preprocess(None, waveform_norm=norm)(waveform, RATE_HZ)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(Preprocess(None, waveform_norm=norm)(0 * waveform, RATE_HZ), 0 * waveform)


def test_zscore_removes_an_offset():
    found = Preprocess(None, waveform_norm="zscore")(SPEECH + np.float32(0.3), RATE_HZ)
    assert found.mean() == pytest.approx(0, abs=1e-5)
    assert found.std() == pytest.approx(1, abs=1e-5)


def test_the_order_of_preprocessing():
    """By hand: skip, trim, denoise, normalise by the whole, cut, emphasise, pad."""
    silence = np.zeros(RATE_HZ // 2, np.float32)
    waveform = np.concatenate([5 * SPEECH[: RATE_HZ // 2], silence, SPEECH, silence])
    options = {"offset_s": 0.5, "wiener": True, "waveform_norm": "peak", "duration_s": 1.0, "pre_emphasis": 0.9}
    trimmed, _ = librosa.effects.trim(waveform[RATE_HZ // 2 :], top_db=60)
    with np.errstate(all="ignore"):
        clean = scipy.signal.wiener(trimmed.astype(float), 3)
    clean = np.where(np.isnan(clean), trimmed, clean)
    cut = (clean / np.abs(clean).max())[:RATE_HZ]
    expected = scipy.signal.lfilter([1, -0.9], [1], cut)
    np.testing.assert_allclose(Preprocess(**options)(waveform, RATE_HZ), expected, atol=1e-6)
    longer = Preprocess(**{**options, "duration_s": 4.0}, pad_waveform=True)(waveform, RATE_HZ)
    assert len(longer) == 4 * RATE_HZ
    assert (longer[len(trimmed) :] == 0).all()
    np.testing.assert_allclose(longer[:RATE_HZ], expected, atol=1e-6)


def test_a_recording_that_ends_before_the_offset_is_named(tmp_path):
    soundfile.write(tmp_path / "short.wav", SPEECH[: RATE_HZ // 4], RATE_HZ)
    with pytest.raises(
        UserError, match=r"short\.wav: The recording lasts 0\.25 s, all of which preprocess\.offset_s = 0\.5"
    ):
        FrontEnd(Preprocess(None, offset_s=0.5), LogMel())(tmp_path / "short.wav")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset_s": -1}, "offset_s is -1; it must be a number of seconds"),
        ({"waveform_norm": "max"}, "waveform_norm is 'max'; choose one of none, zscore, rms, peak"),
    ],
)
def test_preprocess_rejects_nonsense(options, message):
    with pytest.raises(UserError, match=message):
        Preprocess(**options)


def test_a_front_end_is_built_again_from_its_description(tmp_path):
    """As the command line builds it from a checkpoint."""
    from jsonargparse import ArgumentParser

    from ser.data import Features

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--features", type=Features)
    parser.add_argument("--preprocess", type=Preprocess)
    for preprocess, features, *_ in FRONT_ENDS.values():
        description = FrontEnd(preprocess, features).description()
        made = parser.instantiate(parser.parse_object(description))
        assert FrontEnd(made.preprocess, made.features).description() == description
