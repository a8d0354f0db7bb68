"""What a network has seen: every fit that led to it, and whether a split can still be scored with it.

A checkpoint carries its history: of every fit the corpus, protocol and fold, the speakers, and compact digests of the
recordings, for training and validation. It holds no file names. People are recognised by their recordings, whatever
corpus and name these come under, and by their names within one corpus. A copy that was cut, resampled or encoded anew
has another content, so only its corpus's name tells whose voice it is.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ser.errors import UserError
from ser.settings.names import some
from ser.settings.recipe import describe

if TYPE_CHECKING:
    from ser.protocols.fold import Fold
    from ser.protocols.splits import Partition

DIGEST_BYTES = 8  # of each recording, sentence and session: two of a million are alike once in thirty million corpora
SEEN: tuple["Partition", ...] = ("train", "val")
NAMED = 10  # speakers that a message names
CONTENTS = ("recordings", "other_recordings", "sessions", "sentences")
OLD = (
    "The checkpoint is of an older format, which knows its speakers by name only: recordings could not be compared "
    "with those that it was trained on."
)

Fit = Mapping[str, Any]  # one fit of a history, as plain data


class Identity(NamedTuple):
    """Which corpus this is.

    Attributes:
        name: For people.
        origin: Equal for two corpora in which equal names of speakers mean the same people.
        kind: Name of its class, "Table" for every table.
        stated: Whether a user has named it.
    """

    name: str
    origin: str
    kind: str
    stated: bool = False


def fit_record(fold: "Fold", corpus: Identity, **facts: Any) -> Fit:
    """Return what a checkpoint keeps of a fit, as plain data.

    Args:
        fold: What is trained on and chosen on.
        corpus: Whose utterances these are.
        facts: What else is to be known of it.
    """
    utterances = {name: [fold.table[i] for i in fold.split[name]] for name in SEEN}
    speakers = {name: sorted({u.speaker for u in spoken}) for name, spoken in utterances.items()}
    seen = {name: {fold.digests[i] for i in fold.split[name]} for name in SEEN}
    theirs = {
        name: {digest for u, digest in zip(fold.table, fold.digests, strict=True) if u.speaker in speakers[name]}
        for name in SEEN
    }
    return {
        "corpus": corpus.name,
        "origin": corpus.origin,
        "kind": corpus.kind,
        **facts,
        "fingerprint": fold.fingerprint,
        "protocol": describe(fold.protocol),
        "fold": fold.number,
        "speakers": speakers,
        "recordings": {name: _pack(seen[name]) for name in SEEN},
        "other_recordings": {name: _pack(theirs[name] - seen[name]) for name in SEEN},  # of the same speakers
        "sessions": {name: _pack(_hash(u.session) for u in us if u.session) for name, us in utterances.items()},
        "sentences": {name: _pack(_hash(u.sentence) for u in us if u.sentence) for name, us in utterances.items()},
    }


def check_history(history: Sequence[Fit]) -> None:
    """Look whether a history from elsewhere can be compared with anything.

    Raises:
        TypeError, KeyError, ValueError, AttributeError: Names are no text, digests are none, or they are missing.
    """
    for fit in history:
        names = [fit["corpus"], *(fit.get(key, "") for key in ("origin", "kind", "fingerprint"))]
        "".join([*names, *(speaker for role in SEEN for speaker in fit["speakers"][role])])
        int(fit["fold"])
        for content in CONTENTS:
            _known(fit, content, SEEN)


def in_short(history: Sequence[Fit]) -> list[dict[str, Any]]:
    """Return a history without its digests, for people."""
    return [{key: value for key, value in fit.items() if key not in CONTENTS} for fit in history]


def extended(history: Sequence[Fit], fit: Fit) -> list[Fit]:
    """Return a history with one more fit, or as it was where that fit goes on."""
    return [*history] if history and history[-1].get("fingerprint") == fit["fingerprint"] else [*history, fit]


def check_unseen(history: Sequence[Fit], fold: "Fold", partition: "Partition", corpus: Identity) -> list[str]:
    """Compare a split with everything that a network was trained or chosen on.

    Args:
        history: Of the network.
        fold: Its ``partition`` is to be scored; what its own fit shares with it is in its audit.
        partition: "test" must be of nobody that the network was trained or chosen on, "val" of nobody trained on; where
            the protocol shares speakers, sentences or sessions, only of other recordings.
        corpus: Of the fold.

    Returns:
        What has to be known of the score, a sentence each.

    Raises:
        UserError: The network has seen something of the split.
    """
    protocol, scored = fold.protocol, fold.split[partition]
    speakers = {fold.table[i].speaker for i in scored}
    roles = SEEN if partition == "test" and not protocol.test_is_validation else SEEN[:1]
    notes: dict[str, None] = {}
    for fit in history:
        known = _known(fit, "recordings", roles)
        if known is None:
            notes[OLD] = None
        known = known or set()
        named = {speaker for role in roles for speaker in fit["speakers"][role]}
        by_name = named if _same_people(fit, corpus) else set()
        # One shared recording tells who it is, and with it whose all the others are.
        theirs = known | (_known(fit, "other_recordings", roles) or set())
        by_content = {u.speaker for u, d in zip(fold.table, fold.digests, strict=True) if _short(d) in theirs}
        own = fit.get("fingerprint") == fold.fingerprint
        seen = speakers & (by_content | by_name)
        if seen and protocol.speaker_disjoint:
            raise UserError(_seen(fit, partition, seen, seen & by_content, corpus))
        if seen and not own:
            note = f"{len(seen)} of {len(speakers)} {partition} speakers are also in the training of {_of(fit)}."
            notes[note] = None
        if same := [fold.files[i] for i in scored if _short(fold.digests[i]) in known]:
            raise UserError(
                f"{len(same)} recordings of {partition} were used to train or select this checkpoint ({_of(fit)}), "
                f"such as {same[0]}. {_way_out(fit)}"
            )
        alike = sorted(speakers & named - by_content - by_name)
        if alike and (_is_own(corpus.kind, corpus.origin) or _is_own(fit.get("kind"), fit.get("origin"))):
            notes[_strangers(fit, alike)] = None
        if by_name:
            notes |= dict.fromkeys(_material(fit, fold, partition, own=own))
    return list(notes)


def _material(fit: Fit, fold: "Fold", partition: "Partition", *, own: bool) -> Iterator[str]:
    """Yield what a split shares of sessions and sentences with a fit on the same corpus; its own audit says so, too.

    Raises:
        UserError: The protocol forbids it.
    """
    for fact, forbidden in (
        ("session", fold.protocol.session_disjoint),
        ("sentence", fold.protocol.sentence_disjoint and partition == "test"),
    ):
        scored = {getattr(fold.table[i], fact) for i in fold.split[partition]} - {None}
        known = _known(fit, f"{fact}s", SEEN if forbidden else SEEN[:1]) or set()
        shared = [value for value in scored if _short(_hash(value)) in known]
        if shared and forbidden:
            raise UserError(
                f"{len(shared)} of {len(scored)} {fact}s of {partition} were used to train or select this checkpoint "
                f"({_of(fit)}). {_way_out(fit)}"
            )
        if shared and not own:
            yield f"{len(shared)} of {len(scored)} {fact}s of {partition} are also in the training of {_of(fit)}."


def _seen(fit: Fit, partition: "Partition", seen: set[str], by_content: set[str], corpus: Identity) -> str:
    scored, used = ("Test", "train or select") if partition == "test" else ("Validation", "train")
    named = some(sorted(seen), NAMED)
    who = f"speakers {named} were" if len(seen) > 1 else f"speaker {named} was"
    why = ""
    if by_content and not _same_people(fit, corpus):
        why = " Some of their recordings are the same, sample for sample, under whatever names."
    elif not by_content and _is_own(corpus.kind, corpus.origin):
        why = " They are known by name alone: if they are other people, give this corpus another --data.name."
    return f"{scored} {who} used to {used} this checkpoint ({_of(fit)}).{why} {_way_out(fit)}"


def _strangers(fit: Fit, alike: Sequence[str]) -> str:
    return (
        f"Speakers named {some(alike, NAMED)} are also in {_of(fit)}, which this checkpoint was trained or selected "
        "on. No recording is shared, so they count as other people; if they are the same, say so with --data.name "
        f"{fit['corpus']!r}."
    )


def _way_out(fit: Fit) -> str:
    return (
        f"The score would mean nothing. Score it on its own unseen speakers (fold {fit['fold']}: leave --data.fold and "
        "--data.protocol out), choose others (--data.protocol FixedSpeakers), or train a checkpoint without them."
    )


def _same_people(fit: Fit, corpus: Identity) -> bool:
    """Tell whether equal names of speakers mean the same people."""
    if "origin" in fit:
        named = corpus.stated and _plain(fit["corpus"]) == _plain(corpus.name)  # a user says that it is that corpus
        return named or _plain(fit["origin"]) == _plain(corpus.origin)
    return bool(fit["corpus"] == corpus.kind) and not corpus.stated  # an older checkpoint calls every table alike


def _plain(name: str) -> str:
    """Return a name without what people write differently: EMO-DB, EmoDB."""
    return "".join(filter(str.isalnum, name)).casefold()


def _is_own(kind: str | None, origin: str | None) -> bool:
    """Tell whether a corpus is a user's own; published ones are known by their class."""
    return kind != origin


def _known(fit: Fit, content: str, roles: Iterable[str]) -> set[bytes] | None:
    """Return short digests of what was seen; None where an older checkpoint does not tell."""
    if content not in fit:
        return None
    joined = b"".join(base64.b64decode(fit[content][role], validate=True) for role in roles)
    return {joined[i : i + DIGEST_BYTES] for i in range(0, len(joined), DIGEST_BYTES)}


def _pack(digests: Iterable[str]) -> str:
    return base64.b64encode(b"".join(sorted(set(map(_short, digests))))).decode()


def _short(digest: str) -> bytes:
    return bytes.fromhex(digest[: 2 * DIGEST_BYTES])


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()


def _of(fit: Fit) -> str:
    return f"{fit['corpus']}, fold {fit['fold']}"
