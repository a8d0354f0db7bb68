"""The audit of a split: what its partitions share, whether the protocol allows it, and whether scores are valid."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ser.errors import UserError
from ser.protocols.splits import PARTITIONS, Protocol, Split, Utterance
from ser.settings.config_yaml import flow
from ser.settings.names import look_alikes, some

FEW = 10  # utterances of a validation set that are too few to select a checkpoint
FEW_OF_AN_EMOTION = 2


@dataclass(frozen=True)
class Audit:
    """What the partitions of a split share and lack.

    Attributes:
        leaks: What is shared against the protocol, a sentence each.
        faults: What makes training, selection or test impossible, and how to fix it, a paragraph each.
        tolerated: What is shared as the protocol allows, a sentence each.
        warnings: What makes a score less reliable, a sentence each.
    """

    leaks: tuple[str, ...]
    faults: tuple[str, ...]
    tolerated: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for every output."""
        return (*self.tolerated, *self.warnings)

    def enforce(self) -> None:
        """Stop at a leak or a fault.

        Raises:
            UserError: Partitions share or lack something.
        """
        if self.leaks:
            raise UserError("The split leaks, so its scores would be meaningless:\n  " + "\n  ".join(self.leaks))
        if self.faults:
            raise UserError("The scores of this split would be meaningless:\n  " + "\n  ".join(self.faults))


def audit(utterances: Sequence[Utterance], digests: Sequence[str], split: Split, protocol: Protocol) -> Audit:
    """Compare every two partitions of a split, and check the emotions of each.

    Speakers, sessions and sentences may be shared if the protocol is not disjoint in them; the same recording in two
    partitions is always a leak, except where the protocol says that the test is the validation set.

    Args:
        utterances: All of them.
        digests: Hash of the content of each utterance's file.
        split: Positions in ``utterances``.
        protocol: Defines what must be disjoint.
    """
    leaks: list[str] = []
    notes: list[str] = []
    shared_speakers: list[str] = []
    pairs = list(combinations(PARTITIONS, 2))
    if protocol.test_is_validation:
        pairs.remove(("val", "test"))
        notes.append(
            "The test is the validation set, as in the paper: the checkpoint was selected on the scored utterances, "
            "so the score is optimistic."
        )
    for one, other in pairs:
        ours, theirs = split[one], split[other]
        for fact, disjoint in (
            ("speaker", protocol.speaker_disjoint),
            ("session", protocol.session_disjoint),
            ("sentence", protocol.sentence_disjoint and other == "test"),
        ):
            values = ({getattr(utterances[i], fact) for i in positions} - {None} for positions in (ours, theirs))
            shared = sorted(set.intersection(*values))
            if shared and disjoint:
                leaks.append(f"{_count(shared, fact)} in {one} and in {other}: {some(shared)}.")
            elif shared and fact == "speaker":
                shared_speakers.append(f"{len(shared)} in {one} and {other}")
        where = {digests[i]: i for i in ours}
        same = [(where[digests[i]], i) for i in theirs if digests[i] in where]
        if same:
            named = some([f"{utterances[a].path.name} = {utterances[b].path.name}" for a, b in same])
            leaks.append(f"{_count(same, 'recording')} in {one} and, sample for sample, in {other}: {named}.")
    if shared_speakers:
        notes.append(f"Speakers are shared, as the protocol allows: {', '.join(shared_speakers)}.")
    notes += _tolerated(utterances, split, protocol)
    spoken = _by_speaker(utterances)
    warnings = [*_doubtful(utterances, spoken, protocol), *_lacking(utterances, split)]
    return Audit(tuple(leaks), tuple(_faults(utterances, spoken, split)), tuple(notes), tuple(warnings))


def _tolerated(utterances: Sequence[Utterance], split: Split, protocol: Protocol) -> Iterator[str]:
    """Yield what train and test share as the protocol allows, and the number of unused utterances."""
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
    """Yield what makes training, selection or test impossible."""
    train, val, test = (_emotions(utterances, split[name]) for name in PARTITIONS)
    lacking = [emotion for emotion in test if emotion not in train]
    if not lacking and min(len(train), len(val)) > 1:
        return
    # If the speaker's name is the emotion, no choice of speakers or emotions helps.
    mistaken = all(len(emotions) == 1 for emotions in spoken.values())
    if mistaken:
        yield (
            "Every speaker has one emotion only. Is the emotion taken for the speaker? Correct "
            "--data.speaker_pattern, or the column speaker of your table."
        )
    if len(train) == 1:
        yield f"train holds one emotion, {some([*train])}: there is nothing to learn."
    if len(val) == 1:
        tested = {utterances[i].speaker for i in split.test}
        several = sorted(name for name, emotions in spoken.items() if len(emotions) > 1 and name not in tested)
        most = max(several, key=lambda name: len(spoken[name]), default=None)
        way = f" Validate on {most!r} (--data.protocol.validation_speaker), or several speakers (SpeakerKFold)."
        yield (
            f"val holds one emotion, {some([*val])} ({_utterances(val.total())}): its score cannot select the "
            f"checkpoint.{way if most is not None else ''}"
        )
    if lacking:
        way = (
            f" Leave it out (--data.emotions '{flow([*train])}'), count it as another (--data.merge "
            f"'{flow({lacking[0]: next(iter(train), lacking[0])})}'), or choose another protocol."
        )
        yield (
            f"test holds {some(lacking)}, which train lacks, so it cannot be recognised."
            f"{way if len(train) > 1 and not mistaken else ''}"
        )


def _lacking(utterances: Sequence[Utterance], split: Split) -> Iterator[str]:
    """Yield the emotions of which a partition has no utterance or too few."""
    train, val, test = (_emotions(utterances, split[name]) for name in PARTITIONS)
    known = sorted({utterance.emotion for utterance in utterances})
    if absent := [emotion for emotion in known if emotion not in train]:
        yield f"train holds no {some(absent)}, so UAR cannot reach 100 % where it occurs."
    if val.total() < FEW:
        yield f"val holds {_utterances(val.total())}: the choice of the checkpoint is partly chance."
    if few := [f"{emotion} ({val[emotion]})" for emotion in train if val[emotion] < FEW_OF_AN_EMOTION]:
        yield f"val holds fewer than {FEW_OF_AN_EMOTION} utterances of {some(few)}, to select the checkpoint on."
    if absent := [emotion for emotion in known if emotion not in test]:
        yield f"test holds no {some(absent)}: its UAR is over the other emotions."


def _doubtful(utterances: Sequence[Utterance], spoken: Mapping[str, set[str]], protocol: Protocol) -> Iterator[str]:
    """Yield what looks wrong about the names of speakers and emotions."""
    if len(spoken) * 2 > len(utterances):
        yield (
            f"There are {len(spoken)} speakers for {_utterances(len(utterances))}: do the names hold more than the "
            "speaker? Then test speakers are trained on. See --data.speaker_pattern, or the column speaker."
        )
    elif single := _single(spoken):
        yield (
            f"{len(single)} of {len(spoken)} speakers have one emotion each, such as {single[0]}: a network could "
            "learn the voice instead."
        )
    ways = {
        "emotion": "count one as the other with --data.merge",
        "speaker": "one speaker may be in train and test: rename one, or use another column (--data.columns)",
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
    """Return the speakers of one emotion each, if they are the majority."""
    single = sorted(speaker for speaker, emotions in spoken.items() if len(emotions) == 1)
    return single if len(single) * 2 > len(spoken) else []


def _utterances(number: int) -> str:
    return "1 utterance" if number == 1 else f"{number} utterances"


def _count(found: Sequence[object], noun: str) -> str:
    return f"1 {noun} is" if len(found) == 1 else f"{len(found)} {noun}s are"
