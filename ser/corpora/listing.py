"""From the files that a parser finds to the utterances that are used: choice of emotions, damaged files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ser.errors import UserError, WrongRoot
from ser.features.audio import Recording, inspect_files
from ser.features.front_end import FrontEnd
from ser.protocols.splits import Utterance
from ser.settings.names import meant

MOST_NAMED = 50  # damaged files that a message names
MOST_SHOWN = 5  # the same where no file of a folder can be used

Counts = dict[str, list[int | None]]  # emotion -> utterances found, and published (null if unknown)


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file that is not used, and why.

    Attributes:
        path: The file.
        reason: Why, for a message.
        foreign: It does not belong to the corpus: no reason to stop.
    """

    path: Path
    reason: str
    foreign: bool = False


class Checked(NamedTuple):
    """The utterances with usable recordings, the properties of these, and the other files."""

    table: list[Utterance]
    recordings: list[Recording]
    bad: list[BadFile]


@dataclass(frozen=True)
class EmotionChoice:
    """Which emotions of a corpus are used, and under which names.

    Args:
        corpus: Its name, for messages.
        published: Emotion -> number of utterances, in the corpus's order, under its own names.
        emotions: Those to use, in this order, under their merged names; None takes all.
        merge: Own name -> merged name.
        labelled: Whether the corpus has labels; if not, the emotions are those of a checkpoint.
    """

    corpus: str
    published: Mapping[str, int]
    emotions: list[str] | None
    merge: Mapping[str, str]
    labelled: bool = True

    def rename(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """Give each utterance its merged name.

        Raises:
            UserError: The corpus has no such emotion to merge.
        """
        utterances = list(utterances)
        own = {utterance.emotion for utterance in utterances}
        unknown = [emotion for emotion in self.merge if emotion not in {*own, *self.published}]
        if unknown:
            raise UserError(
                f"merge: {', '.join(unknown)} not found in {self.corpus} here, which has "
                f"{', '.join([*self.published, *sorted(own - set(self.published))])}."
                f"{meant(unknown[0], {*own, *self.published})}"
            )
        return [replace(u, emotion=self.merge.get(u.emotion, u.emotion)) for u in utterances]

    def labels(self, present: set[str]) -> list[str]:
        """Return the classes, out of the (merged) emotions that are present.

        Raises:
            UserError: A chosen emotion does not exist or is named twice, or only one is chosen.
        """
        if not self.labelled:
            if self.emotions is None:
                raise UserError(f"{self.corpus} has no labels; give the --ckpt_path of a trained model.")
            return self.emotions
        merged = [self.merge.get(emotion, emotion) for emotion in self.published]
        order = [emotion for emotion in dict.fromkeys([*merged, *sorted(present)]) if emotion in present]
        if self.emotions is None:
            return order
        unknown = [emotion for emotion in self.emotions if emotion not in present]
        if unknown:
            raise UserError(
                f"emotions: {', '.join(unknown)} not found in {self.corpus} here, which has {', '.join(order)}."
                f"{meant(unknown[0], order)}"
            )
        twice = [emotion for emotion, times in Counter(self.emotions).items() if times > 1]
        if twice or len(self.emotions) < 2:
            raise UserError(f"emotions is {self.emotions}; it must name at least two emotions, each once.")
        return self.emotions

    def counts(self, utterances: Sequence[Utterance], labels: Sequence[str]) -> Counts:
        """Count each class and, if no emotions were chosen, those of which the copy has no recording."""
        found = Counter(utterance.emotion for utterance in utterances)
        published = self._merged_counts()
        expected = labels if self.emotions is not None else dict.fromkeys([*published, *labels])
        return {emotion: [found[emotion], published.get(emotion)] for emotion in expected}

    def _merged_counts(self) -> dict[str, int]:
        """Return the published counts under the merged names, without sums that are partly unknown."""
        merged = Counter[str]()
        for emotion, count in self.published.items():
            merged[self.merge.get(emotion, emotion)] += count
        unknown = {self.merge[emotion] for emotion in self.merge if emotion not in self.published}
        return {emotion: count for emotion, count in merged.items() if emotion not in unknown}


class Listing(NamedTuple):
    """The parser's findings, before any file is opened."""

    root: Path
    table: list[Utterance]
    bad: list[BadFile]
    labels: list[str]
    choice: EmotionChoice

    def relative(self, path: Path) -> str:
        """Return a file's path below the root, with forward slashes."""
        folder = self.root.parent if self.root.is_file() else self.root
        return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()

    def counts(self, utterances: Sequence[Utterance]) -> Counts:
        """Count each class and, if no emotions were chosen, those of which the copy has no recording."""
        return self.choice.counts(utterances, self.labels)

    def name(self, bad: Sequence[BadFile], most: int) -> str:
        """Return a line for each bad file, up to so many."""
        lines = [f"  {self.relative(item.path)}: {item.reason}" for item in bad[:most]]
        return "\n".join([*lines, *([f"  and {len(bad) - most} more"] if len(bad) > most else [])])


def list_recordings(root: Path, items: Iterable[Utterance | BadFile], choice: EmotionChoice, wanted: str) -> Listing:
    """Sort a parser's items into utterances of the chosen emotions and unusable files.

    Args:
        root: Folder of the corpus.
        items: From the parser.
        choice: Which emotions are used.
        wanted: The expected layout, for a message.

    Raises:
        UserError: There is no utterance, or a chosen emotion does not exist.
    """
    items = list(items)
    found = [item for item in items if isinstance(item, Utterance)]
    bad = [item for item in items if isinstance(item, BadFile)]
    listing = Listing(root, found, bad, [], choice)
    if not found:
        unusable = f"None of {len(bad)} recordings in {root} can be used:\n{listing.name(bad, MOST_SHOWN)}\n"
        raise WrongRoot(f"{unusable if bad else f'{root} holds no audio files. '}{wanted}")
    found = choice.rename(found)
    labels = choice.labels({utterance.emotion for utterance in found})
    used = [utterance for utterance in found if utterance.emotion in labels or not choice.labelled]
    return listing._replace(table=used, labels=labels)


def check_files(listing: Listing, memory: Path, front_end: FrontEnd, *, skip_bad: bool, strict: bool) -> Checked:
    """Inspect every file; damaged ones stop the run or are left out, foreign ones are left out.

    Args:
        listing: The parser's findings.
        memory: Folder for the properties of usable recordings.
        front_end: Defines the shortest usable recording.
        skip_bad: Leave damaged files out.
        strict: Stop if the copy is incomplete.

    Raises:
        UserError: Files cannot be used, naming them; the copy is incomplete; or the memory cannot be written.
    """
    try:
        recordings = inspect_files([utterance.path for utterance in listing.table], memory)
    except OSError as error:
        raise UserError(
            f"{memory.parent} cannot be written: {error.strerror}. "
            "Fix that, or give another folder with --data.cache_dir."
        ) from error
    problems = [recording.problem or front_end.problem(recording.duration_s) for recording in recordings]
    inspected = list(zip(listing.table, recordings, problems, strict=True))
    bad = [*listing.bad, *(BadFile(u.path, problem) for u, _, problem in inspected if problem)]
    damaged = [item for item in bad if not item.foreign]
    if damaged and not skip_bad:
        raise UserError(
            f"{len(damaged)} of {len(listing.table) + len(listing.bad)} files in {listing.root} cannot be used:\n"
            f"{listing.name(damaged, MOST_NAMED)}\n"
            "Repair or remove them, or leave them out with --data.on_bad_file skip."
        )
    usable = [(utterance, recording) for utterance, recording, problem in inspected if not problem]
    if not usable:
        raise UserError(
            f"None of the {len(damaged)} files in {listing.root} can be used; the first {damaged[0].reason}."
        )
    checked = Checked([utterance for utterance, _ in usable], [recording for _, recording in usable], bad)
    if strict:
        _check_complete(listing.choice.corpus, listing.counts(checked.table))
    return checked


def differences(counts: Counts) -> str:
    """Return a table of the found and published counts, or nothing where they agree."""
    if all(published in (None, found) for found, published in counts.values()):
        return ""
    width = max(map(len, counts))
    lines = [f"  {'':{width}}  found  published"]
    for emotion, (found, published) in counts.items():
        marked = "" if published in (None, found) else "  <"
        lines.append(f"  {emotion:{width}}  {found:5}  {'?' if published is None else published:>9}{marked}")
    return "\n".join(lines)


def _check_complete(corpus: str, counts: Counts) -> None:
    """Compare a copy with the published counts; more than these are allowed.

    Raises:
        UserError: Fewer recordings of an emotion than were published, or no published counts.
    """
    if all(published is None for _, published in counts.values()):
        raise UserError(f"strict compares with published counts, and there are none for {corpus}; leave strict out.")
    if any(published is not None and (found or 0) < published for found, published in counts.values()):
        raise UserError(
            f"This copy of {corpus} is incomplete:\n{differences(counts)}\n"
            "Complete it, or leave strict out to use it as it is."
        )
