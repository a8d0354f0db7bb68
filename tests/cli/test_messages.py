"""Mistakes on the command line: each gets one message that says what was found and how to fix it, before training."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import soundfile
import torch
from lightning.pytorch.callbacks import EarlyStopping

from ser.cli import main
from ser.corpora import Synthetic
from ser.errors import UserError
from ser.models import CoRNN
from ser.training.task import EmotionClassifier

CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")
FIT = ["fit", "--config", CONFIG, "--model.net.lstm_hidden", "8", "--trainer.max_epochs", "1"]
QUIET = ["--trainer.logger", "false", "--trainer.accelerator", "cpu"]
TWO_EPOCHS = ["--trainer.max_epochs", "2"]
PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"


@pytest.fixture
def ser(tmp_path, cache, monkeypatch):
    """Return a function that runs a verb in an empty folder, and returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ser"])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as the script has it
    return lambda *arguments: main([*map(str, arguments), "--data.cache_dir", str(cache)])


@pytest.fixture
def refused(ser, capsys, tmp_path):
    """Return a function that runs a command which is refused, and returns the message."""

    def run(*arguments):
        before = _files(tmp_path)
        assert ser(*arguments) == 2
        printed = capsys.readouterr().err
        assert printed.count("ser: error: ") == 1
        assert "Traceback" not in printed
        assert _files(tmp_path) == before
        return printed

    return run


def _files(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


MISTAKES = {
    "training ends before a validation": (
        ["--trainer.max_steps", 1],
        "after step 1 of the optimiser, before the first va",
    ),
    "no epoch with a validation": (["--trainer.check_val_every_n_epoch", 2], "ends after step 4 of the optimiser"),
    "no epoch": (["--trainer.max_epochs", 0], "Increase --trainer.max_steps or --trainer.max_epochs"),
    "nothing to train on": (["--trainer.limit_train_batches", 0], "limit_train_batches is 0, which leaves no"),
    "validation after the epoch": (["--trainer.val_check_interval", 9], "val_check_interval is 9, but an epoch has 4"),
    "validation at no time": (["--trainer.val_check_interval", 0], "val_check_interval is 0, but an epoch has 4"),
    "no batch for a step": (["--trainer.accumulate_grad_batches", 0], "accumulate_grad_batches is 0; it must be"),
    "schedule without a length": (
        ["--lr_scheduler", "OneCycleLR", "--lr_scheduler.max_lr", 0.1],
        "Could not construct OneCycleLR(max_lr=0.1): You must define either total_steps OR (epochs AND",
    ),
    "schedule without what it needs": (["--lr_scheduler", "OneCycleLR"], "OneCycleLR needs --lr_scheduler.max_lr."),
    "schedule with what it refuses": (
        ["--lr_scheduler", "CosineAnnealingWarmRestarts", "--lr_scheduler.T_0", 0],
        "Could not construct CosineAnnealingWarmRestarts(T_0=0): Expected positive integer T_0",
    ),
    "schedule that is too short": (
        ["--lr_scheduler", "OneCycleLR", "--lr_scheduler.max_lr", 0.1, "--lr_scheduler.total_steps", 1, *TWO_EPOCHS],
        "OneCycleLR ends after total_steps = 1, but training takes 2 epochs",
    ),
    "schedule of two names": (
        ["--lr_scheduler", "ReduceLROnPlateau"],
        "give the full name of one: torch.optim.lr_sch",
    ),
    "schedule that monitors nothing": (
        ["--lr_scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"],
        f"--lr_scheduler {PLATEAU} --lr_scheduler.monitor val/uar",
    ),
    "schedule that monitors what is not logged": (
        ["--lr_scheduler", PLATEAU, "--lr_scheduler.monitor", "val/UAR"],
        "ReduceLROnPlateau monitors 'val/UAR', which is not logged; choose one of train/loss",
    ),
    "schedule that monitors too often": (
        ["--lr_scheduler", PLATEAU, "--lr_scheduler.monitor", "val/uar", "--model.lr_scheduler_interval", "step"],
        "each step must follow a validation",
    ),
    "callback that monitors what is not logged": (
        ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/UAR"],
        "EarlyStopping monitors 'val/UAR', which is not logged; choose one of train/loss",
    ),
    "callback with what it refuses": (
        ["--early_stopping.mode", "maxx"],
        "Could not construct StopEarly(monitor=val",
    ),
    "seed of 33 bits": (["--seed_everything", 2**32], "seed_everything is 4294967296; seeds are whole numbers from 0"),
    "negative seed": (["--seed_everything", -1], "seed_everything is -1; seeds are whole numbers from 0 to 4294967295"),
    "long name": (["--run.name", "n" * 300], "nnnn… has 300 bytes, a name may have 255: give a shorter --run.name"),
    "long experiment": (["--run.experiment", "n" * 300], "give a shorter --run.name or --run.experiment"),
    "no GPU": (["--trainer.accelerator", "gpu"], "Could not construct Trainer(accelerator=gpu"),
    "no device": (["--trainer.devices", 0], "Could not construct Trainer(accelerator=cpu, devices=0"),
    "devices that are no number": (
        ["--trainer.devices", "abc"],
        "Could not construct Trainer(accelerator=cpu, devices=abc",
    ),
    "unknown precision": (["--trainer.precision", 17], "trainer.precision: expected one of [64, 32, 16]"),
    "precision of the statistics": (["--trainer.precision", "16-true"], "precision is 16-true, but the statistics"),
    "network with what it refuses": (
        ["--model.net.lstm_hidden", 0],
        "Could not construct CoRNN(lstm_hidden=0): hidden",
    ),
    "network without parameters": (["--model.net", "ser.data.LogMel"], "LogMel has no parameters to train"),
    "class of another kind": (
        ["--data", "ser.models.CoRNN"],
        "data: ser.models.CoRNN is not a subclass of SpeechCorpus. Valid: AudioFo",
    ),
    "optimiser that is none": (
        ["--optimizer", "torch.nn.Linear"],
        "optimizer: torch.nn.Linear is not a subclass of Optimizer",
    ),
    "corpus without labels": (["--data", "AudioFolder"], "fit needs recordings with known emotions and speakers"),
    "option without a value": (["--data.root"], "--data, or an option below it, lacks its value"),
    "text for a number": (["--optimizer.lr", "abc"], "optimizer.lr: expected float; found 'abc'"),
    "text for a whole number": (["--data.fold", "abc"], "data.fold: expected int; found 'abc'"),
    "speakers of no side": (
        ["--data.protocol", "FixedSpeakers"],
        "as in --data.protocol.val '[anna]' --data.protocol.test",
    ),
    "no logger of this name": (["--trainer.logger", "TensorBoardLoger"], "Did you mean 'TensorBoardLogger'?"),
}


@pytest.mark.parametrize(("options", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_gets_one_message_and_no_run(refused, options, message):
    if "gpu" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    if "--data.root" in options:
        assert main([*FIT, *QUIET, *options]) == 2  # the last word
        return
    assert message in refused(*FIT, *QUIET, *options)


def test_a_cross_validation_of_a_long_name(refused):
    printed = refused("crossval", *FIT[1:], *QUIET, "--run.experiment", "n" * 300)
    assert "nnnn… has 300 bytes, a name may have 255: give a shorter --run." in printed


@pytest.mark.skipif(find_spec("tensorboard") or find_spec("tensorboardX"), reason="TensorBoard is installed")
def test_a_package_that_a_logger_lacks_is_named(refused):
    printed = refused(*FIT, "--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "x")
    assert "Could not construct TensorBoardLogger(save_dir=x): Neither `tensorboard` nor" in printed


def test_python_passes_the_same_guards(cache, make_trainer):
    data = Synthetic(cache_dir=cache)
    task = EmotionClassifier(CoRNN(4, data.feature_shape, lstm_hidden=8), data.labels)
    with pytest.raises(UserError, match="EarlyStopping monitors 'val/UAR', which is not logged"):
        make_trainer(1, callbacks=[EarlyStopping("val/UAR")]).fit(task, datamodule=data)
    with pytest.raises(UserError, match="Training ends after step 1 of the optimiser"):
        make_trainer(1, max_steps=1, callbacks=[EarlyStopping("val/uar")]).fit(task, datamodule=data)


# -- configs --

CONFIGS = {
    "empty": (b"", "The config c.yaml is empty; it must hold options with their values"),
    "word": (b"hello\n", "The config c.yaml holds 'hello'; it must hold options"),
    "list": (b"- 1\n", "The config c.yaml holds [1]; it must hold options"),
    "broken": (b"a: [1, 2\nb: }\n", "The config c.yaml is not valid YAML: line 2, column 2: "),
    "tab": (
        b"data:\n\tfold: 3\n",
        "The config c.yaml is not valid YAML: line 2, column 1: found character that cannot start",
    ),
    "binary": (bytes(range(256)), "The config c.yaml is not text in UTF-8"),
    "twice": (b"seed_everything: 1\nseed_everything: 2\n", "line 2 repeats 'seed_everything' of line 1"),
    "misspelt": (b"optimzer:\n  class_path: Adam\n", "There is no option '--optimzer'. Did you mean '--optimizer'?"),
    "misspelt below": (b"data:\n  init_args:\n    batchsize: 3\n", "Did you mean 'batch_size'?"),
    "checkpoint": (b"ckpt_path: nope.ckpt\n", "There is no checkpoint nope.ckpt"),
}


@pytest.mark.parametrize(("content", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_what_is_no_config_is_named_with_file_and_line(refused, content, message):
    Path("c.yaml").write_bytes(content)
    assert message in refused(*FIT, *QUIET, "--config", "c.yaml")


def test_a_folder_is_no_config(refused):
    Path("c").mkdir()
    assert "The config c cannot be read: Is a directory. --config takes a YAML file." in refused(*FIT, "--config", "c")


def test_options_win_over_configs_wherever_they_stand(ser, capsys):
    options = ["--data", "EmoDB", "--data.root", "x", "--optimizer.lr=0.5"]
    Path("overlay.yaml").write_text("optimizer:\n  init_args:\n    lr: 0.25\nseed_everything: 7\n")
    with pytest.raises(SystemExit):
        ser("fit", *options, "--config", CONFIG, "-c", "overlay.yaml", "--print_config")
    printed = capsys.readouterr().out
    assert "class_path: ser.corpora.EmoDB" in printed
    assert "lr: 0.5" in printed
    assert "seed_everything: 7" in printed


@pytest.mark.parametrize("verb", [FIT, ["data", "--config", CONFIG]])
def test_the_config_that_chose_the_corpus_is_named(refused, verb):
    soundfile.write("03a01Fa.wav", [0.0, 0.5, -0.5], 8000)
    for root in (".", "nowhere"):
        printed = refused(*verb, "--data.root", root)
        assert f"The config {CONFIG} names the corpus Synthetic: for another, add --data NAME" in printed
    assert "was chosen by" not in refused(*verb, "--data", "RAVDESS", "--data.root", ".")


# -- classes of one's own --

OWN = {
    "package that is not there": (
        "import torch\nimport nosuchpackage\n",
        "own.py, line 2: ModuleNotFoundError: No module",
    ),
    "error": ("x = 1\ny = x / 0\n", "own.py, line 2: ZeroDivisionError: division by zero"),
    "syntax": ("\n\nclass Own pass\n", "own.py, line 3: SyntaxError: "),
    "no such class": ("class Owm: ...\n", "the module own has no 'Own'. Did you mean 'Owm'?"),
}


@pytest.mark.parametrize("option", ["data", "model.net", "data.features", "data.protocol", "optimizer", "lr_scheduler"])
@pytest.mark.parametrize(("content", "message"), OWN.values(), ids=OWN.keys())
def test_an_error_in_a_module_of_ones_own_is_shown(refused, monkeypatch, option, content, message):
    Path("own.py").write_text(content)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    assert message in refused(*FIT, *QUIET, f"--{option}", "own.Own")


def test_a_module_that_is_not_there_is_missed_in_the_working_folder(refused, tmp_path):
    printed = refused(*FIT, *QUIET, "--data", "elsewhere.Own")
    assert f"there is no module 'elsewhere', neither installed nor in the working folder {tmp_path}" in printed


def test_the_script_finds_classes_in_the_working_folder_and_imports_no_logger_unasked(tmp_path, cache):
    """As ``python -m ser`` does; -P leaves that folder out, as a script does."""
    (tmp_path / "own.py").write_text(
        "from ser.models import CoRNN\nclass Own(CoRNN):\n"
        "    def __init__(self, num_classes: int = 4, feature_shape: tuple[int, ...] = (3, 40, 300)) -> None:\n"
        "        super().__init__(num_classes, feature_shape, lstm_hidden=8)\n"
    )
    script = "import sys; from ser.cli import main; print(main(sys.argv[1:]), 'wandb' in sys.modules)"
    options = ["--model.net", "own.Own", "--trainer.fast_dev_run", "true", "--data.cache_dir", str(cache)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "fit", "--config", CONFIG, *QUIET, *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


# -- help --


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--data.protocol.help"],
            ["FixedSpeakers        One split", "LeaveOneSpeakerOut", "--data.protocol.help NAME"],
        ),
        (["--data.protocol.help", "FixedSpeakers"], ["--data.protocol.val", "Speakers to test."]),
        (["--data.help=EmoDB"], ["--data.root ROOT", "--data.preprocess.top_db"]),
        (["--config", CONFIG, "--data.help", "ser.corpora.Table"], ["--data.columns"]),
        (["--lr_scheduler.help", "OneCycleLR"], ["--lr_scheduler.max_lr"]),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "crossval"])
def test_help_for_a_class_needs_nothing_else(capsys, verb, arguments, expected):
    with pytest.raises(SystemExit) as stop:
        main([verb, *arguments])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(part in printed for part in expected)
    assert " --protocol" not in printed


def test_help_for_an_unknown_class_names_the_known(refused):
    assert "Did you mean 'EmoDB'? Valid: AudioFolder, CASIA, EmoDB" in refused("fit", "--data.help", "EmoDBB")


# -- checkpoints --


@pytest.fixture(scope="module")
def best(tmp_path_factory, cache):
    """A checkpoint, of a fit that monitored nothing."""
    root = tmp_path_factory.mktemp("fitted")
    options = ["--checkpoint.monitor", "null", "--test_checkpoint", "last", "--run.root", str(root)]
    assert main([*FIT, *QUIET, *options, "--data.cache_dir", str(cache)]) == 0
    return root / "cornn-synthetic" / "fold0-seed1" / "checkpoints" / "best.ckpt"


def test_a_fit_that_monitors_nothing_leaves_what_a_summary_needs(best):
    metrics = json.loads((best.parents[1] / "metrics.json").read_text())
    assert metrics["fit"]["epochs"] == 1
    assert metrics["val"]["best_epoch"] == 0
    assert metrics["val"]["utterances"] == metrics["test"]["utterances"] == 24


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_a_score_needs_a_corpus_with_labels(refused, best, verb):
    for options in ([], ["--data.root", "."]):
        printed = refused(verb, *QUIET, "--ckpt_path", best, *options)
        assert f"{verb} needs recordings with known emotions and speakers: give --data CORPUS" in printed


def test_a_config_may_give_the_checkpoint(ser, best, capsys):
    Path("c.yaml").write_text(f"ckpt_path: {best}\n")
    assert ser("test", *QUIET, "--config", "c.yaml", "--data", "Synthetic") == 0
    assert "Synthetic, test: 24 utterances" in capsys.readouterr().out
    assert Path("runs/cornn-synthetic/test-fold0-seed1/predictions.csv").exists()


def test_a_corpus_that_is_only_tested_needs_nobody_to_train_on(ser, refused, best, cache, capsys):
    files = sorted(
        path for path in Synthetic(cache_dir=cache).locate().glob("*.wav") if path.name[:5] in ("spk01", "spk02")
    )
    for path in files:  # other recordings
        samples, rate = soundfile.read(path)
        soundfile.write(path.name, samples / 2, rate)
    rows = [f"{path.name},{path.stem.split('_')[2]},new{path.name[3:5]},test" for path in files]
    Path("foreign.csv").write_text("\n".join(["file,emotion,speaker,split", *rows]))
    foreign = ["--ckpt_path", best, "--data", "Table", "--data.root", "foreign.csv"]
    for protocol in (["FixedSpeakers", "--data.protocol.test", "[new01,new02]"], ["ColumnSplit"]):
        assert ser("test", *QUIET, *foreign, "--data.protocol", *protocol) == 0
        assert "test: 48 utterances" in capsys.readouterr().out
        assert "has an empty val for" in refused("validate", *QUIET, *foreign, "--data.protocol", *protocol)


def test_a_long_name_of_recordings_is_answered_with_the_option_for_a_shorter(refused, best, cache):
    recording = next(Synthetic(cache_dir=cache).locate().glob("*.wav"))
    Path("n" * 250 + ".wav").write_bytes(recording.read_bytes())
    printed = refused("predict", *QUIET, "--ckpt_path", best, "--data.root", "n" * 250 + ".wav")
    assert "has 258 bytes, a name may have 255: give a shorter --run.name" in printed
