"""Augmentation: what transforms do, fixed copies, online, and that no validation or test utterance is ever changed."""

import inspect
import json
import multiprocessing
import os
import random
from collections import defaultdict
from importlib.util import find_spec

import audiomentations
import numpy as np
import pytest
import soundfile
import torch
from audiomentations import AddBackgroundNoise, Gain, PitchShift, TimeStretch
from audiomentations.core.transforms_interface import BaseWaveformTransform
from lightning.pytorch import LightningModule
from scipy.stats import kstest
from torch import nn

from ser.data import Augment, FrontEnd, LogMel, PeakNoise, Preprocess
from ser.data.augment import Seeded, seed_of
from ser.data.loaders import TrainSampler, loader, run_seed
from ser.errors import UserError
from ser.features.audio import audio_files, read
from ser.features.inventory import stored_caches
from ser.settings.class_paths import describe

RATE_HZ = 8000
WHOLE = Preprocess()
DIVIDED = Preprocess(duration_s=0.2, segment_hop_s=0.1)


def paper_004():
    """Return the four copies of paper 004."""
    return Augment(
        copies=[
            PeakNoise(max_share=0.1, p=1.0),
            TimeStretch(1.1, 1.1, leave_length_unchanged=False, p=1.0),
            TimeStretch(0.8, 0.8, leave_length_unchanged=False, p=1.0),
            PitchShift(1.5, 1.5, p=1.0),
        ]
    )


def online():
    stretch = TimeStretch(0.8, 1.25, leave_length_unchanged=False, p=0.7)
    return Augment(online=[stretch, PitchShift(-2.0, 2.0, p=0.7), PeakNoise(max_share=0.1, p=1.0)])


def noise(seed=0, samples=4000):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def contents(batches):
    """Return what the valid frames of every segment hold, as bytes, by utterance."""
    found = {}
    for batch in batches:
        for features, length, _, position in zip(*batch, strict=True):
            found.setdefault(position.item(), []).append(features[..., :length].numpy().tobytes())
    return {position: sorted(segments) for position, segments in found.items()}


def as_bytes(batches):
    """Return all that batches hold, padding and order included."""
    return [[part.numpy().tobytes() for part in batch] for batch in batches]


# -- what the transforms do --


def test_noise_is_white_and_in_proportion_to_the_peak():
    """The deviation is a uniform share, at most a tenth, of the largest magnitude."""
    speech = noise()
    speech[7] = -0.8  # the peak
    shares = []
    for seed in range(200):
        added = Seeded((PeakNoise(max_share=0.1, p=1.0),), seed)(speech, RATE_HZ) - speech
        shares.append(added.std(dtype=float) / 0.8)
    assert 0 < min(shares) < max(shares) <= 0.1 * 1.06  # five standard errors of a deviation of 4000 samples
    assert kstest(shares, "uniform", args=(0, 0.1)).pvalue > 1e-3
    assert kstest(added / added.std(), "norm").pvalue > 1e-3
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    low, high = spectrum[1:1000].mean(), spectrum[1000:2000].mean()
    assert low == pytest.approx(high, rel=0.25)


def test_noise_leaves_silence_alone():
    assert (Seeded((PeakNoise(p=1.0),), 0)(np.zeros(100, np.float32), RATE_HZ) == 0).all()
    assert Seeded((PeakNoise(p=0.0),), 0)(noise(), RATE_HZ).tobytes() == noise().tobytes()


@pytest.mark.parametrize(("rate", "samples", "frames"), [(1.1, 8000, 98), (0.8, 11_000, 136)])
def test_stretching_shortens_and_lengthens_by_its_rate(tmp_path, rate, samples, frames):
    """8800 samples: windows of 200 every 80 make 1 + (8800 - 200) // 80 = 108 frames."""
    soundfile.write(tmp_path / "a.wav", noise(samples=8800), RATE_HZ)
    front_end = FrontEnd(Preprocess(top_db=None), LogMel(RATE_HZ, n_mels=8, n_fft=256))
    stretch = Seeded((TimeStretch(rate, rate, leave_length_unchanged=False, p=1.0),), 0)
    assert stretch(noise(samples=8800), RATE_HZ).shape == (samples,)
    assert front_end(tmp_path / "a.wav").shape[-1] == 108
    (stretched,) = front_end.segments(tmp_path / "a.wav", stretch)
    assert stretched.shape[-1] == frames


def peak_hz(waveform, rate_hz):
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 16 * len(waveform)))
    return spectrum.argmax() * rate_hz / (16 * len(waveform))


@pytest.mark.parametrize("semitones", [1.5, -1.5])
def test_shifting_moves_a_tone_by_semitones(semitones):
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)
    shifted = Seeded((PitchShift(semitones, semitones, p=1.0),), 0)(tone, 16_000)
    assert shifted.shape == tone.shape
    assert peak_hz(tone, 16_000) == pytest.approx(440, abs=0.1)
    assert peak_hz(shifted[4000:12_000], 16_000) == pytest.approx(440 * 2 ** (semitones / 12), abs=2)


def test_transforms_follow_one_another():
    both = Seeded((Gain(6.0, 6.0, p=1.0), TimeStretch(0.8, 0.8, leave_length_unchanged=False, p=1.0)), 0)
    louder = (noise() * 10 ** (6 / 20)).astype(np.float32)
    alone = Seeded((TimeStretch(0.8, 0.8, leave_length_unchanged=False, p=1.0),), 0)
    np.testing.assert_allclose(both(noise(), RATE_HZ), alone(louder, RATE_HZ), atol=1e-6)


def test_a_seeded_change_is_a_function_that_leaves_the_process_its_random_numbers():
    change = Seeded((PeakNoise(p=1.0), PitchShift(-4.0, 4.0, p=0.5)), 5)
    random.seed(1)
    np.random.seed(1)
    before, numpy_before = random.getstate(), np.random.get_state()
    first = change(noise(), RATE_HZ)
    assert random.getstate() == before
    np.testing.assert_equal(np.random.get_state(), numpy_before)
    random.seed(2)
    np.random.seed(2)
    assert change(noise(), RATE_HZ).tobytes() == first.tobytes()
    assert Seeded(change.transforms, 6)(noise(), RATE_HZ).tobytes() != first.tobytes()


def negated(waveform, sample_rate_hz):
    return -waveform


NEEDS = {
    "Limiter": "numpy_audio_limiter",
    "LoudnessNormalization": "loudness",
    "Mp3Compression": "fast_mp3_augment",
    "RoomSimulator": "pyroomacoustics",
}
TRANSFORMS = {
    name: cls
    for name, cls in inspect.getmembers(audiomentations, inspect.isclass)
    if issubclass(cls, BaseWaveformTransform) and (name not in NEEDS or find_spec(NEEDS[name]) is not None)
}
ARGUMENTS = {
    "AddShortNoises": {"min_time_between_sounds": 0.1, "max_time_between_sounds": 0.5},
    "AdjustDuration": {"duration_seconds": 0.3},
    "Lambda": {"transform": negated},
}


@pytest.mark.filterwarnings("ignore")  # of short noises
@pytest.mark.parametrize("name", TRANSFORMS)
def test_any_transform_of_audiomentations_can_be_described_and_repeated(name, tmp_path):
    soundfile.write(tmp_path / "noise.wav", noise(1), RATE_HZ)
    parameters = inspect.signature(TRANSFORMS[name]).parameters
    folders = {folder: tmp_path for folder in ("sounds_path", "ir_path") if folder in parameters}
    transform = TRANSFORMS[name](p=1.0, **ARGUMENTS.get(name, {}), **folders)
    (told,) = json.loads(json.dumps(describe(Augment(online=[transform]))))["init_args"]["online"]
    assert told["class_path"].endswith(f".{name}")
    assert told["init_args"].keys() >= parameters.keys() - {"kwargs"}
    change = Seeded((transform,), 1)
    waveform = np.pad(3 * noise(samples=3 * RATE_HZ), RATE_HZ)  # with something to clip and to trim
    first = change(waveform, RATE_HZ)
    assert first.ndim == 1
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert first.tobytes() != waveform.tobytes()
    random.seed()
    np.random.seed()
    assert change(waveform, RATE_HZ).tobytes() == first.tobytes()


@pytest.mark.parametrize("augmented", ["copies", "online"])
def test_noises_from_a_folder_are_added(augmented, tiny, tmp_path):
    (tmp_path / "noises").mkdir()
    soundfile.write(tmp_path / "noises/a.wav", noise(1), RATE_HZ)
    corpus = tiny(augment=Augment(**{augmented: [AddBackgroundNoise(tmp_path / "noises", p=1.0)]}))
    json.dumps(corpus.protocol_description())
    assert contents(corpus.train_dataloader()) != contents(tiny(corpus.root).train_dataloader())


# -- fixed copies --


def test_four_copies_make_the_training_set_five_times_as_large(tiny):
    corpus = tiny(augment=paper_004(), batch_size=7)
    corpus.prepare_data()
    corpus.setup("fit")
    batches = list(corpus.train_dataloader())
    assert sum(len(batch.targets) for batch in batches) == 5 * len(corpus.split.train) == 40
    found = contents(batches)
    assert sorted(found) == sorted(corpus.split.train)
    assert all(len(set(segments)) == 5 for segments in found.values())
    for batch in batches:
        assert [corpus.labels[t] for t in batch.targets] == [corpus.table[i].emotion for i in batch.positions]


def test_copies_are_what_the_transforms_make_of_the_cleaned_waveform(tiny):
    corpus = tiny(augment=paper_004())
    found = contents(corpus.train_dataloader())
    features, preprocess = corpus.front_end.features, corpus.front_end.preprocess
    for position in corpus.split.train:
        path = corpus.table[position].path
        expected = [corpus.front_end(path).numpy().tobytes()]
        cleaned = preprocess.clean(read(path, RATE_HZ), RATE_HZ)
        for transform in corpus.augment.copies[1:]:  # which have nothing random
            (piece,) = preprocess.divide(transform(cleaned, RATE_HZ), RATE_HZ)
            expected.append(features(torch.from_numpy(piece)).numpy().tobytes())
        assert set(expected) < set(found[position])


def train_contents(root, cache_dir, tiny, **options):
    return contents(tiny(root, cache_dir=cache_dir, augment=paper_004(), **options).train_dataloader())


def test_copies_are_the_same_in_every_process_and_build(tiny, make_corpus, tmp_path):
    root = make_corpus()
    here = train_contents(root, tmp_path / "here", tiny)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def elsewhere():
        random.seed(99)
        np.random.seed(99)
        os.environ["PL_GLOBAL_SEED"] = "99"
        for fold in (2, 1):  # others' copies first
            tiny(root, cache_dir=tmp_path / "there", augment=paper_004(), fold=fold).prepare_data()
        results.put(train_contents(root, tmp_path / "there", tiny))

    process = context.Process(target=elsewhere)
    process.start()
    assert results.get() == here
    process.join()


def stored(corpus):
    """Return how many recordings and copies the cache holds."""
    (cache,) = stored_caches(corpus.cache_dir)
    return cache.rows


def test_a_second_build_reads_no_recording_and_computes_nothing(tiny, make_corpus):
    root = make_corpus()
    first = contents(tiny(root, augment=paper_004()).train_dataloader())
    for path in audio_files(root):  # other bytes of the same size and time: reading one would be an error
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = tiny(root, augment=paper_004())
    again.prepare_data()
    again.setup("fit")
    assert contents(again.train_dataloader()) == first
    assert stored(again) == 16 + 4 * 8


def test_copies_are_made_of_training_utterances_only_and_shared_by_folds(tiny, make_corpus):
    root = make_corpus()
    for fold, expected in ((0, 16 + 4 * 8), (1, 16 + 4 * 12), (2, 16 + 4 * 16)):  # a further speaker each
        corpus = tiny(root, augment=paper_004(), fold=fold)
        corpus.prepare_data()
        assert stored(corpus) == expected
    longer = [*paper_004().copies, Gain(-6.0, -6.0, p=1.0)]
    corpus = tiny(root, augment=Augment(copies=longer))
    corpus.prepare_data()
    assert stored(corpus) == expected + 8  # and nothing else anew


def test_the_same_transform_twice_makes_two_copies(tiny):
    corpus = tiny(augment=Augment(copies=[PeakNoise(p=1.0), PeakNoise(p=1.0)]))
    found = contents(corpus.train_dataloader())
    assert all(len(set(segments)) == 3 for segments in found.values())


def test_the_protocol_says_how_training_was_augmented(tiny):
    corpus = tiny(augment=paper_004())
    told = json.loads(json.dumps(corpus.protocol_description()))["augment"]
    assert [copy["class_path"].rpartition(".")[2] for copy in told["init_args"]["copies"]] == [
        "PeakNoise", "TimeStretch", "TimeStretch", "PitchShift",
    ]  # fmt: skip
    assert told["init_args"]["copies"][1]["init_args"]["max_rate"] == 1.1
    assert corpus.fingerprint == tiny(corpus.root).fingerprint  # the same utterances are scored


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": [PeakNoise(p=1.0), Gain(p=0.5)]}, r"copies: Gain would leave some copies unchanged"),
        ({"copies": [PeakNoise(p=1.0)], "online": [Gain()]}, "augment has copies and online transforms; give only one"),
    ],
)
def test_settings_that_make_no_sense_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        Augment(**options)


def test_stretching_that_no_seed_decides_is_rejected():
    slow = TimeStretch(0.4, 0.4, leave_length_unchanged=False, p=1.0)
    draws = [Seeded((slow,), 0)(noise(), RATE_HZ) for _ in range(2)]
    assert draws[0].tobytes() != draws[1].tobytes(), "a newer library keeps to the seed: let it be used"
    for how in ("copies", "online"):
        with pytest.raises(UserError, match=r"TimeStretch\(min_rate=0.4\): below 0.5, the method .* ignores"):
            Augment(**{how: [slow]})
    other = TimeStretch(0.4, 0.4, leave_length_unchanged=False, method="librosa_phase_vocoder", p=1.0)
    assert Augment(copies=[other]).copies == [other]


@pytest.mark.parametrize("max_share", [0, -0.1])
def test_noise_must_have_a_level(max_share):
    with pytest.raises(UserError, match=rf"max_share is {max_share}; it must be a positive share of the peak"):
        PeakNoise(max_share)


# -- online --


def epoch_of(dataset, epoch, workers=0, rank=0, world_size=1, batch_size=3):
    batches = loader(dataset, TrainSampler(dataset, world_size, rank), batch_size, workers)
    batches.sampler.set_epoch(epoch)
    return list(batches)


@pytest.fixture(params=[WHOLE, DIVIDED], ids=["whole", "divided"])
def make_set(request, make_corpus, tiny, monkeypatch):
    """Return a function that makes the training set of a run with this seed."""
    root = make_corpus()

    def make(seed):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))  # what Lightning's seed_everything leaves behind
        return tiny(root, augment=online(), preprocess=request.param).train_dataloader().dataset

    return make


def test_online_batches_do_not_depend_on_the_number_of_workers(make_set):
    dataset = make_set(7)
    expected = [as_bytes(epoch_of(dataset, epoch)) for epoch in range(2)]
    for workers in (1, 2):
        batches = loader(dataset, TrainSampler(dataset, 1, 0), 3, workers)
        for epoch in range(2):  # the workers stay
            batches.sampler.set_epoch(epoch)
            assert as_bytes(batches) == expected[epoch]


def test_online_utterances_are_the_same_whichever_process_makes_them(make_set):
    expected = contents(epoch_of(make_set(7), 4))
    assert len(expected) == 8
    for world_size in (1, 2, 3):
        made = defaultdict(set)
        for rank in range(world_size):
            for position, segments in contents(epoch_of(make_set(7), 4, 0, rank, world_size, batch_size=5)).items():
                made[position].update(segments)
        assert made == {position: set(segments) for position, segments in expected.items()}


def test_online_draws_differ_between_epochs_and_seeds(make_set):
    dataset = make_set(7)
    originals = {i: dataset.front_end.segments(dataset.paths[i]) for i in dataset.positions.tolist()}
    seen = [{position: [segment.numpy().tobytes() for segment in made] for position, made in originals.items()}]
    seen += [contents(epoch_of(dataset, epoch)) for epoch in range(2)]
    seen += [contents(epoch_of(make_set(8), epoch)) for epoch in range(2)]
    for position in originals:
        every = [segment for draw in seen for segment in set(draw[position])]  # a shorter utterance repeats some
        assert len(set(every)) == len(every)


def test_online_batches_leave_the_process_its_random_numbers(make_set):
    dataset = make_set(7)
    before, numpy_before, torch_before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first = dataset.__getitems__([0, 5])
    assert random.getstate() == before
    np.testing.assert_equal(np.random.get_state(), numpy_before)
    assert torch.equal(torch.get_rng_state(), torch_before)
    random.seed(3)
    np.random.seed(3)
    assert as_bytes([dataset.__getitems__([0, 5])]) == as_bytes([first])


def test_online_batches_hold_what_belongs_together(tiny):
    corpus = tiny(augment=online(), preprocess=DIVIDED, batch_size=3)
    whole = list(corpus.train_dataloader())
    for batch in whole:
        assert [corpus.labels[t] for t in batch.targets] == [corpus.table[i].emotion for i in batch.positions]
        assert batch.features.shape[1:] == corpus.feature_shape
        assert len(batch.targets) == 3 or batch is whole[-1]
        for features, length in zip(batch.features, batch.lengths, strict=True):
            assert (features[..., length:] == 0).all()
    trimmed = tiny(corpus.root, augment=online(), preprocess=DIVIDED, batch_size=3, padding="batch")
    for batch, full in zip(trimmed.train_dataloader(), whole, strict=True):
        assert batch.features.shape[-1] == batch.lengths.max()
        assert torch.equal(batch.features, full.features[..., : batch.lengths.max()])


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
@pytest.mark.parametrize("preprocess", [WHOLE, DIVIDED], ids=["whole", "divided"])
def test_a_batch_is_of_as_many_segments_online_as_from_the_cache(tiny, preprocess, sampling):
    """What changes nothing leaves the batches as they are, segment by segment."""
    options = {"preprocess": preprocess, "batch_size": 3, "sampling": sampling}
    corpus = tiny(augment=Augment(online=[PeakNoise(p=0.0)]), **options)
    stored_batches = list(tiny(corpus.root, **options).train_dataloader())
    assert as_bytes(corpus.train_dataloader()) == as_bytes(stored_batches)
    assert [len(batch.targets) for batch in stored_batches[:-1]] == [3] * (len(stored_batches) - 1)


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_every_segment_is_drawn_once_an_epoch_whatever_the_augmentation_makes_of_the_length(tiny, rate):
    stretched = TimeStretch(rate, rate, leave_length_unchanged=False, p=1.0)
    corpus = tiny(augment=Augment(online=[stretched]), preprocess=DIVIDED, batch_size=3)
    drawn = contents(corpus.train_dataloader())
    for position, segments in drawn.items():
        path = corpus.table[position].path
        made = corpus.front_end.segments(path, Seeded((stretched,), seed_of(run_seed(), 0, position)))
        assert len(segments) == len(corpus.front_end.segments(path))
        assert set(segments) <= {segment.numpy().tobytes() for segment in made}
        if len(made) <= len(segments):  # none is left out
            assert len(set(segments)) == len(made)


def test_nothing_of_online_augmentation_is_cached(tiny):
    corpus = tiny(augment=online())
    list(corpus.train_dataloader())
    assert stored(corpus) == 16
    plain = tiny(corpus.root)
    for ours, theirs in zip(corpus.statistics(), plain.statistics(), strict=True):
        assert torch.equal(ours, theirs)


# -- for training utterances only --


class Listener(LightningModule):
    """Keeps every batch that a trainer hands it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen = {}

    def training_step(self, batch, batch_idx):
        self.seen.setdefault("train", []).append(batch)
        return self.net(batch.features.mean().reshape(1)).sum()

    def validation_step(self, batch, batch_idx):
        self.seen.setdefault("val", []).append(batch)

    def test_step(self, batch, batch_idx):
        self.seen.setdefault("test", []).append(batch)

    def predict_step(self, batch, batch_idx):
        self.seen.setdefault("predict", []).append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def seen(corpus, make_trainer):
    listener = Listener()
    trainer = make_trainer(2, log_every_n_steps=1)  # with validation before, between and after
    trainer.fit(listener, datamodule=corpus)
    trainer.test(listener, datamodule=corpus, verbose=False)
    trainer.predict(listener, datamodule=corpus)
    return listener.seen


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
@pytest.mark.parametrize("preprocess", [WHOLE, DIVIDED], ids=["whole", "divided"])
def test_validation_and_test_never_see_an_augmented_utterance(tiny, make_corpus, make_trainer, preprocess):
    root = make_corpus()
    plain = seen(tiny(root, preprocess=preprocess, batch_size=3), make_trainer)
    originals = contents(plain["predict"])
    for augment in (paper_004(), online()):
        augmented = seen(tiny(root, preprocess=preprocess, batch_size=3, augment=augment), make_trainer)
        for name in ("val", "test", "predict"):  # in every bit, padding and order included
            assert len(plain[name]) > 0
            assert as_bytes(augmented[name]) == as_bytes(plain[name])
        everything = {segment for segments in originals.values() for segment in segments}
        trained = contents(augmented["train"])
        assert trained.keys() == contents(plain["train"]).keys()
        for segments in trained.values():
            assert len(set(segments) - everything) > 0


def test_statistics_are_those_of_the_training_rows_with_their_copies(tiny):
    corpus = tiny(augment=paper_004(), preprocess=DIVIDED, fold=1)
    mean, sigma = corpus.statistics()
    rows = [
        row[..., :length].double().numpy()
        for batch in corpus.train_dataloader()
        for row, length in zip(batch.features, batch.lengths, strict=True)
    ]
    assert len(rows) > 5 * len(corpus.split.train)
    frames = np.concatenate(rows, axis=-1)
    np.testing.assert_allclose(mean[..., 0], frames.mean(axis=-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sigma[..., 0], frames.std(axis=-1), rtol=1e-4)
    assert not torch.allclose(mean, tiny(corpus.root, preprocess=DIVIDED, fold=1).statistics()[0], rtol=1e-3)
