import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from ser.corpora import RAVDESS, EmoDB
from ser.data import (
    ClassOrder641620,
    ColumnSplit,
    FixedSpeakers,
    LeaveOneSentenceOut,
    LeaveOneSessionOut,
    LeaveOneSpeakerOut,
    Protocol,
    Random8020,
    SpeakerKFold,
    Stratified641620,
    StratifiedKFold,
    Tail20,
    Utterance,
)
from ser.errors import UserError
from ser.protocols.splits import PARTITIONS, Split

PROTOCOLS = [
    LeaveOneSpeakerOut(),
    LeaveOneSpeakerOut(validation_speaker="p1"),
    LeaveOneSessionOut(),
    LeaveOneSentenceOut(),
    SpeakerKFold(k=3),
    StratifiedKFold(k=3),
    FixedSpeakers(val=["p0"], test=["p2", "p3"]),
    Stratified641620(),
    Tail20(),
    ClassOrder641620(),
    Random8020(),
    Random8020(validation=0),
]
INCOMPLETE = [  # some utterances are not used
    FixedSpeakers(val=["p0"], test=["p2"], train=["p1", "p5"]),
    ColumnSplit(speaker_disjoint=False),
    LeaveOneSentenceOut(new_speakers=True),
]
CROSS_VALIDATIONS = [LeaveOneSpeakerOut(), LeaveOneSessionOut(), LeaveOneSentenceOut(), LeaveOneSentenceOut(True)]
CROSS_VALIDATIONS += [SpeakerKFold(3), StratifiedKFold(3)]


@st.composite
def corpora(draw):
    """At least six speakers in sessions of two, each saying every sentence in every emotion, some more than once."""
    speakers, sentences = draw(st.integers(6, 9)), draw(st.integers(2, 4))
    chance = draw(st.randoms(use_true_random=False))
    utterances = [
        Utterance(
            path=Path(f"p{p}_s{s}_{emotion}_{take}.wav"),
            emotion=emotion,
            speaker=f"p{p}",
            gender=chance.choice([("female", "male")[p % 3 == 0], None]),
            session=f"session{p // 2}",
            sentence=f"s{s}",
            split=("train", "val", "test", None)[(3 * p + s + take) % 4],
        )
        for p in range(speakers)
        for s in range(sentences)
        for emotion in ("anger", "neutral")
        for take in range(chance.randint(1, 3))
    ]
    chance.shuffle(utterances)
    return utterances


def sets(utterances, split):
    return {name: {utterances[i].path for i in split[name]} for name in PARTITIONS}


@pytest.mark.parametrize("protocol", PROTOCOLS + INCOMPLETE, ids=lambda protocol: type(protocol).__name__)
@given(utterances=corpora(), chance=st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_every_protocol_divides_as_it_promises(protocol, utterances, chance):
    shuffled = chance.sample(utterances, len(utterances))
    for fold in range(len(protocol.folds(utterances))):
        split = protocol.split(utterances, fold)
        train, val, test = (set(split[name]) for name in PARTITIONS)
        assert sum(map(len, (split.train, split.val, split.test))) == len(train) + len(val) + len(test)
        assert not train & val
        assert not train & test
        assert (val == test) if protocol.test_is_validation else not val & test
        assert (train | val | test == set(range(len(utterances)))) or protocol in INCOMPLETE
        assert sets(utterances, protocol.split(utterances, fold)) == sets(utterances, split)
        assert sets(shuffled, protocol.split(shuffled, fold)) == sets(utterances, split), (
            "depends on the order of files"
        )

        seen = {name: {utterances[i].speaker for i in split[name]} for name in PARTITIONS}
        met = {name: {utterances[i].session for i in split[name]} for name in PARTITIONS}
        said = {name: {utterances[i].sentence for i in split[name]} for name in PARTITIONS}
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            assert not (protocol.speaker_disjoint and seen[one] & seen[other])
            assert not (protocol.session_disjoint and met[one] & met[other])
        assert not (protocol.sentence_disjoint and said["test"] & (said["train"] | said["val"]))


@pytest.mark.parametrize("protocol", CROSS_VALIDATIONS, ids=lambda protocol: type(protocol).__name__)
@given(utterances=corpora())
@settings(max_examples=10, deadline=None)
def test_a_cross_validation_tests_every_utterance_once(protocol, utterances):
    names = protocol.folds(utterances)
    tested = Counter(i for fold in range(len(names)) for i in protocol.split(utterances, fold).test)
    assert tested == dict.fromkeys(range(len(utterances)), 1)
    assert len(set(names)) == len(names)


def emodb() -> list[Utterance]:
    """As many files of each emotion as EMO-DB has, named like them, in a shuffled order."""
    letters = dict(zip(EmoDB.published, "WLEAFNT", strict=True))
    files = [
        Utterance(Path(f"{speaker}a{i // 10:02}{letters[emotion]}{'abcd'[i % 4]}{i}.wav"), emotion, speaker)
        for emotion, count in EmoDB.published.items()
        for i in range(count)
        for speaker in [list(EmoDB.speakers)[i % 10]]
    ]
    random.Random(1).shuffle(files)
    return files


def sizes(protocol: Protocol, utterances) -> tuple[int, ...]:
    split = protocol.split(utterances, 0)
    return len(split.train), len(split.val), len(split.test)


def test_the_papers_splits_of_emodb_have_their_published_sizes():
    files = emodb()
    assert sizes(Stratified641620(), files) == (336, 88, 111)
    assert sizes(ClassOrder641620(), files) == (344, 85, 106)
    assert sizes(Tail20(), files) == (428, 107, 107)
    assert sizes(Random8020(validation=0), files) == (428, 107, 107)
    assert sizes(Random8020(), files) == (385, 43, 107)


def test_class_order_takes_the_last_files_of_every_emotion():
    files = emodb()
    split = ClassOrder641620().split(files, 0)
    per_class = {  # systems.md, section 1.5
        "anger": (82, 20, 25), "boredom": (52, 13, 16), "disgust": (30, 7, 9), "fear": (44, 11, 14),
        "happiness": (46, 11, 14), "sadness": (40, 10, 12), "neutral": (50, 13, 16),
    }  # fmt: skip
    for emotion, expected in per_class.items():
        names = [sorted(files[i].path for i in split[name] if files[i].emotion == emotion) for name in PARTITIONS]
        assert tuple(map(len, names)) == expected
        assert names[0][-1] < names[1][0]
        assert names[1][-1] < names[2][0]


def test_the_tail_of_the_real_emodb_is_its_last_two_speakers(corpora, tmp_path):
    table = EmoDB(corpora / "emodb_2s", cache_dir=tmp_path).table
    split = Tail20().split(table, 0)
    assert Counter(table[i].speaker for i in split.test) == {"15": 36, "16": 71}  # systems.md, section 4.6
    assert sizes(ClassOrder641620(), table) == (344, 85, 106)


@pytest.mark.parametrize("count", [10, 87, 480, 535, 1440])
def test_random_8020_has_the_sizes_of_scikit_learn(count):
    files = [Utterance(Path(f"{i:04}.wav"), "anger", f"p{i % 7}") for i in range(count)]
    train, test = train_test_split(range(count), test_size=0.2)
    assert sizes(Random8020(validation=0), files) == (len(train), len(test), len(test))


def test_seeds_divide_otherwise_but_always_alike():
    files = emodb()
    for make in (Stratified641620, Random8020, StratifiedKFold):
        assert make(seed=1).split(files, 0) == make(seed=1).split(files, 0)
        assert make(seed=1).split(files, 0) != make(seed=2).split(files, 0)
    # Frozen, so that a published fingerprint stays true: the same on every machine and version of Python.
    ten = [Utterance(Path(f"{i}.wav"), "anger", "p") for i in range(10)]
    assert Random8020(validation=0).split(ten, 0).test == (1, 3)


def ravdess() -> list[Utterance]:
    return [
        Utterance(Path(f"{actor}-{i}.wav"), "anger", actor, gender, sentence=f"{i % 2}")
        for actor, gender in RAVDESS.speakers.items()
        for i in range(60)
    ]


def test_five_groups_of_ravdess_balance_gender():
    files = ravdess()
    groups = [{files[i].speaker for i in SpeakerKFold().split(files, fold).test} for fold in range(5)]
    assert sorted(map(len, groups)) == [4, 5, 5, 5, 5]
    women = [sum(RAVDESS.speakers[speaker] == "female" for speaker in group) for group in groups]
    assert sorted(women) == [2, 2, 2, 3, 3]


def test_groups_balance_speech_where_speakers_say_unequally_much():
    files = [
        Utterance(Path(f"{speaker}{i}.wav"), "anger", speaker, "female")
        for speaker, count in {"a": 60, "b": 50, "c": 40, "d": 30, "e": 20, "f": 10}.items()
        for i in range(count)
    ]
    assert SpeakerKFold(3).folds(files) == ["a f", "b e", "c d"]  # 70 utterances each


def iemocap() -> list[Utterance]:
    return [
        Utterance(Path(f"Ses0{n}{letter}_{i}.wav"), "anger", f"Ses0{n}{letter}", session=f"Ses0{n}")
        for n in range(1, 6)
        for letter in "FM"
        for i in range(3)
    ]


def test_iemocap_by_speaker_and_by_session():
    files = iemocap()
    assert len(LeaveOneSpeakerOut().folds(files)) == 10
    split = LeaveOneSpeakerOut().split(files, 3)
    assert {files[i].speaker for i in split.test} == {"Ses02M"}
    assert {files[i].speaker for i in split.val} == {"Ses02F"}

    assert LeaveOneSessionOut().folds(files) == ["Ses01", "Ses02", "Ses03", "Ses04", "Ses05"]
    split = LeaveOneSessionOut().split(files, 4)
    assert {files[i].speaker for i in split.test} == {"Ses05F", "Ses05M"}
    assert {files[i].speaker for i in split.val} == {"Ses01F", "Ses01M"}


def test_an_unseen_sentence_of_an_unseen_speaker():
    files = ravdess()
    protocol = LeaveOneSentenceOut(new_speakers=True)
    names = protocol.folds(files)
    assert len(names) == 48
    split = protocol.split(files, names.index("1 by 24"))
    assert {(files[i].speaker, files[i].sentence) for i in split.test} == {("24", "1")}
    assert {(files[i].speaker, files[i].sentence) for i in split.val} == {("01", "0")}
    assert {files[i].speaker for i in split.train} == {f"{n:02}" for n in range(2, 24)}
    assert {files[i].sentence for i in split.train} == {"0"}


def test_speakers_by_number():
    files = ravdess()
    split = FixedSpeakers(val=["03"], test=["08", 10]).split(files, 0)
    assert {files[i].speaker for i in split.val} == {"03"}
    assert {files[i].speaker for i in split.test} == {"08", "10"}
    with pytest.raises(UserError, match=r"FixedSpeakers names 3, not found .* Did you mean '03'\?"):
        FixedSpeakers(val=[3], test=["08"]).split(files, 0)


def test_a_side_that_is_not_needed_may_be_empty():
    """A corpus that is only tested needs no training speakers."""
    test_only = FixedSpeakers(test=["a", "b", "c", "d"])
    assert test_only.split(few(), 0, needed=["test"]) == Split(train=(), val=(), test=tuple(range(8)))
    with pytest.raises(UserError, match="has an empty train and val"):
        test_only.split(few(), 0)
    assert ColumnSplit().split(few(split="val"), 0, needed=["val"]).val == tuple(range(8))
    assert LeaveOneSpeakerOut().split(few()[:2], 0, needed=["test"]).test == (0, 1)


def few(**facts) -> list[Utterance]:
    return [Utterance(Path(f"{p}{i}.wav"), "anger", p, **facts) for p in ("a", "b", "c", "d") for i in range(2)]


@pytest.mark.parametrize(
    ("divide", "message"),
    [
        (lambda: LeaveOneSpeakerOut().split(few(), 4), "Fold 4 does not exist: LeaveOneSpeakerOut has 4 folds here"),
        (lambda: LeaveOneSpeakerOut("x").split(few(), 0), "validation speaker 'x' is not in the corpus"),
        (lambda: LeaveOneSpeakerOut().split(few()[:2], 0), "has an empty train and val for 2 utterances of 1"),
        (
            lambda: LeaveOneSessionOut().split(few(), 0),
            "needs the session of every utterance; 8 of 8 have none",
        ),
        (lambda: LeaveOneSessionOut().split(few(session="1"), 0), "has an empty train and val"),
        (lambda: LeaveOneSentenceOut().split(few(), 0), "(the first is a0.wav)"),
        (lambda: LeaveOneSentenceOut().split(few(sentence="1"), 0), "has an empty train and val"),
        (lambda: SpeakerKFold(2), "k is 2; it must be at least 3"),
        (lambda: SpeakerKFold(5).split(few(), 0), "cannot form 5 groups from 4 speakers"),
        (lambda: StratifiedKFold(9).split(few(), 0), "cannot divide 8 utterances of anger into 9 parts"),
        (
            lambda: FixedSpeakers([], ["a"]).split(few(), 0),
            "has an empty val for 8 utterances of 4 speakers. Name speakers",
        ),
        (lambda: FixedSpeakers(), "Name speakers, as in --data.protocol.val"),
        (lambda: FixedSpeakers(["a"], ["x"]).split(few(), 0), "names x, not found in the corpus, which has a, b, c, d"),
        (lambda: FixedSpeakers(["a"], ["b", "a"]).split(few(), 0), "names a more than once"),
        (lambda: ColumnSplit().split(few(), 0), "no utterance is marked train, val or test"),
        (
            lambda: ColumnSplit().split(few(split="train"), 0),
            "has an empty val and test for 8 utterances of 4 speakers. Mark some in the column split",
        ),
        (lambda: Random8020(validation=1), "validation is 1; it must be a share of the training files"),
        (lambda: Stratified641620().split(few()[:1], 0), "has an empty train and val"),
    ],
)
def test_what_cannot_be_divided_is_rejected(divide, message):
    with pytest.raises(UserError, match=re.escape(message)):
        divide()
