"""Notes on a corpus's files that matter to a score or a prediction."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ser.corpora.listing import BadFile
from ser.features.audio import Recording
from ser.features.front_end import FrontEnd
from ser.protocols.splits import Utterance
from ser.settings.names import some

NAMED = 3  # files that a note names
SHORT_S = 0.1  # a syllable takes longer


def notes_on_files(bad: Sequence[BadFile], corpus: str, name: Callable[[Path], str]) -> list[str]:
    """Note the files that are not used.

    Args:
        bad: The files.
        corpus: Name of the corpus.
        name: Returns the name of a file.
    """
    damaged = [f"{name(file.path)} ({file.reason})" for file in bad if not file.foreign]
    foreign = [name(file.path) for file in bad if file.foreign]
    return _notes({"Left out as unusable": damaged, f"Ignored, as not part of {corpus}": foreign}, "")


def notes_on_recordings(
    table: Sequence[Utterance], recordings: Sequence[Recording], front_end: FrontEnd, name: Callable[[Path], str]
) -> list[str]:
    """Note recordings that are truncated, very short, or of a lower sample rate than the features.

    Args:
        table: The utterances.
        recordings: Properties of the file of each.
        front_end: From these files to features.
        name: Returns the name of a file.
    """
    before, rate = front_end.preprocess, front_end.features.sample_rate_hz
    by_length = sorted(zip(recordings, table, strict=True), key=lambda pair: -pair[0].duration_s)

    def named(value: str, belongs: Callable[[Recording], bool]) -> list[str]:
        return [f"{name(u.path)} ({value.format(recording)})" for recording, u in by_length if belongs(recording)]

    cut = named("{0.duration_s:.1f} s", lambda recording: recording.duration_s > before.offset_s + before.duration_s)
    cut = cut if before.segment_hop_s is None else []
    narrow = named("{0.sample_rate_hz} Hz", lambda recording: recording.sample_rate_hz < rate)
    short = named("{0.duration_s:.3f} s", lambda recording: recording.duration_s < SHORT_S)
    return _notes(
        {
            f"Truncated to {before.duration_s:g} s": cut,
            f"Sampled below the {rate} Hz of the features, so without higher frequencies": narrow,
            f"Shorter than {SHORT_S:g} s, too short to express an emotion": short,
        },
        f" of {len(table)}",
    )


def _notes(found: dict[str, list[str]], of_all: str) -> list[str]:
    """Return a sentence for each kind of file found, with their number."""
    notes = []
    for what, files in found.items():
        if files:
            named = some(files, NAMED).encode(errors="backslashreplace").decode()  # a name need not be UTF-8
            notes.append(f"{what}: {len(files)}{of_all}, {named}.")
    return notes
