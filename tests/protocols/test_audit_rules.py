from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser.data import (
    ColumnSplit,
    LeaveOneSentenceOut,
    LeaveOneSessionOut,
    LeaveOneSpeakerOut,
    Random8020,
    Split,
    StratifiedKFold,
    Tail20,
    Utterance,
)
from ser.errors import UserError
from ser.protocols.audit import audit


def utterance(name, speaker="a", session=None, sentence=None):
    return Utterance(Path(f"{name}.wav"), "anger", speaker, session=session, sentence=sentence)


def verdict(protocol, train, val, test, digests=None):
    table = [*train, *val, *test]
    ends = len(train), len(train) + len(val), len(table)
    split = Split(tuple(range(ends[0])), tuple(range(ends[0], ends[1])), tuple(range(ends[1], ends[2])))
    return audit(table, digests or [str(i) for i in range(len(table))], split, protocol)


def test_shared_speakers_are_forbidden_or_noted():
    parts = [utterance("1", "a")], [utterance("2", "b")], [utterance("3", "a")]
    assert verdict(LeaveOneSpeakerOut(), *parts).leaks == ("1 speaker is in train and in test: a.",)
    tolerated = verdict(StratifiedKFold(), *parts)
    assert tolerated.leaks == ()
    assert tolerated.tolerated == ("Speakers are shared, as the protocol allows: 1 in train and test.",)


def test_a_split_column_says_itself_whether_speakers_may_be_shared():
    parts = [utterance("1", "a")], [utterance("2", "a")], [utterance("3", "b")]
    assert verdict(ColumnSplit(), *parts).leaks == ("1 speaker is in train and in val: a.",)
    assert verdict(ColumnSplit(speaker_disjoint=False), *parts).leaks == ()


def test_sessions_are_forbidden_or_noted():
    parts = [utterance("1", "a", "one")], [utterance("2", "b", "two")], [utterance("3", "c", "one")]
    assert verdict(LeaveOneSessionOut(), *parts).leaks == ("1 session is in train and in test: one.",)
    assert verdict(LeaveOneSpeakerOut(), *parts).tolerated == ("1 of 1 sessions of test are also recorded in train.",)


def test_sentences_are_forbidden_or_noted():
    parts = (
        [utterance("1", "a", sentence="x")],
        [utterance("2", "b", sentence="y")],
        [utterance("3", "c", sentence="x")],
    )
    assert verdict(LeaveOneSentenceOut(), *parts).leaks == ("1 sentence is in train and in test: x.",)
    assert verdict(LeaveOneSpeakerOut(), *parts).tolerated == ("1 of 1 sentences of test are also spoken in train.",)
    parts = (
        [utterance("1", "a", sentence="x")],
        [utterance("2", "b", sentence="y")],
        [utterance("3", "c", sentence="y")],
    )
    assert verdict(LeaveOneSentenceOut(), *parts).leaks == ("1 sentence is in val and in test: y.",)
    parts = (
        [utterance("1", "a", sentence="x")],
        [utterance("2", "b", sentence="x")],
        [utterance("3", "c", sentence="y")],
    )
    assert verdict(LeaveOneSentenceOut(), *parts).leaks == ()  # validation tells about speakers


def test_the_same_recording_on_two_sides_is_forbidden_to_every_protocol():
    parts = [utterance("1", "a")], [utterance("2", "b")], [utterance("3", "c")]
    for protocol in (LeaveOneSpeakerOut(), StratifiedKFold(), Random8020()):
        found = verdict(protocol, *parts, digests=["same", "other", "same"])
        assert found.leaks == ("1 recording is in train and, sample for sample, in test: 1.wav = 3.wav.",)
    with pytest.raises(UserError, match="The split leaks, so its scores would be meaningless:\n  1 recording is"):
        found.enforce()
    assert verdict(Random8020(), *parts).leaks == ()


def test_a_message_names_five_and_counts_the_rest():
    train = [utterance(f"t{i}", f"p{i}") for i in range(7)]
    leaks = verdict(
        LeaveOneSpeakerOut(), train, [utterance("v", "v")], [utterance(f"x{i}", f"p{i}") for i in range(7)]
    ).leaks
    assert leaks == ("7 speakers are in train and in test: p0, p1, p2, p3, p4 and 2 more.",)


def test_a_test_that_is_the_validation_set_is_said_to_be_one():
    table = [utterance(str(i), f"p{i}") for i in range(10)]
    found = audit(table, [str(i) for i in range(10)], Tail20().split(table, 0), Tail20())
    assert found.leaks == ()
    assert found.notes[0].startswith("The test is the validation set, as in the paper")


def test_any_other_protocol_may_not_test_what_it_validates():
    table = [utterance(str(i), f"p{i}") for i in range(3)]
    leaks = audit(table, ["0", "1", "2"], Split((0,), (1, 2), (2,)), LeaveOneSpeakerOut()).leaks
    assert leaks == (
        "1 speaker is in val and in test: p2.",
        "1 recording is in val and, sample for sample, in test: 2.wav = 2.wav.",
    )


def test_utterances_on_no_side_are_counted():
    table = [utterance(str(i), f"p{i}") for i in range(5)]
    found = audit(table, list("01234"), Split((0,), (1,), (2,)), LeaveOneSpeakerOut())
    assert found.tolerated == ("2 of 5 utterances are not used in this fold.",)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(0, 2)), min_size=3, max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_split_leaks_exactly_when_two_sides_meet(items):
    """Against a comparison of every utterance with every other."""
    table = [utterance(str(i), speaker) for i, (speaker, _, _) in enumerate(items)]
    digests = [digest for _, digest, _ in items]
    parts = [part for _, _, part in items]
    split = Split(*(tuple(i for i, part in enumerate(parts) if part == wanted) for wanted in range(3)))
    pairs = [(i, j) for i in range(len(items)) for j in range(i) if parts[i] != parts[j]]
    same = any(digests[i] == digests[j] for i, j in pairs)
    seen = any(table[i].speaker == table[j].speaker for i, j in pairs)
    assert bool(audit(table, digests, split, LeaveOneSpeakerOut()).leaks) == (same or seen)
    tolerant = audit(table, digests, split, StratifiedKFold())
    assert bool(tolerant.leaks) == same
    assert any(note.startswith("Speakers are shared") for note in tolerant.notes) == seen


def table(*rows):
    """Return utterances by "speaker emotion times", and a split by their parts, as in "train a anger 2"."""
    utterances, parts = [], {"train": [], "val": [], "test": []}
    for row in rows:
        part, speaker, emotion, times = row.split()
        for _ in range(int(times)):
            parts[part].append(len(utterances))
            utterances.append(Utterance(Path(f"{len(utterances)}.wav"), emotion, speaker))
    return utterances, Split(*map(tuple, parts.values()))


def looked_at(*rows, protocol=None):
    utterances, split = table(*rows)
    digests = [str(i) for i in range(len(utterances))]
    return audit(utterances, digests, split, protocol or LeaveOneSpeakerOut())


SOUND = ["train a anger 9", "train a calm 9", "val b anger 9", "val b calm 9", "test c anger 9", "test c calm 9"]


def test_a_sound_split_is_neither_stopped_nor_warned_of():
    found = looked_at(*SOUND)
    assert (found.leaks, found.faults, found.notes) == ((), (), ())
    found.enforce()


def test_an_emotion_that_is_tested_must_be_trained_on():
    found = looked_at(*SOUND, "test c fear 2")
    assert found.faults == (
        "test holds fear, which train lacks, so it cannot be recognised. Leave it out "
        "(--data.emotions '[anger, calm]'), count it as another (--data.merge '{fear: anger}'), or choose another "
        "protocol.",
    )
    assert "train holds no fear, so UAR cannot reach 100 % where it occurs." in found.warnings
    with pytest.raises(UserError, match="The scores of this split would be meaningless:\n  test holds fear"):
        found.enforce()


def test_an_emotion_that_only_validation_has_is_warned_of():
    found = looked_at(*SOUND, "val b fear 2")
    assert found.faults == ()
    assert found.warnings == (
        "train holds no fear, so UAR cannot reach 100 % where it occurs.",
        "test holds no fear: its UAR is over the other emotions.",
    )


def test_validation_on_one_emotion_chooses_nothing():
    rows = [row for row in SOUND if row != "val b calm 9"]
    assert looked_at(*rows).faults == (
        "val holds one emotion, anger (9 utterances): its score cannot select the checkpoint. Validate on 'a' "
        "(--data.protocol.validation_speaker), or several speakers (SpeakerKFold).",
    )


def test_training_on_one_emotion_teaches_nothing():
    rows = [row for row in SOUND if row != "train a calm 9"]
    faults = looked_at(*rows).faults
    assert faults[0] == "train holds one emotion, anger: there is nothing to learn."
    assert faults[1].startswith("test holds calm, which train lacks")


def test_speakers_that_are_emotions():
    rows = ["train anger anger 9", "train calm calm 9", "val fear fear 9", "test joy joy 9"]
    found = looked_at(*rows)
    assert found.faults == (
        "Every speaker has one emotion only. Is the emotion taken for the speaker? Correct "
        "--data.speaker_pattern, or the column speaker of your table.",
        "val holds one emotion, fear (9 utterances): its score cannot select the checkpoint.",
        "test holds joy, which train lacks, so it cannot be recognised.",
    )
    assert (
        "4 of 4 speakers have one emotion each, such as anger: a network could learn the voice instead."
        in found.warnings
    )


def test_speakers_that_are_recordings():
    rows = [
        f"{name} {name}{i} {emotion} 1" for name in ("train", "val", "test") for i, emotion in enumerate("xyxyxyxyxy")
    ]
    found = looked_at(*rows)
    assert found.warnings[0].startswith(
        "There are 30 speakers for 30 utterances: do the names hold more than the speaker?"
    )


def test_a_small_validation_set_is_warned_of():
    found = looked_at(*(row for row in SOUND if "val" not in row), "val b anger 4", "val b calm 1")
    assert found.faults == ()
    assert found.warnings == (
        "val holds 5 utterances: the choice of the checkpoint is partly chance.",
        "val holds fewer than 2 utterances of calm (1), to select the checkpoint on.",
    )


def test_a_test_without_an_emotion_is_warned_of():
    found = looked_at(*SOUND[:-1])
    assert (found.faults, found.warnings) == ((), ("test holds no calm: its UAR is over the other emotions.",))


def test_names_that_look_alike_are_warned_of():
    found = looked_at(*SOUND, "train a Anger 9", "val b Anger 9", "test C calm 9", "test C Anger 1")
    assert found.faults == ()
    assert found.warnings == (
        "The emotions 'Anger', 'anger' count as different. If they are the same, count one as the other with "
        "--data.merge.",
        "The speakers 'C', 'c' count as different. If they are the same, one speaker may be in train and test: rename "
        "one, or use another column (--data.columns).",
    )
