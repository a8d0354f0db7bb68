"""Time, memory and disk as a corpus grows, and what the feature cache costs when it is larger than memory.

    python benchmarks/large_corpus.py [--utterances 2000 20000] [--folder DIR]

Makes corpora of wav files of 1 to 3 s (noise of changing loudness, 12 speakers, 4 emotions) described by a CSV, and
runs every part in a process of its own, whose largest resident memory the system tells. Four tables:

- growth: checking the recordings, building the cache, and an epoch of a small CoRNN, at every size;
- training on the largest corpus from the cache against training from memory, block of batches by block of batches, with
  memory enough, and under a limit that the cache does not fit in (a control group of Linux, which root alone can make);
- building the largest corpus on one core, and on two;
- the index of so many recordings as 1,000 hours have, with made-up keys.

Needs about 0.25 MB of disk per utterance.
"""

import argparse
import csv
import hashlib
import json
import os
import resource
import shutil
import statistics
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
GROUP = Path("/sys/fs/cgroup/memory/ser-large-corpus")  # version 1; version 2 has no folder of this name
GROUP_LIMIT = "memory.limit_in_bytes"


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


# -- what is measured, each in a process of its own --


def check(table: Path, cache: Path) -> dict[str, float]:
    """Look into every recording."""
    data = corpus(table, cache)
    start = time.perf_counter()
    hours = sum(recording.duration_s for recording in data.recordings) / 3600
    return {"seconds": time.perf_counter() - start, "hours": hours}


def build(table: Path, cache: Path) -> dict[str, float]:
    """Compute the features of recordings that were checked."""
    data = corpus(table, cache)
    len(data.recordings)
    start = time.perf_counter()
    data.prepare_data()
    return {"seconds": time.perf_counter() - start}


def train(table: Path, cache: Path, comparing: bool = False) -> dict[str, float]:
    """Train two epochs, of which the second is timed.

    Args:
        table: The corpus.
        cache: The cache folder.
        comparing: Take every other block of batches from rows that are held in memory, and time both kinds: whatever
            else the machine does slows both alike.
    """
    import torch
    from lightning.pytorch import Callback, Trainer

    from ser.models import CoRNN
    from ser.training.task import EmotionClassifier

    class Clock(Callback):
        """Times every batch of the latest epoch, by where its features came from."""

        def on_train_epoch_start(self, *_: object) -> None:
            self.last, self.seconds = time.perf_counter(), {"memory": [], "cache": []}

        def on_train_batch_end(self, *_: object) -> None:
            now = time.perf_counter()
            self.seconds[rows.source if comparing else "cache"].append(now - self.last)
            self.last = now

    torch.manual_seed(0)
    data, clock = corpus(table, cache), Clock()
    batches = data.train_dataloader()
    if comparing:
        rows = batches.dataset.rows = Alternating(batches.dataset.rows)
    net = CoRNN(data.num_classes, data.feature_shape, lstm_hidden=4, use_conformer=False)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[clock],
    )
    data.train_dataloader = lambda: batches
    trainer.fit(EmotionClassifier(net, data.labels), data)
    each = {source: sum(took) / len(took) for source, took in clock.seconds.items() if took}
    return {"seconds": sum(map(sum, clock.seconds.values())), **each, "utterances": len(data.split.train)}


class Alternating:
    """Rows of a cache that are read by turns from it, and from some that are held in memory in place of all."""

    BATCHES, HELD = 20, 400

    def __init__(self, rows: object) -> None:
        self.rows = rows
        self.held = rows.read(np.arange(self.HELD))
        self.read_ahead = rows.read_ahead
        self.batch = -1

    @property
    def source(self) -> str:
        """Where the latest batch came from."""
        return ("cache", "memory")[self.batch // self.BATCHES % 2]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Copy some rows."""
        self.batch += 1
        return self.rows.read(rows) if self.source == "cache" else self.held[rows % self.HELD]


def index(_: Path, cache: Path, recordings: int) -> dict[str, float]:
    """Publish so many made-up recordings, open the store that holds them, and look all of them up."""
    from ser.data import FrontEnd, LogMel, Preprocess
    from ser.features.shards import index_block
    from ser.features.store import FeatureStore
    from ser.parallel import LARGEST

    front_end = FrontEnd(Preprocess(), LogMel(deltas=2))
    store = FeatureStore(cache, front_end)
    store.folder.mkdir(parents=True)
    keys = [hashlib.md5(b"%d" % number).hexdigest() for number in range(recordings)]
    for first in range(0, recordings, LARGEST):
        some = keys[first : first + LARGEST]
        with (store.folder / f"{first}.rows").open("wb") as file:
            file.truncate(len(some) * (4 * int(np.prod(front_end.shape)) + 2 * 8 * 3 * 40))  # sparse: takes no disk
            file.seek(0, os.SEEK_END)
            file.write(index_block({key: [100] for key in some}))
    before = resident_mib()
    start = time.perf_counter()
    opened = FeatureStore(cache, front_end)
    opening = time.perf_counter() - start
    taken = resident_mib() - before
    start = time.perf_counter()
    found = opened.spans(keys)
    return {
        "seconds": opening,
        "finding_s": time.perf_counter() - start,
        "index_mib": size_mib(cache),
        "memory_mib": taken,
        "recordings": len(found),
    }


def resident_mib() -> float:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def corpus(table: Path, cache: Path) -> object:
    """Return the corpus that a table describes, with CoRNN's features."""
    from ser.corpora import Table
    from ser.data import LogMel

    return Table(table, features=LogMel(deltas=2), batch_size=40, cache_dir=cache)


PARTS = {
    "check": check,
    "build": build,
    "train": train,
    "compare": lambda table, cache: train(table, cache, comparing=True),
    "index": lambda table, cache: index(table, cache, 1_200_000),
}


# -- starting processes --


def begin(part: str, table: Path, cache: Path, cores: int = 0, limit_mib: int = 0) -> subprocess.Popen[str]:
    """Start one part in a process of its own, on some cores or under a limit of memory, if they are given."""

    def confine() -> None:
        if cores:
            os.sched_setaffinity(0, range(cores))
        if limit_mib:
            GROUP.mkdir(exist_ok=True)
            (GROUP / GROUP_LIMIT).write_text(str(limit_mib * 2**20))
            (GROUP / "cgroup.procs").write_text(str(os.getpid()))

    command = [sys.executable, __file__, "--part", part, "--table", str(table), "--cache", str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=confine)


def end(process: subprocess.Popen[str]) -> dict[str, float]:
    """Return what a process measured."""
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(printed.splitlines()[-1])


def run_part(part: str, table: Path, cache: Path) -> None:
    """Run a part here and print what it took, with the largest resident memory of this process and its workers."""
    took = PARTS[part](table, cache)
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({**took, "own_mib": own / 1024, "worker_mib": workers / 1024}))


def forget_files(folder: Path) -> None:
    """Have the system forget what it has read of the rows in a cache."""
    for path in folder.rglob("*.rows"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def size_mib(folder: Path) -> float:
    """Return what the files below a folder take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 2**20


# -- the tables --


def growth(tables: dict[int, Path], cache: Path) -> Table:
    """Measure checking, building and an epoch at every size."""
    shown = Table(title=f"growth, {os.cpu_count()} cores; largest resident memory in MiB")
    for column in (
        "utterances",
        "hours",
        "part",
        "seconds",
        "seconds per hour",
        "disk, MiB per hour",
        "process",
        "worker",
    ):
        shown.add_column(column, justify="right")
    for utterances, table in tables.items():
        hours = 0.0
        for part in ("check", "build", "train"):
            before = size_mib(cache)
            took = end(begin(part, table, cache))
            hours = took.get("hours", hours)
            each, disk = took["seconds"] / hours, (size_mib(cache) - before) / hours
            cells = (f"{took['seconds']:.1f}", f"{each:.2f}", f"{disk:.1f}", f"{took['own_mib']:.0f}")
            shown.add_row(f"{utterances:,}", f"{hours:.1f}", part, *cells, f"{took['worker_mib']:.0f}")
            print(utterances, part, took, f"disk {disk:.1f} MiB per hour", flush=True)
    return shown


def building(table: Path, cache: Path, rounds: int) -> Table:
    """Measure a build on one core, and on two."""
    shown = Table(title="building; medians")
    for column in ("cores", "seconds", "of one core's"):
        shown.add_column(column, justify="right")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for cores, took in seconds.items():
            shutil.rmtree(cache / "features", ignore_errors=True)
            took.append(end(begin("build", table, cache, cores))["seconds"])
            print(f"{cores} cores: {took[-1]:.1f} s", flush=True)
    one, two = (statistics.median(took) for took in seconds.values())
    shown.add_row("1", f"{one:.1f}", "1.00")
    shown.add_row("2", f"{two:.1f}", f"{two / one:.2f}")
    return shown


def memory(table: Path, cache: Path, limit_mib: int, rounds: int) -> Table:
    """Measure training from the cache against training from memory, with memory enough and with little."""
    cases = {"enough": 0}
    if GROUP.parent.is_dir() and os.access(GROUP.parent, os.W_OK):
        cases[f"{limit_mib} MiB"] = limit_mib
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, limit in cases.items():
            if limit:
                forget_files(cache)
            runs[name].append(end(begin("compare", table, cache, limit_mib=limit)))
            print(name, runs[name][-1], flush=True)
    shown = Table(title=f"training from a cache of {size_mib(cache / 'features'):.0f} MiB; medians")
    for column in ("memory", "throughput, of in memory", "largest resident memory, MiB"):
        shown.add_column(column, justify="right")
    for name, took in runs.items():
        ratio = statistics.median(run["memory"] / run["cache"] for run in took)
        shown.add_row(name, f"{ratio:.2f}", f"{max(run['own_mib'] for run in took):.0f}")
    if len(cases) < 2:
        shown.caption = "Little memory is not measured: no control group (version 1) can be made here."
    return shown


def main() -> None:
    """Measure every size and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, nargs="*", default=[2000, 20_000])
    parser.add_argument("--folder", type=Path, help="where the corpora are made, and deleted; a temporary folder")
    parser.add_argument("--limit_mib", type=int, default=1536, help="the limit of memory")
    parser.add_argument("--rounds", type=int, default=3, help="how often the cases of a comparison take turns")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_part(options.part, options.table, options.cache)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        cache = Path(folder, "cache")
        tables = {utterances: write_corpus(Path(folder), utterances) for utterances in options.utterances}
        largest = tables[max(tables)]
        shown = [
            growth(tables, cache),
            memory(largest, cache, options.limit_mib, options.rounds),
            building(largest, cache, options.rounds),
        ]
        made_up = end(begin("index", largest, Path(folder, "index")))
    for table in shown:
        Console().print(table)
    print(f"Index of {made_up['recordings']:,} recordings:", json.dumps(made_up))


if __name__ == "__main__":
    main()
