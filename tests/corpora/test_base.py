import json
import os
import shutil
import socket
import tempfile
from multiprocessing.connection import arbitrary_address

import numpy as np
import platformdirs
import pytest
import soundfile
import torch
from audiomentations import Gain

from ser.corpora import AudioFolder, EmoDB
from ser.data import Augment, LeaveOneSentenceOut, LeaveOneSpeakerOut, LogMel, Preprocess
from ser.data.loaders import SOCKET
from ser.errors import UserError
from ser.features.audio import audio_files
from ser.features.inventory import stored_caches
from ser.survey.corpus import survey

# -- what is there --


def test_a_corpus_says_what_the_model_must_know(tiny):
    corpus = tiny()
    assert corpus.labels == ["anger", "neutral"]
    assert corpus.num_classes == 2
    assert corpus.feature_shape == (2, 8, 300)
    assert corpus.found_and_published() == {"anger": [8, 8], "neutral": [8, 8]}
    assert len(corpus.table) == 16
    assert corpus.summary().startswith(
        "Tiny, fold 0: train on 8 utterances of speakers carla, dan; validate on 4 utterances of speaker ben; "
        "test 4 utterances of speaker anna."
    )


def test_emotions_choose_and_order_the_classes(tiny, make_corpus):
    root = make_corpus()
    for path in list(root.glob("*_s2.wav"))[::2]:
        path.rename(path.with_name(path.name.replace("anger", "joy").replace("neutral", "joy")))
    assert tiny(root).labels == ["anger", "neutral", "joy"]  # the published order, then the others
    corpus = tiny(root, emotions=["neutral", "anger"])
    assert corpus.labels == ["neutral", "anger"]
    assert {utterance.emotion for utterance in corpus.table} == {"neutral", "anger"}
    corpus.prepare_data()
    for batch in corpus.predict_dataloader():
        for position, target in zip(batch.positions.tolist(), batch.targets.tolist(), strict=True):
            assert corpus.labels[target] == corpus.table[position].emotion


@pytest.mark.parametrize(
    ("emotions", "message"),
    [
        (["anger", "joy"], r"emotions: joy not found in Tiny here, which has anger, neutral\."),
        (["anger"], r"emotions is \['anger'\]; it must name at least two emotions, each once"),
        ([], r"emotions is \[\]; it must name at least two"),
        (["anger", "neutral", "anger"], r"emotions is .*; it must name at least two emotions, each once"),
    ],
)
def test_emotions_that_make_no_sense_are_rejected(tiny, emotions, message):
    with pytest.raises(UserError, match=message):
        tiny(emotions=emotions).labels  # noqa: B018


def test_the_default_cache_folder_is_the_users(tiny, monkeypatch, tmp_path):
    assert tiny(cache_dir=None).cache_dir == platformdirs.user_cache_path("ser")


# -- bad roots --


def test_a_root_that_does_not_exist_is_rejected(tiny, tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist; --data.root must be the folder of Tiny: files like"):
        tiny(tmp_path / "nowhere").labels  # noqa: B018


def test_a_root_must_be_given(tiny, cache_dir):
    corpus = tiny()
    corpus.root = None
    with pytest.raises(UserError, match=r"Tiny needs the folder of its recordings: give --data.root DIR .*example.org"):
        corpus.labels  # noqa: B018


def test_a_root_without_audio_is_rejected(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").touch()
    with pytest.raises(UserError, match=r"empty holds no audio files\. --data.root must be the folder of Tiny: files"):
        tiny(tmp_path / "empty").labels  # noqa: B018


def test_a_root_with_another_corpus_is_rejected(tiny, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("03a01Fa.wav", "03a01Wa.wav"):
        (tmp_path / "other" / name).touch()
    reason = r"None of 2 recordings in .* can be used:\n  03a01Fa.wav: not named like anna_anger_s1.wav\n"
    with pytest.raises(UserError, match=reason):
        tiny(tmp_path / "other").labels  # noqa: B018


def test_workers_that_cannot_start_are_rejected(tiny, make_corpus, monkeypatch):
    """Without it, training waits for its first batch for ever."""
    root = make_corpus()
    with pytest.raises(UserError, match="num_workers is -1; it must be at least 0"):
        tiny(root, num_workers=-1)
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 80)
    with pytest.raises(UserError, match=r"81 bytes, where at most 7.*Set TMPDIR to a shorter one"):
        tiny(root, num_workers=1)
    tiny(root, num_workers=0)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no sockets of this kind")
def test_the_length_of_a_sockets_name_is_that_of_multiprocessing():
    assert len(arbitrary_address("AF_UNIX")) == len(tempfile.gettempdir()) + len(SOCKET)


def test_recordings_without_labels_are_not_scored(make_corpus, cache_dir):
    corpus = AudioFolder(make_corpus(), emotions=["anger", "neutral"], cache_dir=cache_dir)
    with pytest.raises(UserError, match="AudioFolder has no labels, so it cannot be used for training"):
        corpus.prepare_data()


def test_a_batch_size_below_one_is_rejected(tiny):
    with pytest.raises(UserError, match="batch_size is 0; it must be at least 1"):
        tiny(batch_size=0)


# -- bad files --


@pytest.fixture
def damaged(make_corpus):
    """A corpus with a file of every kind of damage."""
    root = make_corpus()
    samples = np.random.default_rng(5).uniform(-0.5, 0.5, 4000)
    whole = (root / "ben_anger_s1.wav").read_bytes()
    (root / "ben_anger_s1.wav").write_bytes(whole[: len(whole) // 2])
    (root / "ben_anger_s2.wav").write_bytes(b"")
    soundfile.write(root / "carla_anger_s1.wav", 0 * samples, 8000)
    soundfile.write(root / "carla_anger_s2.wav", np.append(samples, np.nan), 8000, subtype="FLOAT")
    (root / "dan_anger_s1.wav").write_text("not audio " * 20)
    (root / "dan_anger_s2.wav").unlink()
    (root / "dan_anger_s2.wav").symlink_to(root / "gone.wav")
    for number, speaker in enumerate(("ben", "carla", "dan")):  # one sound file in anger each
        soundfile.write(root / f"{speaker}_anger_s3.wav", samples[number:], 8000)
    soundfile.write(root / "eve_anger_s1.wav", samples, 8000)  # an unknown speaker
    soundfile.write(root / "noise.wav", samples, 8000)
    return root


REASONS = {
    "eve_anger_s1.wav": "not named like anna_anger_s1.wav",
    "noise.wav": "not named like anna_anger_s1.wav",
    "ben_anger_s1.wav": "truncated: the header promises",
    "ben_anger_s2.wav": "empty: no bytes",
    "carla_anger_s1.wav": "silent",
    "carla_anger_s2.wav": "holds samples that are not finite numbers",
    "dan_anger_s1.wav": "not readable as audio",
    "dan_anger_s2.wav": "cannot be read (No such file or directory)",
}


def test_damaged_files_are_all_named_at_once(tiny, damaged, cache_dir):
    with pytest.raises(UserError) as stopped:
        tiny(damaged).prepare_data()
    lines = str(stopped.value).splitlines()
    assert lines[0] == f"8 of 21 files in {damaged} cannot be used:"
    assert lines[-1] == "Repair or remove them, or leave them out with --data.on_bad_file skip."
    named = dict(line.strip().split(": ", 1) for line in lines[1:-1])
    assert named.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert reason in named[name], name
    assert not (cache_dir / "features").exists()


def test_damaged_files_are_left_out_on_request_and_the_protocol_says_so(tiny, damaged):
    corpus = tiny(damaged, on_bad_file="skip")
    corpus.prepare_data()
    corpus.setup("fit")
    assert len(corpus.table) == 13
    assert not {utterance.path.name for utterance in corpus.table} & REASONS.keys()
    left_out = {item["file"]: item["reason"] for item in corpus.protocol_description()["left_out"]}
    assert left_out.keys() == REASONS.keys()
    assert all(reason in left_out[name] for name, reason in REASONS.items())
    seen = [p for batch in corpus.predict_dataloader() for p in batch.positions.tolist()]
    assert seen == list(range(13))


def test_what_is_left_out_is_said(tiny, damaged):
    note, *_ = tiny(damaged, on_bad_file="skip").input_notes
    assert note.startswith("Left out as unusable: 8, eve_anger_s1.wav (not named like")
    assert note.endswith(") and 5 more.")


def test_recordings_that_preprocessing_leaves_nothing_of_are_bad_files(tiny, make_corpus):
    root = make_corpus()
    soundfile.write(root / "anna_anger_s1.wav", [0.5, -0.5], 96_000)  # less than a sample at 8 kHz
    skipping = Preprocess(None, offset_s=0.44)  # another lasts 0.43 s
    with pytest.raises(UserError, match=r"2 of 16 files .*\n  anna_anger_s1.wav: too short: 2.08e-05 s, all of which"):
        tiny(root, preprocess=skipping).prepare_data()
    corpus = tiny(root, preprocess=skipping, on_bad_file="skip")
    corpus.prepare_data()
    assert len(corpus.table) == sum(len(batch.positions) for batch in corpus.predict_dataloader()) == 14
    with pytest.raises(UserError, match=r"1 of 16 files .*\n  anna_anger_s1.wav: too short: 2.08e-05 s\n"):
        tiny(root).prepare_data()


def test_notes_tell_what_is_cut_narrow_or_too_short(tiny, make_corpus):
    def notes(**options):
        return tiny(root, **options).input_notes

    root = make_corpus()
    assert notes() == []
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 64_000)
    soundfile.write(root / "anna_anger_s1.wav", noise, 16_000)
    soundfile.write(root / "anna_anger_s2.wav", noise[:80], 8_000)
    soundfile.write(root / "ben_anger_s1.wav", noise[:8_000], 4_000)
    (long,) = notes(preprocess=Preprocess(duration_s=2.5))[:1]
    assert long == "Truncated to 2.5 s: 1 of 16, anna_anger_s1.wav (4.0 s)."
    assert notes(preprocess=Preprocess(duration_s=2.5, segment_hop_s=1.0)) == notes(preprocess=Preprocess(duration_s=4))
    assert notes(preprocess=Preprocess(duration_s=4)) == [
        "Sampled below the 8000 Hz of the features, so without higher frequencies: 1 of 16, "
        "ben_anger_s1.wav (4000 Hz).",
        "Shorter than 0.1 s, too short to express an emotion: 1 of 16, anna_anger_s2.wav (0.010 s).",
    ]
    (narrow, _) = notes(features=LogMel(16_000), preprocess=Preprocess(duration_s=4))
    assert "the 16000 Hz of the features" in narrow
    assert narrow.endswith(
        "15 of 16, ben_anger_s1.wav (4000 Hz), dan_neutral_s2.wav (8000 Hz), dan_neutral_s1.wav (8000 Hz) and 12 more."
    )


def test_nothing_but_damaged_files_is_an_error_even_then(tiny, make_corpus):
    root = make_corpus()
    for path in root.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"None of the 16 files in .* can be used; the first empty: no bytes\."):
        tiny(root, on_bad_file="skip").table  # noqa: B018


@pytest.mark.parametrize(
    ("below", "message"),
    [
        ("recordings", r"cache.recordings cannot be written: Not a directory\."),
        ("features", r"The feature cache cannot be written in .*cache.features.*: Not a directory\."),
    ],
)
def test_a_cache_folder_that_cannot_be_written_is_named(tiny, cache_dir, below, message):
    cache_dir.mkdir()
    (cache_dir / below).write_text("a file where a folder must be")
    with pytest.raises(UserError, match=message + r" Fix that, or .* with --data.cache_dir\."):
        tiny().prepare_data()


# -- what the protocol says --


def test_the_protocol_description_is_the_run_in_plain_data(tiny):
    corpus = tiny(fold=2, preprocess=Preprocess(duration_s=1.0))
    description = json.loads(json.dumps(corpus.protocol_description()))
    assert description == corpus.protocol_description()
    assert description["corpus"] == "Tiny"
    assert description["class_path"].endswith(".Tiny")
    assert description["root"] == str(corpus.root)
    assert description["synthetic"] is False
    assert description["labels"] == ["anger", "neutral"]
    assert description["protocol"]["class_path"] == "ser.data.LeaveOneSpeakerOut"
    assert (description["fold"], description["tests"]) == (2, "carla")
    assert description["speaker_disjoint"] is True
    assert description["fingerprint"] == corpus.fingerprint
    assert description["front_end"] == corpus.front_end.description()
    assert description["left_out"] == []
    assert description["test"] == {
        "utterances": 4,
        "speakers": ["carla"],
        "emotions": {"anger": 2, "neutral": 2},
        "files": [f"carla_{emotion}_{sentence}.wav" for emotion in ("anger", "neutral") for sentence in ("s1", "s2")],
    }
    assert description["val"]["speakers"] == ["dan"]
    assert description["train"]["speakers"] == ["anna", "ben"]


def test_the_fingerprint_is_of_what_is_scored_and_not_of_where_it_lies(tiny, make_corpus, tmp_path):
    root = make_corpus()
    corpus = tiny(root)
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert tiny(moved).fingerprint == corpus.fingerprint
    assert tiny(root, features=LogMel(8000, 16, n_fft=256)).fingerprint == corpus.fingerprint
    others = {
        tiny(root, fold=1).fingerprint,
        tiny(root, protocol=LeaveOneSpeakerOut("dan")).fingerprint,
        tiny(root, emotions=["neutral", "anger"]).fingerprint,
    }
    (moved / "dan_anger_s1.wav").unlink()
    others.add(tiny(moved).fingerprint)
    shutil.copy(root / "dan_anger_s2.wav", moved / "dan_anger_s1.wav")
    others.add(tiny(moved).fingerprint)
    assert len(others - {corpus.fingerprint}) == 5


# -- features --


def test_statistics_are_those_of_the_training_frames_alone(tiny):
    corpus = tiny(fold=1)
    corpus.prepare_data()
    corpus.setup("fit")
    mean, sigma = corpus.statistics()
    paths = [corpus.table[i].path for i in corpus.split.train]
    frames = np.concatenate([corpus.front_end(path).double().numpy() for path in paths], axis=-1)
    np.testing.assert_allclose(mean[..., 0], frames.mean(axis=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sigma[..., 0], frames.std(axis=-1), rtol=1e-5)
    all_frames = np.concatenate([corpus.front_end(u.path).numpy() for u in corpus.table], axis=-1)
    assert not np.allclose(mean[..., 0], all_frames.mean(axis=-1), rtol=1e-5, atol=1e-6)


def test_a_second_run_reads_no_recording(tiny, make_corpus):
    root = make_corpus()
    first = tiny(root)
    first.prepare_data()
    for path in audio_files(root):  # other bytes of the same size and time: reading one would be an error
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = tiny(root)
    second.prepare_data()
    second.setup("fit")
    for one, other in zip(first.predict_dataloader(), second.predict_dataloader(), strict=True):
        assert torch.equal(one.features, other.features)


def test_folds_subsets_and_corpora_share_one_cache(tiny, make_corpus, cache_dir):
    root = make_corpus()
    for options in ({"emotions": ["neutral", "anger"]}, {"fold": 3}, {"batch_size": 5, "padding": "batch"}):
        tiny(root, **options).prepare_data()
    (cache,) = stored_caches(cache_dir)
    assert cache.rows == 16


def test_unlabelled_recordings_need_the_emotions_of_a_checkpoint(make_corpus, cache_dir):
    root = make_corpus()
    with pytest.raises(UserError, match=r"has no labels; give the --ckpt_path of a trained model"):
        AudioFolder(root, cache_dir=cache_dir).labels  # noqa: B018
    corpus = AudioFolder(root, emotions=["joy", "fear"], features=LogMel(8000, 8, n_fft=256), cache_dir=cache_dir)
    assert corpus.labels == ["joy", "fear"]
    batches = list(corpus.predict_dataloader())
    assert [p for batch in batches for p in batch.positions.tolist()] == list(range(16))
    assert {target for batch in batches for target in batch.targets.tolist()} == {-1}


def test_statistics_of_emodb_are_numpys(corpora, cache_dir):
    corpus = EmoDB(
        corpora / "emodb",
        emotions=["anger", "neutral", "happiness", "sadness"],
        preprocess=Preprocess(pre_emphasis=0.97),
        features=LogMel(deltas=2),
        cache_dir=cache_dir,
        batch_size=400,
    )
    corpus.prepare_data()
    corpus.setup("fit")
    assert corpus.feature_shape == (3, 40, 300)
    (batch,) = corpus.train_dataloader()
    assert len(batch.positions) == len(corpus.split.train)
    frames = np.concatenate(
        [row[..., :length] for row, length in zip(batch.features.numpy(), batch.lengths.tolist(), strict=True)], axis=-1
    ).astype(np.float64)
    mean, sigma = corpus.statistics()
    np.testing.assert_allclose(mean[..., 0], frames.mean(axis=-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sigma[..., 0], frames.std(axis=-1), rtol=1e-4)


def test_a_fold_and_a_protocol_may_be_set_after_first_use(tiny):
    corpus = tiny(augment=Augment(copies=[Gain(p=1.0)]))
    corpus.prepare_data()
    first = (corpus.fingerprint, corpus.split, len(corpus.train_dataloader().dataset))
    corpus.fold = 2
    other = tiny(corpus.root, fold=2, augment=corpus.augment)
    assert (corpus.fingerprint, corpus.split) == (other.fingerprint, other.split)
    assert corpus.fingerprint != first[0]
    assert len(corpus.train_dataloader().dataset) == first[2]  # with the copies of what is trained on now
    assert corpus.protocol_description() == other.protocol_description()
    corpus.fold, corpus.protocol = 0, LeaveOneSentenceOut()
    assert corpus.audit.leaks == ()
    assert {corpus.table[i].sentence for i in corpus.split.test} == {"s1"}
    corpus.protocol = LeaveOneSpeakerOut()
    assert (corpus.fingerprint, corpus.split) == first[:2]


def test_a_survey_leaves_its_corpus_as_it_was(tiny, damaged):
    corpus = tiny(damaged)
    assert survey(corpus)["damaged"]
    assert corpus.on_bad_file == "stop"
    with pytest.raises(UserError, match="cannot be used"):
        corpus.prepare_data()
