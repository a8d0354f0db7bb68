import errno
import multiprocessing
import os
import signal
import time
import warnings
from collections import Counter
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser.corpora import Synthetic
from ser.corpora.synthetic.corpus import TAKES, VERSION, VOICES
from ser.corpora.synthetic.synthesis import SAMPLE_RATE_HZ
from ser.data import Preprocess
from ser.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Synthetic:
    return Synthetic(cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def recordings(corpus) -> list[np.ndarray]:
    return [soundfile.read(u.path)[0] for u in corpus.table]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_speaker_says_every_sentence_in_every_emotion(corpus):
    assert corpus.synthetic
    assert corpus.found_and_published() == {e: [48, 48] for e in ("anger", "happiness", "neutral", "sadness")}
    assert Counter(u.speaker for u in corpus.table) == dict.fromkeys(Synthetic.speakers, 24)
    assert Counter(Synthetic.speakers.values()) == {"female": 4, "male": 4}
    assert len({(u.speaker, u.emotion, u.sentence) for u in corpus.table}) == len(corpus.table) == 192


def test_files_are_speech_between_pauses(corpus, recordings):
    information = [soundfile.info(u.path) for u in corpus.table]
    assert {(i.samplerate, i.channels, i.subtype) for i in information} == {(16_000, 1, "PCM_16")}
    assert all(0.9 <= i.duration <= 1.8 for i in information)
    for samples in recordings:
        trimmed = Preprocess()(samples.astype(np.float32), SAMPLE_RATE_HZ)
        assert 0.05 * SAMPLE_RATE_HZ < len(samples) - len(trimmed) < 0.5 * SAMPLE_RATE_HZ
        assert 0.03 < np.max(np.abs(samples)) < 0.99


def test_files_do_not_depend_on_the_order_they_are_made_in(corpus, tmp_path):
    for take in TAKES[::-17]:
        take.record(tmp_path)
    written = contents(tmp_path)
    assert len(written) == 12
    assert written.items() <= contents(corpus.locate()).items()


def test_samples_have_not_changed(recordings):
    """If this fails, the synthesis has changed: count VERSION up, and take the new numbers."""
    levels_db = [20 * np.log10(np.sqrt(np.mean(recordings[k] ** 2))) for k in (0, 77, 191)]
    assert VERSION == 1
    assert [len(recordings[k]) for k in (0, 77, 191)] == [19072, 22254, 22466]
    np.testing.assert_allclose(levels_db, [-30.167, -29.882, -32.530], atol=0.01)


def pitch_st(samples: np.ndarray) -> np.ndarray:
    """Return F0 where the recording is loud, in semitones re 1 Hz."""
    f0_hz = librosa.yin(samples, fmin=70, fmax=600, sr=SAMPLE_RATE_HZ, frame_length=1024, hop_length=160)
    level = librosa.feature.rms(y=samples, frame_length=1024, hop_length=160)[0]
    return 12 * np.log2(f0_hz[level > 0.5 * np.median(level[level > 0.05 * level.max()])])


def test_speakers_and_emotions_differ_in_pitch(corpus, recordings):
    pitch = {u: np.median(pitch_st(samples)) for u, samples in zip(corpus.table, recordings, strict=True)}

    def mean(speaker: str, emotion: str) -> float:
        return float(np.mean([p for u, p in pitch.items() if (u.speaker, u.emotion) == (speaker, emotion)]))

    for speaker, voice in VOICES.items():
        assert mean(speaker, "neutral") == pytest.approx(12 * np.log2(voice.f0_hz), abs=1.5)
        assert mean(speaker, "anger") > mean(speaker, "neutral") + 2
        assert mean(speaker, "happiness") > mean(speaker, "neutral") + 3
        assert mean(speaker, "sadness") < mean(speaker, "neutral")


def unseen_speaker_uar(corpus, classifier, features) -> float:
    """Cross-validate, leaving one speaker out."""
    emotions = [u.emotion for u in corpus.table]
    speakers = [u.speaker for u in corpus.table]
    pipeline = make_pipeline(StandardScaler(), classifier)
    predicted = cross_val_predict(pipeline, np.array(features), emotions, groups=speakers, cv=LeaveOneGroupOut())
    return float(balanced_accuracy_score(emotions, predicted))


@pytest.mark.parametrize(
    "classifier", [LogisticRegression(max_iter=2000), KNeighborsClassifier(7)], ids=["linear", "neighbours"]
)
@pytest.mark.parametrize("scale", [np.asarray, np.log], ids=["as is", "log"])
def test_level_and_duration_do_not_give_the_emotion_away(corpus, recordings, classifier, scale):
    features = [scale([np.sqrt(np.mean(s**2)), np.max(np.abs(s)), len(s)]) for s in recordings]
    assert unseen_speaker_uar(corpus, classifier, features) < 0.45


def test_voice_gives_the_emotion_away_but_not_always(corpus, recordings):
    features = []
    for samples in recordings:
        speech = Preprocess()(samples.astype(np.float32), SAMPLE_RATE_HZ)
        mel = librosa.feature.melspectrogram(y=speech, sr=SAMPLE_RATE_HZ, n_fft=512, hop_length=160, n_mels=40)
        log_mel = librosa.power_to_db(mel)
        log_mel -= log_mel.mean()  # level is no cue
        cepstrum = librosa.feature.mfcc(S=log_mel, n_mfcc=8)[1:]
        pitch = pitch_st(speech)
        features.append(
            [
                *(pitch.mean(), pitch.std(), *np.percentile(pitch, (10, 50, 90)), pitch[-15:].mean() - pitch.mean()),
                *(*cepstrum.mean(axis=1), *cepstrum.std(axis=1), *librosa.feature.delta(cepstrum).std(axis=1)),
            ]
        )
    assert 0.8 < unseen_speaker_uar(corpus, LogisticRegression(max_iter=2000), features) < 0.99


def test_copy_is_read_from_a_root(corpus, tmp_path):
    copy = Synthetic(root=corpus.locate(), cache_dir=tmp_path)
    assert len(copy.table) == 192
    assert not list(tmp_path.glob("synthetic*"))


def test_missing_root_is_not_filled(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Synthetic(root=tmp_path / "typo").locate()


def start(function, *arguments) -> multiprocessing.Process:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which none of ours holds
        process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
        process.start()
    return process


def locate(cache_dir: Path) -> None:
    Synthetic(cache_dir=cache_dir).locate()


def test_two_processes_at_once(corpus, tmp_path):
    processes = [start(locate, tmp_path) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(tmp_path / f"synthetic-{VERSION}") == contents(corpus.locate())


def test_killed_build_is_not_believed(corpus, tmp_path):
    folder, unfinished = (tmp_path / f"synthetic-{VERSION}", tmp_path / f".synthetic-{VERSION}.unfinished")
    process = start(locate, tmp_path)
    deadline = time.monotonic() + 60
    while not unfinished.exists() or len(list(unfinished.iterdir())) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert unfinished.exists()
    assert not folder.exists()

    assert contents(Synthetic(cache_dir=tmp_path).locate()) == contents(corpus.locate())
    assert not unfinished.exists()


def test_copy_that_lost_a_file_is_made_again(corpus, tmp_path):
    folder = tmp_path / f"synthetic-{VERSION}"
    folder.mkdir()
    TAKES[0].record(folder)
    Synthetic(cache_dir=tmp_path).locate()
    assert contents(folder) == contents(corpus.locate())


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written to .*synthetic.*--data\.cache_dir"):
        Synthetic(cache_dir=tmp_path / "file").locate()


def test_full_disk(tmp_path, monkeypatch):
    def fail(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UserError, match="No space left on device"):
        Synthetic(cache_dir=tmp_path).locate()
    assert [path.name for path in tmp_path.iterdir()] == [f".synthetic-{VERSION}.lock"]
