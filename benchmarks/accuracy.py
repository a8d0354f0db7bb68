"""The table of accuracies: every system on one corpus, speaker-independent, one fold after the other.

    python benchmarks/accuracy.py --root DIR [--folds 0] [--systems cornn acrnn] [--jobs 2] [--minutes 60]

Every config in ``configs/`` is cross-validated by ``ser crossval`` on EMO-DB's anger, neutral, happiness and sadness
under its own early stopping. Interrupted, the same command goes on where it was: a fit that was under way from its last
checkpoint, and rows that are in the table with the same config are not measured again. ``--minutes`` ends a fit that
takes longer, which its row then says. Rows go to ``accuracy_emodb.csv`` beside this file; the Markdown table that is
made of them, to ``docs/accuracy.md``.
"""

import argparse
import csv
import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml
from filelock import FileLock

from ser.evaluation.statistics import mean_and_std, recall_interval, score_interval
from ser.report.papers import published
from ser.runs.folder import RunFolder, StoredRun, read_run, table_as_csv
from ser.runs.scores import percent, uar, wa
from ser.storage import write_atomically

REPOSITORY = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("accuracy_emodb.csv")
PAGE = REPOSITORY / "docs" / "accuracy.md"
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- benchmarks/accuracy.py writes this table -->", "<!-- to here -->"
PREFACE = """# Accuracies, as measured

Written by `benchmarks/accuracy.py` from `benchmarks/accuracy_emodb.csv`, which has a row for every fold: EMO-DB's
anger, neutral, happiness and sadness (339 utterances), leave one speaker out with the checkpoint selected on another
speaker, seed 1, the configs as they are with their own early stopping. Scores are pooled over the folds. The interval
of a single fold is Wilson's of each recall, joined, and says nothing about unseen speakers; that of several folds is
over speakers, and \\* marks too few speakers. "(time)" marks fits that the benchmark's time limit ended. Seconds per
epoch on the H100 were measured with up to 18 fits at once, which shared it through CUDA's MPS, and 16 cores: upper
bounds, not a comparison. The same seed on another device or in another precision differs by up to six points
(`systems.md`).

"""
EMOTIONS = "[anger,neutral,happiness,sadness]"
COLUMNS = [
    *("system", "fold", "tests", "seed", "n", "uar", "wa", "macro_f1", "epochs", "best_epoch", "seconds_per_epoch"),
    *("parameters", "capped", "device", "precision", "protocol", "fingerprint", "config", "commit", "confusion"),
]


def main() -> None:
    """Measure what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of EMO-DB")
    known = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.yaml"))
    parser.add_argument("--systems", nargs="*", choices=known, default=known, metavar="SYSTEM", help="configs; all")
    parser.add_argument("--folds", type=int, nargs="*", default=[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60, help="longest time of a fit")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--jobs", type=int, default=1, help="fits at once, which share the cores")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--precision", default="32-true", help="of the training, such as bf16-mixed, as its row says")
    options = parser.parse_args()
    for system in options.systems:
        keys = [row_key(system, fold, options.seed) for fold in options.folds]
        rows = read_table()
        missing = [key for key in keys if not any(key.items() <= row.items() for row in rows)]
        if missing:
            measure(system, missing, options)
    write_page()


def measure(system: str, missing: list[dict[str, str]], options: argparse.Namespace) -> None:
    """Fit and test some folds of a system, or go on with them, and add their rows to the table."""
    experiment = f"accuracy-{system}-{config_hash(system)}"
    hours, minutes = divmod(options.minutes, 60)
    arguments = {
        "--config": REPOSITORY / "configs" / f"{system}.yaml",
        "--data": "EmoDB",
        "--data.root": options.root,
        "--data.emotions": EMOTIONS,
        "--folds": ",".join(key["fold"] for key in missing),
        "--seed_everything": options.seed,
        "--jobs": options.jobs,
        "--trainer.logger": "false",
        "--trainer.accelerator": options.accelerator,
        "--trainer.precision": options.precision,
        "--trainer.max_time": f"00:{int(hours):02}:{int(minutes):02}:{round(minutes % 1 * 60):02}",
        "--run.root": options.runs,
        "--run.experiment": experiment,
    }
    command = [sys.executable, "-m", "ser", "crossval", *(str(part) for pair in arguments.items() for part in pair)]
    print(f"== {system}", flush=True)
    try:
        if subprocess.run(command, check=False).returncode:
            print(f"{system}: not all folds could be measured; other systems go on.", file=sys.stderr)
    finally:  # after Ctrl-C, too
        for key in missing:
            folder = RunFolder(options.runs / experiment, f"fold{key['fold']}-seed{key['seed']}").newest
            if folder is not None and (folder / "predictions.csv").exists():
                add(row_of(read_run(folder), key))


def row_of(run: StoredRun, key: dict[str, str]) -> dict[str, str]:
    """Return what the table says of a run."""
    scores, fitted, early = run.test.scores(), run.metrics["fit"], run.config["early_stopping"]
    best = max(range(len(run.history)), key=lambda epoch: run.history[epoch]["val/uar"] or 0.0)
    stopped = (
        fitted["epochs"] - 1 - best >= early["patience"] or fitted["epochs"] >= run.config["trainer"]["max_epochs"]
    )
    return key | {
        "tests": run.protocol["tests"],
        "n": str(scores["utterances"]),
        **{name: f"{scores[name]:.4f}" for name in ("uar", "wa", "macro_f1")},
        "epochs": str(fitted["epochs"]),
        "best_epoch": str(run.metrics["val"]["best_epoch"] + 1),
        "seconds_per_epoch": f"{fitted['seconds_per_epoch']:.1f}",
        "parameters": str(fitted["trainable_parameters"]),
        "capped": "" if stopped else "time",
        "device": fitted["device"],
        "precision": fitted["precision"],
        "protocol": run.protocol["protocol"]["class_path"].rsplit(".")[-1],
        "fingerprint": run.fingerprint,
        "commit": commit(),
        "confusion": json.dumps(scores["confusion"]),
    }


def row_key(system: str, fold: int, seed: int) -> dict[str, str]:
    """Return what a row is known by: what was measured with another config is measured again."""
    return {"system": system, "fold": str(fold), "seed": str(seed), "config": config_hash(system)}


def config_hash(system: str) -> str:
    """Name the settings of a config, without its comments."""
    settings = yaml.safe_load((REPOSITORY / "configs" / f"{system}.yaml").read_text())
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def commit() -> str:
    """Name the state of the code."""
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def read_table() -> list[dict[str, str]]:
    """Return the rows measured so far."""
    if not TABLE.exists():
        return []
    with TABLE.open() as file:
        return list(csv.DictReader(file))


def add(row: dict[str, str]) -> None:
    """Add a row to the table, in place of one of the same system, fold and seed."""
    same = ("system", "fold", "seed")
    with FileLock(TABLE.with_suffix(".lock")):  # several of this program may share the work
        rows = [old for old in read_table() if any(old[name] != row[name] for name in same)]
        rows = sorted([*rows, row], key=lambda r: (r["system"], int(r["fold"]), int(r["seed"])))
        write_atomically(TABLE, table_as_csv(COLUMNS, [[r[name] for name in COLUMNS] for r in rows]))
        write_page()


def write_page() -> None:
    """Make the Markdown table, and the one in the README."""
    by_system = defaultdict(list)
    for row in read_table():
        by_system[row["system"]].append(row)
    short = ["System", "Folds", "UAR, 95% interval", "WA", "n", "The paper claims"]
    more = ["UAR: mean of folds", "Parameters", "Epochs", "Seconds per epoch", "Device", "Precision", "Commit"]
    lines = [[*short, *more], ["---"] * 2 + ["---:"] * 3 + ["---"] + ["---:"] * 4 + ["---"] * 3]
    for system, rows in sorted(by_system.items(), key=lambda item: (-len(item[1]), item[0])):
        confusions = np.array([json.loads(row["confusion"]) for row in rows])  # (folds, K, K), a speaker each
        pooled = confusions.sum(axis=0)
        mean, deviation = mean_and_std([float(row["uar"]) for row in rows])
        interval = recall_interval(pooled) if len(rows) == 1 else score_interval(confusions)
        spread = f" ± {percent(deviation)}" if len(rows) > 1 else ""
        capped = "".join({" (time)" for row in rows if row["capped"]})
        lines.append(
            [
                f"`{system}`",
                ", ".join(row["fold"] for row in rows) if len(rows) < 10 else f"all {len(rows)}",
                f"{percent(uar(pooled))} {interval}",
                percent(wa(pooled)),
                str(pooled.sum()),
                claim(system),
                percent(mean) + spread,
                f"{int(rows[0]['parameters']):,}",
                between([int(row["epochs"]) for row in rows]) + capped,
                between([float(row["seconds_per_epoch"]) for row in rows]),
                *(", ".join(sorted({f"`{row[name]}`" for row in rows})) for name in ("device", "precision", "commit")),
            ]
        )
    PAGE.parent.mkdir(exist_ok=True)
    write_atomically(PAGE, (PREFACE + as_markdown(lines)).encode())
    before, _, after = README.read_text().partition(BEGIN)
    _, _, after = after.partition(END)
    table = as_markdown([line[: len(short)] for line in lines])
    write_atomically(README, f"{before}{BEGIN}\n\n{table}\n{END}{after}".encode())


def as_markdown(lines: list[list[str]]) -> str:
    """Lay out cells, the header's and the alignments' first."""
    return "".join(f"|{'|'.join(line)}|\n" for line in lines)


def between(values: list[float]) -> str:
    """Show the least and the largest of some numbers."""
    least, largest = (
        f"{value:.1f}" if isinstance(value, float) else str(value) for value in (min(values), max(values))
    )
    return least if least == largest else f"{least}–{largest}"


def claim(system: str) -> str:
    """Return what the paper reports, of EMO-DB if it does, whatever it was measured on."""
    paper = published(system)
    if paper is None:
        return "–"
    result = (paper.on("EMO-DB") or paper.results)[0]
    score, name = (result.wa, "accuracy") if result.uar is None else (result.uar, "UAR")
    return f"{score:.1f}% {name}, {result.corpus}: {result.protocol}"


if __name__ == "__main__":
    main()
