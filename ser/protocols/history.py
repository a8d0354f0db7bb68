"""What a network has seen: every fit that led to it, and whether it can still be scored on a partition.

A checkpoint carries its history: for every fit the corpus, protocol and fold, the speakers, and compact digests of the
training and validation recordings, without file names. Speakers are identified by their recordings, under any corpus
and name, and by their names within one corpus. A copy that was cut, resampled or encoded again has other content, so
its speakers are identified by name only.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ser.errors import UserError
from ser.settings.class_paths import describe
from ser.settings.names import some

if TYPE_CHECKING:
    from ser.protocols.fold import Fold
    from ser.protocols.splits import Partition

DIGEST_BYTES = 8  # of each recording, sentence and session: two of a million collide once in thirty million corpora
SEEN: tuple["Partition", ...] = ("train", "val")
NAMED = 10  # speakers that a message names
CONTENTS = ("recordings", "other_recordings", "sessions", "sentences")
OLD = (
    "The checkpoint has an older format, which holds the names of its speakers only: recordings could not be compared "
    "with those that it was trained on."
)

Fit = Mapping[str, Any]  # one fit of a history, as plain data


class Identity(NamedTuple):
    """Which corpus this is.

    Attributes:
        name: To show.
        origin: Equal for two corpora in which equal names of speakers mean the same people.
        kind: Name of its class, "Table" for every table.
        stated: Whether the name was given by the user.
    """

    name: str
    origin: str
    kind: str
    stated: bool = False


def fit_record(fold: "Fold", corpus: Identity, **facts: Any) -> Fit:
    """Return what a checkpoint keeps of a fit, as plain data.

    Args:
        fold: The fold that was trained and validated on.
        corpus: Of its utterances.
        facts: Other facts to keep.
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
    """Check that a history from elsewhere is well-formed.

    Raises:
        TypeError, KeyError, ValueError, AttributeError: Names or digests are missing or invalid.
    """
    for fit in history:
        names = [fit["corpus"], *(fit.get(key, "") for key in ("origin", "kind", "fingerprint"))]
        "".join([*names, *(speaker for role in SEEN for speaker in fit["speakers"][role])])
        int(fit["fold"])
        for content in CONTENTS:
            _known(fit, content, SEEN)


def in_short(history: Sequence[Fit]) -> list[dict[str, Any]]:
    """Return a history without its digests, to show."""
    return [{key: value for key, value in fit.items() if key not in CONTENTS} for fit in history]


def extended(history: Sequence[Fit], fit: Fit) -> list[Fit]:
    """Return a history with one more fit, or unchanged if that fit was resumed."""
    return [*history] if history and history[-1].get("fingerprint") == fit["fingerprint"] else [*history, fit]


def check_unseen(history: Sequence[Fit], fold: "Fold", partition: "Partition", corpus: Identity) -> list[str]:
    """Check that a partition is disjoint from everything that a network was trained or selected on.

    Args:
        history: Of the network.
        fold: Its ``partition`` is to be scored; what its own fit shares with it is in its audit.
        partition: "test" must be disjoint from all training and validation, "val" from all training: in speakers,
            sentences and sessions unless the protocol shares these, and always in recordings.
        corpus: Of the fold.

    Returns:
        Notes on the score, a sentence each.

    Raises:
        UserError: The network has seen something of the partition.
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
        # One shared recording identifies the speaker of all the others.
        theirs = known | (_known(fit, "other_recordings", roles) or set())
        by_content = {u.speaker for u, d in zip(fold.table, fold.digests, strict=True) if _short(d) in theirs}
        own = fit.get("fingerprint") == fold.fingerprint
        seen = speakers & (by_content | by_name)
        if seen and protocol.speaker_disjoint:
            raise UserError(_not_disjoint(fit, partition, seen, seen & by_content, corpus))
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
    """Yield the sessions and sentences that a partition shares with another fit on the same corpus.

    Raises:
        UserError: The protocol forbids sharing them.
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


def _not_disjoint(fit: Fit, partition: "Partition", seen: set[str], by_content: set[str], corpus: Identity) -> str:
    scored, used = ("Test", "train or select") if partition == "test" else ("Validation", "train")
    named = some(sorted(seen), NAMED)
    who = f"speakers {named} were" if len(seen) > 1 else f"speaker {named} was"
    why = ""
    if by_content and not _same_people(fit, corpus):
        why = " Some of their recordings are identical, sample for sample."
    elif not by_content and _is_own(corpus.kind, corpus.origin):
        why = " Only the names are equal: if they are other people, give this corpus another --data.name."
    return f"{scored} {who} used to {used} this checkpoint ({_of(fit)}).{why} {_way_out(fit)}"


def _strangers(fit: Fit, alike: Sequence[str]) -> str:
    return (
        f"Speakers named {some(alike, NAMED)} are also in {_of(fit)}, which this checkpoint was trained or selected "
        "on. No recording is shared, so they count as other people; if they are the same, give --data.name "
        f"{fit['corpus']!r}."
    )


def _way_out(fit: Fit) -> str:
    return (
        f"The score would be meaningless. Use its own unseen speakers (fold {fit['fold']}: omit --data.fold and "
        "--data.protocol), choose others (--data.protocol FixedSpeakers), or train a checkpoint without these."
    )


def _same_people(fit: Fit, corpus: Identity) -> bool:
    """Return whether equal names of speakers mean the same people."""
    if "origin" in fit:
        named = corpus.stated and _plain(fit["corpus"]) == _plain(corpus.name)  # the user states that it is that corpus
        return named or _plain(fit["origin"]) == _plain(corpus.origin)
    return bool(fit["corpus"] == corpus.kind) and not corpus.stated  # an older checkpoint has one name for all tables


def _plain(name: str) -> str:
    """Return a name without differences in writing: EMO-DB, EmoDB."""
    return "".join(filter(str.isalnum, name)).casefold()


def _is_own(kind: str | None, origin: str | None) -> bool:
    """Return whether a corpus is the user's own; published ones are identified by their class."""
    return kind != origin


def _known(fit: Fit, content: str, roles: Iterable[str]) -> set[bytes] | None:
    """Return short digests of what was seen; None if an older checkpoint lacks them."""
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
