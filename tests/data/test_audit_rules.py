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
from ser.data.audit import audit
from ser.errors import UserError


def utterance(name, speaker="a", session=None, sentence=None):
    return Utterance(Path(f"{name}.wav"), "anger", speaker, session=session, sentence=sentence)


def verdict(protocol, train, val, test, digests=None):
    table = [*train, *val, *test]
    ends = len(train), len(train) + len(val), len(table)
    split = Split(tuple(range(ends[0])), tuple(range(ends[0], ends[1])), tuple(range(ends[1], ends[2])))
    return audit(table, digests or [str(i) for i in range(len(table))], split, protocol)


def test_shared_speakers_are_forbidden_or_noted():
    sides = [utterance("1", "a")], [utterance("2", "b")], [utterance("3", "a")]
    assert verdict(LeaveOneSpeakerOut(), *sides).leaks == ("1 speaker is in train and in test: a.",)
    tolerated = verdict(StratifiedKFold(), *sides)
    assert tolerated.leaks == ()
    assert tolerated.tolerated == ("Speakers are shared, as the protocol allows: 1 in train and test.",)


def test_a_split_column_says_itself_whether_speakers_may_be_shared():
    sides = [utterance("1", "a")], [utterance("2", "a")], [utterance("3", "b")]
    assert verdict(ColumnSplit(), *sides).leaks == ("1 speaker is in train and in val: a.",)
    assert verdict(ColumnSplit(speaker_disjoint=False), *sides).leaks == ()


def test_sessions_are_forbidden_or_noted():
    sides = [utterance("1", "a", "one")], [utterance("2", "b", "two")], [utterance("3", "c", "one")]
    assert verdict(LeaveOneSessionOut(), *sides).leaks == ("1 session is in train and in test: one.",)
    assert verdict(LeaveOneSpeakerOut(), *sides).tolerated == ("1 of 1 sessions of test are also recorded in train.",)


def test_sentences_are_forbidden_or_noted():
    sides = (
        [utterance("1", "a", sentence="x")],
        [utterance("2", "b", sentence="y")],
        [utterance("3", "c", sentence="x")],
    )
    assert verdict(LeaveOneSentenceOut(), *sides).leaks == ("1 sentence is in train and in test: x.",)
    assert verdict(LeaveOneSpeakerOut(), *sides).tolerated == ("1 of 1 sentences of test are also spoken in train.",)
    sides = (
        [utterance("1", "a", sentence="x")],
        [utterance("2", "b", sentence="y")],
        [utterance("3", "c", sentence="y")],
    )
    assert verdict(LeaveOneSentenceOut(), *sides).leaks == ("1 sentence is in val and in test: y.",)
    sides = (
        [utterance("1", "a", sentence="x")],
        [utterance("2", "b", sentence="x")],
        [utterance("3", "c", sentence="y")],
    )
    assert verdict(LeaveOneSentenceOut(), *sides).leaks == ()  # validation tells about speakers


def test_the_same_recording_on_two_sides_is_forbidden_to_every_protocol():
    sides = [utterance("1", "a")], [utterance("2", "b")], [utterance("3", "c")]
    for protocol in (LeaveOneSpeakerOut(), StratifiedKFold(), Random8020()):
        found = verdict(protocol, *sides, digests=["same", "other", "same"])
        assert found.leaks == ("1 recording is in train and, sample for sample, in test: 1.wav = 3.wav.",)
    with pytest.raises(UserError, match="The split leaks, so its scores would mean nothing:\n  1 recording is"):
        found.enforce()
    assert verdict(Random8020(), *sides).leaks == ()


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
    assert found.tolerated == ("2 of 5 utterances are on no side of this fold.",)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(0, 2)), min_size=3, max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_split_leaks_exactly_when_two_sides_meet(items):
    """Against a comparison of every utterance with every other."""
    table = [utterance(str(i), speaker) for i, (speaker, _, _) in enumerate(items)]
    digests = [digest for _, digest, _ in items]
    sides = [side for _, _, side in items]
    split = Split(*(tuple(i for i, side in enumerate(sides) if side == wanted) for wanted in range(3)))
    pairs = [(i, j) for i in range(len(items)) for j in range(i) if sides[i] != sides[j]]
    same = any(digests[i] == digests[j] for i, j in pairs)
    heard = any(table[i].speaker == table[j].speaker for i, j in pairs)
    assert bool(audit(table, digests, split, LeaveOneSpeakerOut()).leaks) == (same or heard)
    tolerant = audit(table, digests, split, StratifiedKFold())
    assert bool(tolerant.leaks) == same
    assert any(note.startswith("Speakers are shared") for note in tolerant.notes) == heard
