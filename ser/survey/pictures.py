"""Pictures of a corpus: class balance, and a spectrogram of each emotion."""

from collections import Counter
from pathlib import Path

import librosa
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ser.corpora.base import SpeechCorpus
from ser.errors import UserError
from ser.features.audio import read
from ser.protocols.splits import Utterance

COLOURS = {"female": "#cc6677", "male": "#4477aa", None: "#888888"}
WINDOW_MS = 25.0
RANGE_DB = 70.0
DPI = 120


@mpl.rc_context({"text.parse_math": False})  # a dollar in a name starts no formula
def save_pictures(corpus: SpeechCorpus, folder: Path) -> list[Path]:
    """Draw the number of utterances by emotion and gender, and one spectrogram for every emotion.

    Args:
        corpus: The corpus.
        folder: For the PNG files; it is created if it does not exist.

    Returns:
        The files.

    Raises:
        UserError: The folder cannot be written.
    """
    figures = {"class_balance": _balance(corpus)}
    for emotion in corpus.labels:
        shown = _typical(corpus, emotion)
        if shown is not None:
            figures[f"spectrogram_{emotion}"] = _spectrogram(corpus, shown)
    saved = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            saved.append(folder / f"{name.replace('/', '-')}.png")
            figure.savefig(saved[-1], dpi=DPI)
    except OSError as error:
        raise UserError(
            f"Pictures cannot be written to {folder}: {error.strerror or error}. Give another --pictures folder."
        ) from error
    return saved


def _balance(corpus: SpeechCorpus) -> Figure:
    counts = Counter((utterance.emotion, utterance.gender) for utterance in corpus.table)
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(corpus.labels)), layout="constrained")
    axes = figure.add_subplot()
    left = np.zeros(len(corpus.labels))
    for gender in ("female", "male", None):
        widths = np.array([counts[label, gender] for label in corpus.labels])
        if widths.any():
            axes.barh(corpus.labels, widths, left=left, color=COLOURS[gender], label=gender or "gender unknown")
            left += widths
    for row, total in enumerate(left):
        axes.annotate(f"{total:.0f}", (total, row), xytext=(4, 0), textcoords="offset points", va="center")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.set_xlabel("utterances")
    axes.set_title(f"{corpus.name}: {len(corpus.table)} utterances")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _typical(corpus: SpeechCorpus, emotion: str) -> Utterance | None:
    """Return the utterance of median length."""
    lengths = [
        (recording.duration_s, i)
        for i, (utterance, recording) in enumerate(zip(corpus.table, corpus.recordings, strict=True))
        if utterance.emotion == emotion
    ]
    return corpus.table[sorted(lengths)[len(lengths) // 2][1]] if lengths else None


def _spectrogram(corpus: SpeechCorpus, utterance: Utterance) -> Figure:
    rate = corpus.front_end.features.sample_rate_hz  # no network sees frequencies above half of it
    waveform = read(utterance.path, rate)
    window = round(WINDOW_MS * rate / 1000)
    power = np.abs(librosa.stft(waveform, n_fft=4 * window, win_length=window, hop_length=window // 5)) ** 2
    level_db = librosa.power_to_db(power, ref=np.max, top_db=RANGE_DB)  # (frequencies, frames)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    extent = (0.0, len(waveform) / rate, 0.0, rate / 2000)
    image = axes.imshow(level_db, origin="lower", aspect="auto", extent=extent, cmap=mpl.colormaps["magma"])
    figure.colorbar(image, label="dB, relative to the maximum")
    axes.set_xlabel("seconds")
    axes.set_ylabel("kHz")
    axes.set_title(f"{corpus.name}, {utterance.emotion}: {utterance.path.name}, speaker {utterance.speaker}")
    return figure
