"""What is shown: whatever names a corpus has, whatever terminal shows it, and without ever costing a result."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from ser.cli import main
from ser.models import CoRNN
from ser.runs.folder import Evaluation, RunFolder
from ser.runs.recorder import RunRecorder, print_device
from ser.terminal.tables import PlainTable, side_by_side
from ser.training.task import EmotionClassifier

CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")
RATE_HZ = 16_000
SPEAKERS = ("[/01]", "[spk1]", "[red]x", ":cat:", "\x1b[2Jy")
EMOTIONS = ("[bold]calm[/bold]", "$x$")
TEN = [
    *("anger", "anticipation", "boredom", "disappointment", "excitement"),
    *("frustration", "happiness", "happy", "sadness", "surprise"),
]


@pytest.fixture(autouse=True)
def by_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["ser"])
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def corpus(tmp_path):
    """Write a table whose names look like markup; returns the options that take it."""
    root = tmp_path / "own"
    root.mkdir()
    rows = [["file", "emotion", "speaker", "sentence"]]
    noise = np.random.default_rng(1)
    for s, speaker in enumerate(SPEAKERS):
        for e, emotion in enumerate(EMOTIONS):
            name = f"[red]{s}_{e}.wav"
            soundfile.write(root / name, noise.uniform(-0.5, 0.5, RATE_HZ // 2), RATE_HZ)
            rows.append([name, emotion, speaker, f"{s}{e}"])
    with (root / "table.csv").open("w") as file:
        csv.writer(file).writerows(rows)
    return ["--data", "Table", "--data.root", str(root), "--data.cache_dir", str(tmp_path / "cache")]


@pytest.fixture
def fit(corpus):
    """Return a function that fits for an epoch; the exit code."""
    small = ["--model.net.lstm_hidden", "8", "--model.net.ffn_factor", "1", "--trainer.max_epochs", "1"]

    def call(*options):
        arguments = ["fit", "--config", CONFIG, *corpus, *small, "--data.batch_size", "4"]
        return main([*arguments, "--trainer.accelerator", "cpu", *options])

    return call


def test_names_are_shown_as_they_are(fit, corpus, capsys):
    assert main(["data", *corpus]) == 0
    described = capsys.readouterr().out
    assert fit("--data.fold", "2") == 0
    fitted = capsys.readouterr().out
    (checkpoint,) = map(str, Path("runs").glob("*/fold2-seed1/checkpoints/best.ckpt"))
    assert main(["predict", "--ckpt_path", checkpoint, "--data", "AudioFolder", *corpus[2:]]) == 0
    predicted = capsys.readouterr().out
    tables = described[: described.index("damaged")]
    for name in ("[/01]", "[spk1]", "[red]x", ":cat:", "?[2Jy", *EMOTIONS):
        assert name in tables
    tests = fitted[fitted.index("test: 2 utterances") :]
    assert "speaker [/01]" in tests
    for emotion in EMOTIONS:
        assert f"\n{emotion} " in tests
    assert "\n[red]0_0.wav " in predicted
    assert "[bold]calm[/bold]" in predicted


def kept(name):
    """Return a file of the fit's run folder."""
    (file,) = Path("runs").glob(f"*/fold0-seed1/{name}")
    return file


def written_to(stream, call):
    """Call with another stdout; returns what it was given, as Python's text layer encoded it."""
    former, sys.stdout = sys.stdout, stream
    try:
        return call()
    finally:
        sys.stdout = former


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_is_not_utf_8_costs_no_result(fit, corpus, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    assert written_to(stream, fit) == 0
    stream.flush()
    shown = raw.getvalue().decode(encoding)
    metrics = json.loads(kept("metrics.json").read_text())
    assert f"UAR {metrics['test']['uar']:.1%}" in shown
    assert len(list(csv.DictReader(kept("predictions.csv").open()))) == 2
    checkpoint = str(kept("checkpoints/best.ckpt"))
    options = ["predict", "--ckpt_path", checkpoint, "--data", "AudioFolder", *corpus[2:]]
    assert written_to(stream, lambda: main(options)) == 0


def test_json_is_whole_where_the_terminal_cannot_encode_it(corpus, tmp_path):
    table = tmp_path / "own/table.csv"
    table.write_text(table.read_text().replace("[spk1]", "Zoë – 李"))
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1")
    assert written_to(stream, lambda: main(["data", *corpus, "--format", "json"])) == 0
    stream.flush()
    assert "Zoë – 李" in json.loads(raw.getvalue())["speakers"]


class Gone(io.TextIOWrapper):
    """A pipe whose reader has gone."""

    def __init__(self):
        read, write = os.pipe()
        os.close(read)
        super().__init__(os.fdopen(write, "wb", 0), write_through=True)


class Full(io.TextIOWrapper):
    """A file on a disk that is full."""

    def __init__(self):
        super().__init__(open("/dev/full", "wb", 0), write_through=True)  # noqa: SIM115


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


@pytest.mark.parametrize("stream", [Gone, pytest.param(Full, marks=needs_full), lambda: None])
def test_what_cannot_be_written_costs_no_result(fit, stream):
    assert written_to(stream(), fit) == 0
    metrics = json.loads(kept("metrics.json").read_text())
    assert metrics["test"]["utterances"] == 2


@needs_full
def test_a_verb_that_only_prints_fails_where_that_fails(corpus, capsys):
    assert written_to(Full(), lambda: main(["data", *corpus])) == 1
    assert "some output could not be written: No space left on device" in capsys.readouterr().err
    assert written_to(Gone(), lambda: main(["data", *corpus])) == 0


class Broken(CSVLogger):
    """A logger that cannot show an evaluation."""

    def log_evaluation(self, stage, evaluation):
        raise ConnectionError("the server is gone")

    log_predictions = log_evaluation


@pytest.mark.parametrize("broken", ["logger", "encoding", "pipe"])
def test_the_recorder_keeps_what_it_cannot_show(tiny, make_trainer, tmp_path, capsys, broken):
    data = tiny(batch_size=8)
    logger = Broken(tmp_path / "log") if broken == "logger" else False
    run = RunFolder(tmp_path / "runs", "run")
    trainer = make_trainer(1, callbacks=[RunRecorder(run)])
    trainer.loggers = [logger] if logger else []
    net = CoRNN(2, data.feature_shape, lstm_hidden=4, ffn_factor=1)
    streams = {"encoding": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"), "pipe": Gone}
    task = EmotionClassifier(net, data.labels)

    def train():
        trainer.fit(task, data)
        trainer.test(task, data, verbose=False)

    written_to(streams.get(broken, lambda: sys.stdout)(), train)
    assert json.loads((run.path / "metrics.json").read_text())["test"]["utterances"] == 4
    if broken == "logger":
        assert "The scores (Broken) could not be shown (" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [TEN, [f"emotion number {number}" for number in range(10)]])
def test_ten_emotions_fit_eighty_columns(labels, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    evaluation = Evaluation(
        labels=labels,
        files=["a"] * 10,
        speakers=["x"] * 10,
        targets=np.arange(10),
        probabilities=np.roll(np.eye(10), 1, axis=0),
    )
    evaluation.print("Ten emotions, test: 10 utterances of speaker x")
    shown = capsys.readouterr().out
    assert "…" not in shown
    lines = shown.splitlines()
    assert max(map(len, lines[:-2])) <= 80
    for number, label in enumerate(labels):
        (row,) = [line for line in lines if line.startswith(f"{label} ")]  # whole, and its numbers beside it
        cells = row.removeprefix(label).split()
        assert cells == [*("1" if column == (number - 1) % 10 else "0" for column in range(10)), "0.0%"]
        assert shown.count(label) >= 2  # in its row, and as its column or what that stands for


def test_names_are_shortened_only_where_they_do_not_fit():
    assert side_by_side(["anger", "happiness"], 80) == (["anger", "happiness"], "")
    assert side_by_side(["anger", "happiness"], 12) == (["ang", "hap"], "Columns: ang anger, hap happiness.")
    assert side_by_side(["happy", "happiness"], 12) == (["happy", "happi"], "Columns: happi happiness.")
    assert side_by_side(["number 10", "number 11"], 12) == (["1", "2"], "Columns: 1 number 10, 2 number 11.")
    assert side_by_side(["number 10\x1b[2J", "number 11"], 12)[1] == "Columns: 1 number 10?[2J, 2 number 11."
    assert side_by_side([], 10) == ([], "")


def test_no_name_is_cut_in_a_narrow_table(capsys):
    table = PlainTable(["file"], ["n"])
    name = "a/very/long/path/of/a/recording/" * 4
    table.add_row(name, "12")
    Console(width=40).print(table)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert "".join(line[:36].strip() for line in lines) == name
    assert lines[0].endswith("  12 ")


def printed_by(*arguments, **environment):
    """Return what is written to stderr and to stdout before a verb's module would be imported."""
    script = (
        "import sys, ser.cli\nser.cli.importlib.import_module = lambda name: sys.exit(0)\nser.cli.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return printed.stderr, printed.stdout


def test_a_fit_says_at_once_that_it_loads():
    assert printed_by("fit", "--config", CONFIG) == ("ser fit: loading\n", "")
    assert printed_by("data", "--format", "json", LOCAL_RANK="0") == ("ser data: loading\n", "")
    for options in (["--help"], ["-h"], ["--print_config"], ["--print_config=skip_null"], ["--data.help", "EmoDB"]):
        assert printed_by("fit", *options) == ("", "")
    assert printed_by("fit", LOCAL_RANK="1") == ("", "")
    assert printed_by("fit", SLURM_PROCID="3") == ("", "")


def test_a_fit_says_on_what_it_runs(fit, make_trainer, capfd):
    assert fit() == 0
    printed = capfd.readouterr()
    threads = torch.get_num_threads()
    assert f"Device: CPU, {threads} thread{'s' * (threads > 1)}\n" in printed.err
    assert "Device" not in printed.out
    print_device(make_trainer(1, precision="bf16-mixed"))
    assert capfd.readouterr().err.endswith(" (bf16-mixed)\n")
