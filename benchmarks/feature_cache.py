"""Time per utterance: the feature cache, built on all cores, against the usual loop over librosa.

    python benchmarks/feature_cache.py FOLDER

Both compute the 3-D log-mel spectrogram of CoRNN (16 kHz, trimmed at 60 dB, 3 s at most; 25 ms Hamming window, 10 ms
hop, 40 HTK mel filters, natural logarithm, first and second derivative) of every recording in the folder, and are
held against each other before they are timed. "Checking" is the look for damage and duplicates that comes before the
cache and reads every file once; the usual loop has no such thing. A small folder is gone through ``--times`` times, as
what a corpus of that many recordings would take: starting the processes takes as long as a hundred recordings. The
fastest of several passes counts, so that it matters less what else the machine does.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
from rich.console import Console
from rich.table import Table

from ser.data import FrontEnd, LogMel, Preprocess
from ser.features.audio import audio_files, inspect_files
from ser.features.store import FeatureStore, Piece

RATE_HZ, TOP_DB, DURATION_S = 16_000, 60.0, 3.0


def usual(path: Path) -> np.ndarray:
    """Compute the features of one recording as a notebook would, shape (3, 40, T)."""
    samples, _ = librosa.load(path, sr=RATE_HZ)
    samples, _ = librosa.effects.trim(samples, top_db=TOP_DB)
    power = librosa.feature.melspectrogram(
        # librosa puts the window in the middle of n_fft samples; with 56 in front, frame i starts at sample i * hop.
        y=np.pad(samples[: round(DURATION_S * RATE_HZ)], 56),
        sr=RATE_HZ,
        n_fft=512,
        win_length=400,
        hop_length=160,
        window="hamming",
        center=False,
        n_mels=40,
        htk=True,
        norm=None,
    )
    static = np.log(np.maximum(power, 1e-10))
    first = librosa.feature.delta(static, width=5, mode="nearest")
    return np.stack([static, first, librosa.feature.delta(first, width=5, mode="nearest")])


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="wav files, in any folders")
    parser.add_argument("--times", type=int, default=6, help="how often each recording is computed in a pass")
    parser.add_argument("--passes", type=int, default=5, help="how often each is timed")
    options = parser.parse_args()

    files = audio_files(options.folder)
    front_end = FrontEnd(Preprocess(TOP_DB, duration_s=DURATION_S), LogMel(RATE_HZ, deltas=2))
    for path in files[:20]:  # also loads what either loads on first use
        np.testing.assert_allclose(front_end(path).numpy(), usual(path), atol=1e-2)

    checking, computing, looping = [], [], []
    for _ in range(options.passes):
        with tempfile.TemporaryDirectory() as folder:
            memory = Path(folder, "recordings")
            checking.append(seconds(lambda memory=memory: inspect_files(files, memory)))
            pieces = [Piece(f"{path}{time}", path) for time in range(options.times) for path in files]
            store = FeatureStore(Path(folder), front_end)
            computing.append(seconds(lambda store=store, pieces=pieces: store.add(pieces)) / options.times)
        looping.append(seconds(lambda: [usual(path) for path in files]))

    table = Table(title=f"{len(files)} recordings, {os.cpu_count()} cores, fastest of {options.passes} passes")
    for column in ("", "ms per utterance", "of the usual loop"):
        table.add_column(column, justify="right" if column else "left")
    for name, time_s in {
        "usual loop over librosa": min(looping),
        "cache: checking": min(checking),
        "cache: computing": min(computing),
        "cache, cold": min(map(sum, zip(checking, computing, strict=True))),
    }.items():
        table.add_row(name, f"{1000 * time_s / len(files):.3f}", f"{time_s / min(looping):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
