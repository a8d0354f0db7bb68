"""The audit of a split: what its partitions share, whether the protocol allows it, and whether scores are valid."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ser.errors import UserError
from ser.protocols.splits import PARTITIONS, Protocol, Split, Utterance
from ser.settings.config_yaml import flow
from ser.settings.names import look_alikes, some

FEW = 10  # utterances of a validation set of which chance decides
FEW_OF_AN_EMOTION = 2


@dataclass(frozen=True)
class Audit:
    """What a split's partitions share, and what they lack.

    Attributes:
        leaks: What the protocol forbids, a sentence each.
        faults: What leaves nothing to train, to choose or to test, with the way out, a paragraph each.
        tolerated: What is shared as the protocol allows, a sentence each.
        warnings: What makes a score worth less, a sentence each.
    """

    leaks: tuple[str, ...]
    faults: tuple[str, ...]
    tolerated: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What every output says."""
        return (*self.tolerated, *self.warnings)

    def enforce(self) -> None:
        """Stop on a leak, or a fault.

        Raises:
            UserError: Naming what is shared, or lacking.
        """
        if self.leaks:
            raise UserError("The split leaks, so its scores would mean nothing:\n  " + "\n  ".join(self.leaks))
        if self.faults:
            raise UserError("The scores of this split would mean nothing:\n  " + "\n  ".join(self.faults))


def audit(utterances: Sequence[Utterance], digests: Sequence[str], split: Split, protocol: Protocol) -> Audit:
    """Compare every two partitions of a split, and look at the emotions of each.

    Speakers may be shared where the protocol is not speaker-disjoint, sessions and sentences likewise; the same
    recording in two partitions is always a leak, but for a test that is the validation set by the protocol's own word.

    Args:
        utterances: All of them.
        digests: Hash of the content of each utterance's file.
        split: Positions in ``utterances``.
        protocol: Says what is forbidden.
    """
    leaks: list[str] = []
    notes: list[str] = []
    shared_speakers: list[str] = []
    pairs = list(combinations(PARTITIONS, 2))
    if protocol.test_is_validation:
        pairs.remove(("val", "test"))
        notes.append(
            "The test is the validation set, as in the paper: the checkpoint was chosen on the utterances that are "
            "scored, so the score is too good."
        )
    for one, other in pairs:
        ours, theirs = split[one], split[other]
        shared = _shared(lambda i: utterances[i].speaker, ours, theirs)
        if shared and protocol.speaker_disjoint:
            leaks.append(f"{_count(shared, 'speaker')} in {one} and in {other}: {some(shared)}.")
        elif shared:
            shared_speakers.append(f"{len(shared)} in {one} and {other}")
        where = {digests[i]: i for i in ours}
        same = [(where[digests[i]], i) for i in theirs if digests[i] in where]
        if same:
            named = some([f"{utterances[a].path.name} = {utterances[b].path.name}" for a, b in same])
            leaks.append(f"{_count(same, 'recording')} in {one} and, sample for sample, in {other}: {named}.")
        shared = _shared(lambda i: utterances[i].session, ours, theirs)
        if shared and protocol.session_disjoint:
            leaks.append(f"{_count(shared, 'session')} in {one} and in {other}: {some(shared)}.")
        shared = _shared(lambda i: utterances[i].sentence, ours, theirs)
        if shared and protocol.sentence_disjoint and other == "test":
            leaks.append(f"{_count(shared, 'sentence')} in {one} and in {other}: {some(shared)}.")
    if shared_speakers:
        notes.append(f"Speakers are shared, as the protocol allows: {', '.join(shared_speakers)}.")
    notes += _tolerated(utterances, split, protocol)
    spoken = _by_speaker(utterances)
    warnings = [*_doubtful(utterances, spoken, protocol), *_lacking(utterances, split)]
    return Audit(tuple(leaks), tuple(_faults(utterances, spoken, split)), tuple(notes), tuple(warnings))


def _tolerated(utterances: Sequence[Utterance], split: Split, protocol: Protocol) -> Iterator[str]:
    """Say what test and train have in common without being forbidden, and what is not used at all."""
    for fact, verb, forbidden in (
        ("session", "recorded", protocol.session_disjoint),
        ("sentence", "spoken", protocol.sentence_disjoint),
    ):
        tested = {getattr(utterances[i], fact) for i in split.test} - {None}
        trained = {getattr(utterances[i], fact) for i in split.train}
        if tested & trained and not forbidden:
            yield f"{len(tested & trained)} of {len(tested)} {fact}s of test are also {verb} in train."
    unused = len(utterances) - len({*split.train, *split.val, *split.test})
    if unused:
        yield f"{unused} of {len(utterances)} utterances are not used in this fold."


def _faults(utterances: Sequence[Utterance], spoken: Mapping[str, set[str]], split: Split) -> Iterator[str]:
    """Say what a fit cannot learn, choose or be tested on."""
    train, val, test = (_emotions(utterances, split[name]) for name in PARTITIONS)
    lacking = [emotion for emotion in test if emotion not in train]
    if not lacking and min(len(train), len(val)) > 1:
        return
    # Where a speaker's name holds the emotion, no choice of speakers or emotions helps.
    mistaken = all(len(emotions) == 1 for emotions in spoken.values())
    if mistaken:
        yield (
            "Every speaker has one emotion only. Does the emotion stand where the speaker is looked for? Mend "
            "--data.speaker_pattern, or the column speaker of your table."
        )
    if len(train) == 1:
        yield f"train holds one emotion, {some([*train])}: there is nothing to tell apart."
    if len(val) == 1:
        tested = {utterances[i].speaker for i in split.test}
        several = sorted(name for name, emotions in spoken.items() if len(emotions) > 1 and name not in tested)
        most = max(several, key=lambda name: len(spoken[name]), default=None)
        way = f" Choose on {most!r} (--data.protocol.validation_speaker), or on several speakers (SpeakerKFold)."
        yield (
            f"val holds one emotion, {some([*val])} ({_utterances(val.total())}): its score cannot choose the "
            f"checkpoint.{way if most is not None else ''}"
        )
    if lacking:
        way = (
            f" Leave it out (--data.emotions '{flow([*train])}'), count it as another (--data.merge "
            f"'{flow({lacking[0]: next(iter(train), lacking[0])})}'), or choose another protocol."
        )
        yield (
            f"test holds {some(lacking)}, which train lacks: what is not trained on cannot be recognised."
            f"{way if len(train) > 1 and not mistaken else ''}"
        )


def _lacking(utterances: Sequence[Utterance], split: Split) -> Iterator[str]:
    """Say which emotions a partition has none of, or too few."""
    train, val, test = (_emotions(utterances, split[name]) for name in PARTITIONS)
    known = sorted({utterance.emotion for utterance in utterances})
    if absent := [emotion for emotion in known if emotion not in train]:
        yield f"train holds no {some(absent)}, so UAR cannot reach 100 % where it is spoken."
    if val.total() < FEW:
        yield f"val holds {_utterances(val.total())}: chance has a part in which checkpoint is chosen."
    if few := [f"{emotion} ({val[emotion]})" for emotion in train if val[emotion] < FEW_OF_AN_EMOTION]:
        yield f"val holds fewer than {FEW_OF_AN_EMOTION} utterances of {some(few)}, on which the checkpoint is chosen."
    if absent := [emotion for emotion in known if emotion not in test]:
        yield f"test holds no {some(absent)}: its UAR is over the other emotions."


def _doubtful(utterances: Sequence[Utterance], spoken: Mapping[str, set[str]], protocol: Protocol) -> Iterator[str]:
    """Say what looks wrong with the names of speakers and emotions."""
    if len(spoken) * 2 > len(utterances):
        yield (
            f"There are {len(spoken)} speakers of {_utterances(len(utterances))}: is the speaker's name more than the "
            "speaker? If so, voices of the test are trained on. See --data.speaker_pattern, or the column speaker."
        )
    elif single := _single(spoken):
        yield (
            f"{len(single)} of {len(spoken)} speakers have one emotion each, such as {single[0]}: a voice tells the "
            "emotion then."
        )
    ways = {
        "emotion": "count one as the other with --data.merge",
        "speaker": "one voice may be in train and in test: rename one, or take another column (--data.columns)",
        **({"session": "rename one"} if protocol.session_disjoint else {}),
        **({"sentence": "rename one"} if protocol.sentence_disjoint else {}),
    }
    for fact, way in ways.items():
        for names in look_alikes({getattr(u, fact) for u in utterances} - {None}):
            yield f"The {fact}s {some([*map(repr, names)])} count as different. If they are the same, {way}."


def _emotions(utterances: Sequence[Utterance], positions: Iterable[int]) -> Counter[str]:
    found = Counter(utterances[i].emotion for i in positions)
    return Counter({emotion: found[emotion] for emotion in sorted(found)})


def _by_speaker(utterances: Sequence[Utterance]) -> Mapping[str, set[str]]:
    """Return the emotions of every speaker."""
    spoken: dict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        spoken[utterance.speaker].add(utterance.emotion)
    return spoken


def _single(spoken: Mapping[str, set[str]]) -> list[str]:
    """Return the speakers of one emotion each, if they are most of all."""
    single = sorted(speaker for speaker, emotions in spoken.items() if len(emotions) == 1)
    return single if len(single) * 2 > len(spoken) else []


def _utterances(number: int) -> str:
    return "1 utterance" if number == 1 else f"{number} utterances"


def _shared(fact: Callable[[int], str | None], ours: Sequence[int], theirs: Sequence[int]) -> list[str]:
    shared = {fact(i) for i in ours} & {fact(i) for i in theirs}
    return sorted(value for value in shared if value is not None)


def _count(found: Sequence[object], noun: str) -> str:
    return f"1 {noun} is" if len(found) == 1 else f"{len(found)} {noun}s are"
