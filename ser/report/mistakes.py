"""The most confident mistakes of an experiment, and their audio as part of a page."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import soundfile

from ser.errors import UserError
from ser.runs.folder import StoredRun

MOST = 12  # mistakes of an experiment
LONGEST_S = 10.0  # of a recording that is embedded
LIMIT_BYTES = 8 * 2**20  # of all audio of a page


@dataclass(frozen=True)
class Mistake:
    """A test utterance whose emotion was predicted wrong.

    Attributes:
        run: Folder of the run.
        file: Relative to the corpus.
        speaker: Who spoke.
        truth: The class it is labelled with.
        predicted: The class with the highest probability.
        confidence: That probability.
        truth_probability: The probability of the truth.
    """

    run: StoredRun
    file: str
    speaker: str
    truth: str
    predicted: str
    confidence: float
    truth_probability: float


def confident_mistakes(runs: Iterable[StoredRun], most: int = MOST) -> list[Mistake]:
    """Return the mistakes with the highest confidence, each file once, the most confident first."""
    mistakes = sorted(
        (mistake for run in runs for mistake in _mistakes(run)), key=lambda m: (-m.confidence, m.file, str(m.run.path))
    )
    first_of_file = {mistake.file: mistake for mistake in reversed(mistakes)}
    return [mistake for mistake in mistakes if first_of_file[mistake.file] is mistake][:most]


def _mistakes(run: StoredRun) -> Iterable[Mistake]:
    test = run.test
    numbers = (array.tolist() for array in (test.targets, test.predicted, test.probabilities))
    columns = zip(test.files, test.speakers, *numbers, strict=True)
    for file, speaker, target, predicted, probabilities in columns:
        if predicted != target:
            yield Mistake(
                run=run,
                file=file,
                speaker=speaker,
                truth=test.labels[target],
                predicted=test.labels[predicted],
                confidence=probabilities[predicted],
                truth_probability=probabilities[target],
            )


class Players:
    """Embeds recordings in a page, up to a limit of size.

    Args:
        limit_bytes: Of the encoded audio.
        longest_s: Longer recordings are truncated.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES, longest_s: float = LONGEST_S) -> None:
        self.limit_bytes = limit_bytes
        self.longest_s = longest_s
        self._used_bytes = 0

    def source(self, root: Path, file: str) -> tuple[str | None, str]:
        """Return a recording as a data: address, losslessly as FLAC, and a remark, which may be empty.

        Args:
            root: Folder of the corpus.
            file: Relative to it.

        Raises:
            UserError: The corpus folder is missing.
        """
        if not root.is_dir():
            raise UserError(
                f"--audio: there is no corpus folder {root}, which protocol.json names. Run ser report where it is "
                "(a relative path counts from the folder in which ser fit was run), or leave --audio out."
            )
        try:
            with soundfile.SoundFile(root / file) as recording:
                cut = recording.frames > self.longest_s * recording.samplerate
                samples = recording.read(round(self.longest_s * recording.samplerate) if cut else -1)
                content = io.BytesIO()
                soundfile.write(content, samples, recording.samplerate, format="FLAC", subtype="PCM_16")
        except (OSError, soundfile.SoundFileError) as error:
            return None, f"cannot be read: {error}"
        address = "data:audio/flac;base64," + base64.b64encode(content.getvalue()).decode()
        if self._used_bytes + len(address) > self.limit_bytes:
            return None, f"not embedded: the page's audio is limited to {self.limit_bytes / 2**20:.0f} MiB"
        self._used_bytes += len(address)
        return address, f"the first {self.longest_s:g} s" if cut else ""
