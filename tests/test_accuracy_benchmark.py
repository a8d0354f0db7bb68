"""The benchmark of accuracies, on a corpus of noise in EMO-DB's layout."""

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from ser.cli import main

BENCHMARK = Path(__file__).parents[1] / "benchmarks/accuracy.py"
PAGE = "The head.\n{begin}\n{end}\nThe tail.\n"


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """Import the benchmark, with its table and its pages in a folder of their own."""
    spec = importlib.util.spec_from_file_location("accuracy", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, file in {"TABLE": "table.csv", "PAGE": "accuracy.md", "README": "README.md"}.items():
        monkeypatch.setattr(module, name, tmp_path / file)
    module.README.write_text(PAGE.format(begin=module.BEGIN, end=module.END))
    return module


@pytest.fixture
def emodb(tmp_path):
    """Write three speakers, four emotions, two sentences, and return the root."""
    generator = np.random.default_rng(0)
    root = tmp_path / "emodb" / "wav"
    root.mkdir(parents=True)
    for speaker in ("03", "08", "09"):
        for emotion in "WNFT":
            for sentence in ("a01", "a02"):
                noise = generator.uniform(-0.5, 0.5, 4800)
                soundfile.write(root / f"{speaker}{sentence}{emotion}a.wav", noise, 16_000)
    return root.parent


@pytest.mark.slow
def test_measures_what_the_table_lacks_and_nothing_twice(benchmark, emodb, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ["--root", str(emodb), "--systems", "cornn_no_conformer", "--minutes", "0.02", "--jobs", "2"]
    options += ["--runs", str(tmp_path / "runs"), "--accelerator", "cpu"]

    fitted = []

    def run(command, **options):
        """Run a cross-validation in this process, which has torch loaded, and anything else as it is."""
        if command[:4] != [sys.executable, "-m", "ser", "crossval"]:
            return start(command, **options)
        fitted.append(command)
        return SimpleNamespace(returncode=main(command[3:]))

    start = subprocess.run
    monkeypatch.setattr(benchmark.subprocess, "run", run)

    def measure(*folds):
        fitted.clear()
        monkeypatch.setattr(sys, "argv", ["accuracy.py", *options, "--folds", *folds])
        benchmark.main()
        with benchmark.TABLE.open() as file:
            return list(csv.DictReader(file))

    first = measure("0")
    assert [(row["fold"], row["tests"], row["n"]) for row in first] == [("0", "03", "8")]
    assert first[0]["parameters"] == "257028"
    assert first[0]["protocol"] == "LeaveOneSpeakerOut"
    assert "|`cornn_no_conformer`|0|" in benchmark.PAGE.read_text()

    both = measure("0", "1")
    assert both[0] == first[0]
    assert [row["tests"] for row in both] == ["03", "08"]
    (crossval,) = fitted
    assert crossval[crossval.index("--folds") + 1] == "1"
    readme = benchmark.README.read_text()
    assert "|`cornn_no_conformer`|0, 1|" in readme
    assert readme.startswith("The head.")
    assert readme.endswith("The tail.\n")

    assert measure("0", "1") == both
    assert fitted == []
