from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser.corpora import EmoDB
from ser.data import LeaveOneSpeakerOut, Split, Utterance
from ser.errors import UserError
from ser.protocols.splits import PARTITIONS, divide_by


def utterances(speakers, session_of=None):
    """One utterance for every name in ``speakers``, in that order."""
    return [
        Utterance(Path(f"{i}.wav"), "anger", speaker, session=session_of(speaker) if session_of else None)
        for i, speaker in enumerate(speakers)
    ]


def assert_sound(split, table):
    """Every utterance is in one partition, and every speaker too."""
    positions = [*split.train, *split.val, *split.test]
    assert sorted(positions) == list(range(len(table)))
    speakers = [{table[i].speaker for i in split[name]} for name in PARTITIONS]
    assert all(speakers)
    assert sum(map(len, speakers)) == len(set.union(*speakers))


SPEAKERS = st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=60).filter(lambda names: len(set(names)) >= 3)


@given(SPEAKERS, st.booleans())
def test_leave_one_speaker_out_tests_everybody_once(speakers, in_pairs):
    table = utterances(speakers, (lambda speaker: str("abcdefghij".index(speaker) // 2)) if in_pairs else None)
    protocol = LeaveOneSpeakerOut()
    folds = protocol.folds(table)
    assert folds == sorted(set(speakers))
    tested = []
    for fold, name in enumerate(folds):
        split = protocol.split(table, fold)
        assert_sound(split, table)
        assert {table[i].speaker for i in split.test} == {name}
        assert len({table[i].speaker for i in split.val}) == 1
        assert split == LeaveOneSpeakerOut().split(table, fold)
        tested += split.test
    assert sorted(tested) == list(range(len(table)))


@given(SPEAKERS.flatmap(lambda names: st.tuples(st.just(names), st.permutations(range(len(names))))))
def test_the_order_of_the_files_does_not_matter(drawn):
    speakers, order = drawn
    table = utterances(speakers)
    shuffled = [table[i] for i in order]
    protocol = LeaveOneSpeakerOut()
    for fold in range(len(protocol.folds(table))):
        split, again = protocol.split(table, fold), protocol.split(shuffled, fold)
        for name in PARTITIONS:
            assert {table[i].path for i in split[name]} == {shuffled[i].path for i in again[name]}


@given(SPEAKERS, st.data())
def test_a_fixed_validation_speaker_is_never_tested(speakers, data):
    chosen = data.draw(st.sampled_from(sorted(set(speakers))))
    table = utterances(speakers)
    protocol = LeaveOneSpeakerOut(validation_speaker=chosen)
    assert protocol.folds(table) == sorted(set(speakers) - {chosen})
    for fold in range(len(protocol.folds(table))):
        split = protocol.split(table, fold)
        assert_sound(split, table)
        assert {table[i].speaker for i in split.val} == {chosen}


def test_validation_is_the_next_speaker_and_after_the_last_the_first():
    table = utterances(["10", "08", "03", "09", "08"])
    protocol = LeaveOneSpeakerOut()
    assert protocol.folds(table) == ["03", "08", "09", "10"]
    assert protocol.split(table, 0) == Split(train=(0, 3), val=(1, 4), test=(2,))
    assert protocol.split(table, 3) == Split(train=(1, 3, 4), val=(2,), test=(0,))


def test_validation_is_the_partner_of_the_session_as_in_iemocap():
    speakers = [f"{session}{gender}" for session in range(1, 6) for gender in "FM"] * 3
    table = utterances(speakers, session_of=lambda speaker: speaker[0])
    protocol = LeaveOneSpeakerOut()
    assert len(protocol.folds(table)) == 10
    for fold, test in enumerate(protocol.folds(table)):
        split = protocol.split(table, fold)
        assert_sound(split, table)
        partner = test[0] + ("M" if test[1] == "F" else "F")
        assert {table[i].speaker for i in split.val} == {partner}
        assert len({table[i].speaker for i in split.train}) == 8
        assert test[0] not in {table[i].session for i in split.train}


@pytest.mark.parametrize("fold", [-1, 3, 99])
def test_a_fold_out_of_range_is_rejected(fold):
    with pytest.raises(
        UserError,
        match=rf"Fold {fold} does not exist: LeaveOneSpeakerOut has 3 folds here, 0 to 2 \(testing a, b, c\)",
    ):
        LeaveOneSpeakerOut().split(utterances("abc"), fold)


def test_an_unknown_validation_speaker_is_rejected():
    with pytest.raises(UserError, match=r"The validation speaker 'x' is not in the corpus, which has a, b, c\."):
        LeaveOneSpeakerOut(validation_speaker="x").split(utterances("abc"), 0)


@pytest.mark.parametrize(("speakers", "lacking"), [("ab", "train"), ("aaa", "train and val"), ("aab", "train")])
def test_too_few_speakers_are_rejected(speakers, lacking):
    with pytest.raises(
        UserError,
        match=f"Fold 0 of LeaveOneSpeakerOut has an empty {lacking} for {len(speakers)} utterances of "
        rf"{len(set(speakers))} speakers?\. Use a corpus with more speakers",
    ):
        LeaveOneSpeakerOut().split(utterances(speakers), 0)


def test_a_corpus_of_the_validation_speaker_alone_has_no_folds():
    with pytest.raises(UserError, match=r"LeaveOneSpeakerOut has no folds for 2 utterances of 1 speaker\."):
        LeaveOneSpeakerOut(validation_speaker="a").split(utterances("aa"), 0)


def test_divide_by_gives_a_group_on_both_sides_to_test():
    assert divide_by(["a", "b", "c", "a"], val={"a", "b"}, test={"a"}) == Split(train=(2,), val=(1,), test=(0, 3))


def test_emodb_has_ten_folds_with_the_next_speaker_as_validation(corpora, cache_dir):
    corpus = EmoDB(corpora / "emodb", cache_dir=cache_dir)
    speakers = ["03", "08", "09", "10", "11", "12", "13", "14", "15", "16"]
    assert corpus.protocol.folds(corpus.table) == speakers
    tested = set()
    for fold, test in enumerate(speakers):
        split = corpus.protocol.split(corpus.table, fold)
        assert_sound(split, corpus.table)
        assert {corpus.table[i].speaker for i in split.val} == {speakers[(fold + 1) % 10]}
        assert {corpus.table[i].path.name[:2] for i in split.test} == {test}
        tested |= set(split.test)
    assert len(tested) == 339
