"""Memory and time as a corpus grows: checking, building the cache and training, at several sizes.

    python benchmarks/large_corpus.py [--utterances 2000 20000] [--folder DIR]

Makes corpora of wav files of 1 to 3 s (noise of changing loudness, 12 speakers, 4 emotions) described by a CSV, and
runs each part in a process of its own, whose largest resident memory the system tells; what it has mapped of the cache
counts. The training part is two epochs of a small CoRNN without Conformer. Needs about 0.2 MB of disk per utterance.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

RATE_HZ = 16_000
EMOTIONS = ("anger", "happiness", "neutral", "sadness")


def write_corpus(folder: Path, utterances: int) -> Path:
    """Write recordings and their table, and return the table."""
    random = np.random.default_rng(0)
    noise = random.standard_normal(60 * RATE_HZ) * 3000
    table = folder / f"{utterances}.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "emotion", "speaker"])
        for number in range(utterances):
            length = random.integers(RATE_HZ, 3 * RATE_HZ)
            start = random.integers(len(noise) - length)
            samples = noise[start : start + length] * np.linspace(*random.uniform(0.2, 1, 2), length)
            path = folder / f"{utterances}" / f"{number // 1000}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples.astype(np.int16), RATE_HZ)
            rows.writerow([path.relative_to(folder), EMOTIONS[number % 4], f"spk{number // 4 % 12:02}"])
    return table


def build(table: Path, cache: Path) -> float:
    """Check the corpus and compute its features; seconds."""
    data = corpus(table, cache)
    start = time.perf_counter()
    data.prepare_data()
    return time.perf_counter() - start


def train(table: Path, cache: Path) -> float:
    """Train on the features; seconds of the second epoch."""
    import torch
    from lightning.pytorch import Callback, Trainer

    from ser.models import CoRNN
    from ser.task import EmotionClassifier

    class Clock(Callback):
        """Times the latest epoch's training."""

        def on_train_epoch_start(self, *_: object) -> None:
            self.start = time.perf_counter()

        def on_train_epoch_end(self, *_: object) -> None:
            self.seconds = time.perf_counter() - self.start

    torch.manual_seed(0)
    data, clock = corpus(table, cache), Clock()
    net = CoRNN(data.num_classes, data.feature_shape, lstm_hidden=4, use_conformer=False)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[clock],
    )
    trainer.fit(EmotionClassifier(net, data.labels), data)
    return clock.seconds


def corpus(table: Path, cache: Path) -> object:
    """Return the corpus that a table describes, with CoRNN's features."""
    from ser.corpora import Table
    from ser.data import LogMel

    return Table(table, features=LogMel(deltas=2), batch_size=40, cache_dir=cache)


def measured(part: str, table: Path, cache: Path) -> dict[str, float]:
    """Run one part in a process of its own; seconds, and the largest resident memory of it and its workers."""
    command = [sys.executable, __file__, "--part", part, "--table", str(table), "--cache", str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def run_part(part: str, table: Path, cache: Path) -> None:
    """Run a part here and print what it took."""
    seconds = {"build": build, "train": train}[part](table, cache)
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"seconds": seconds, "own_mib": own / 1024, "worker_mib": workers / 1024}))


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, nargs="*", default=[2000, 20_000])
    parser.add_argument("--folder", type=Path, help="where the corpora are made, and deleted; a temporary folder")
    parser.add_argument("--part", choices=("build", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_part(options.part, options.table, options.cache)
        return
    shown = Table(title=f"{os.cpu_count()} cores; largest resident memory in MiB")
    for column in ("utterances", "part", "seconds", "ms per utterance", "process", "each worker"):
        shown.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for utterances in options.utterances:
            table = write_corpus(Path(folder), utterances)
            for part in ("build", "train"):
                took = measured(part, table, Path(folder, "cache"))
                each = 1000 * took["seconds"] / utterances
                workers = f"{took['worker_mib']:.0f}" if took["worker_mib"] else "–"
                cells = (f"{took['seconds']:.1f}", f"{each:.2f}", f"{took['own_mib']:.0f}", workers)
                shown.add_row(f"{utterances:,}", part, *cells)
                print(utterances, part, took, flush=True)
    Console().print(shown)


if __name__ == "__main__":
    main()
