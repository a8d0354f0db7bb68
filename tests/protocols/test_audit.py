"""The audit at work in a corpus; its rules, one by one, are in test_audit_rules.py."""

import shutil
from pathlib import Path

import pytest
import soundfile

from ser.data import LeaveOneSpeakerOut, Protocol, Split
from ser.errors import UserError


class OddAndEven(Protocol):
    """Every speaker in every partition, although the protocol promises otherwise."""

    def folds(self, utterances):
        return ["all"]

    def divide(self, utterances, fold):
        positions = range(len(utterances))
        return Split(*(tuple(i for i in positions if (i + i // 4) % 4 in rest) for rest in ((0, 1), (3,), (2,))))


class Shared(OddAndEven):
    speaker_disjoint = False


def test_speakers_on_two_sides_stop_the_run_before_anything_is_computed(tiny, cache_dir):
    corpus = tiny(protocol=OddAndEven())
    with pytest.raises(UserError, match=r"The split leaks, so its scores would be meaningless:") as stopped:
        corpus.prepare_data()
    message = str(stopped.value)
    for pair in ("train and in val", "train and in test", "val and in test"):
        assert f"4 speakers are in {pair}: anna, ben, carla, dan." in message
    assert not (cache_dir / "features").exists()


def test_a_protocol_that_allows_shared_speakers_runs_and_says_so(tiny):
    corpus = tiny(protocol=Shared())
    corpus.prepare_data()
    assert corpus.audit.leaks == ()
    description = corpus.protocol_description()
    assert description["speaker_disjoint"] is False
    assert any("speakers" in note.lower() for note in description["notes"])


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("protocol", [LeaveOneSpeakerOut(), Shared()])
def test_the_same_audio_on_two_sides_stops_the_run_whoever_is_said_to_speak(tiny, make_corpus, suffix, protocol):
    root = make_corpus()
    original = root / "anna_anger_s1.wav"
    copy = root / f"dan_neutral_s1x{suffix}"
    samples, rate_hz = soundfile.read(original, dtype="int16")
    soundfile.write(copy, samples, rate_hz)
    corpus = tiny(root, protocol=protocol)
    with pytest.raises(UserError, match=r"1 recording is in train and, sample for sample, in test: (.*)\.") as stopped:
        corpus.prepare_data()
    assert original.name in str(stopped.value)
    assert copy.name in str(stopped.value)


def test_the_same_audio_twice_on_one_side_is_no_leak(tiny, make_corpus):
    root = make_corpus()
    shutil.copy(root / "anna_anger_s1.wav", root / "anna_anger_s9.wav")
    corpus = tiny(root)
    corpus.prepare_data()
    assert corpus.audit.leaks == ()
    assert len(corpus.table) == 17


def test_sentences_of_the_test_that_are_also_trained_on_are_noted(tiny, make_corpus):
    root = make_corpus()
    Path(root / "anna_anger_s2.wav").rename(root / "anna_anger_s3.wav")
    Path(root / "anna_neutral_s2.wav").rename(root / "anna_neutral_s4.wav")
    corpus = tiny(root)  # fold 0 tests anna, who speaks s1, s3, s4
    assert corpus.audit.leaks == ()
    assert corpus.protocol_description()["notes"][0] == "1 of 3 sentences of test are also spoken in train."
