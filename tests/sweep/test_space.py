"""Sweep files as Optuna searches them, held against what W&B's own code makes of the same files."""

import math

import numpy as np
import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sweeps.config import SweepConfig
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

import sweeps
from ser.errors import UserError
from ser.sweep.space import read_sweep

GOOD = {
    "command": ["ser", "fit", "--config", "c.yaml", "${args}"],
    "method": "bayes",
    "metric": {"name": "val/uar", "goal": "maximize"},
    "parameters": {"optimizer.lr": {"min": 0.001, "max": 0.1}},
}


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a sweep file with changes to a good one."""

    def call(**changes):
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump(GOOD | changes))
        return read_sweep(file)

    return call


@pytest.mark.parametrize(
    ("spec", "distribution"),
    [
        ({"values": [1, "a", True, None]}, CategoricalDistribution([1, "a", True, None])),
        ({"values": [[3, 3], [9, 7]]}, CategoricalDistribution(["[3, 3]", "[9, 7]"])),
        ({"min": 1, "max": 5}, IntDistribution(1, 5)),
        ({"min": 1.0, "max": 5.0}, FloatDistribution(1, 5)),
        ({"distribution": "int_uniform", "min": 1, "max": 5}, IntDistribution(1, 5)),
        ({"distribution": "uniform", "min": 1, "max": 5}, FloatDistribution(1, 5)),
        ({"distribution": "q_uniform", "min": 1, "max": 9, "q": 2}, IntDistribution(2, 8, step=2)),
        ({"distribution": "q_uniform", "min": 0.5, "max": 2.0, "q": 0.5}, FloatDistribution(0.5, 2, step=0.5)),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}, FloatDistribution(1e-4, 1e-2, log=True)),
    ],
)
def test_a_parameter_is_what_wandb_takes_it_for(read, spec, distribution):
    ours = read(parameters={"x": spec}).space["x"]
    assert ours == distribution
    drawn = sweeps.next_runs(SweepConfig(GOOD | {"method": "random", "parameters": {"x": spec}}), [], n=400)
    values = [run.config["x"]["value"] for run in drawn]
    if isinstance(ours, CategoricalDistribution):
        assert {str(value) for value in values} == {str(value) for value in spec["values"]}
        return
    if spec.get("q") == 2:  # W&B rounds to the nearest multiple, which may lie outside of the bounds
        values = [value for value in values if 1 <= value <= 9]
    assert all(ours._contains(ours.to_internal_repr(value)) for value in values)
    middle = math.sqrt(ours.low * ours.high) if ours.log else (ours.low + ours.high) / 2
    below = np.mean(np.array(values) < middle) + np.mean(np.array(values) == middle) / 2
    assert below == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("value", [0.1, 1e-05, 3, True, "relu", [9, 7, 5, 3]])
def test_settings_are_written_as_wandb_s_agent_writes_them(read, value):
    sweep = read(parameters={"x": {"values": [value]}, "trainer.y": {"value": value}})
    theirs = create_sweep_command_args({"args": {"trainer.y": {"value": value}, "x": {"value": value}}})["args"]
    ours = sweep.arguments(sweep.any_settings())
    assert [yaml.safe_load(option) for option in ours] == [
        option.replace("=True", "=true") if value is True else option for option in theirs
    ]


def test_the_overlay_holds_the_settings(read):
    sweep = read(
        parameters={
            "model.net.kernels": {"values": [[9, 7], [3, 3]]},
            "model.net.activation": {"values": ["relu"]},
            "optimizer.lr": {"min": 0.1, "max": 0.2},
            "data.batch_size": {"value": 8},
        }
    )
    settings = {"model.net.kernels": "[3, 3]", "model.net.activation": "relu", "optimizer.lr": 0.15}
    assert sweep.overlay(settings) == {
        "data": {"batch_size": 8},
        "model": {"net": {"kernels": [3, 3], "activation": "relu"}},
        "optimizer": {"lr": 0.15},
    }


def test_the_command_s_options_come_without_what_the_agent_fills_in(read):
    assert read(command=["ser", "fit", "${args}", "--trainer.max_epochs", 3]).options == ["--trainer.max_epochs", "3"]


def test_a_grid_has_as_many_trials_as_settings(read):
    parameters = {"x": {"values": ["a", "b"]}, "y": {"min": 1, "max": 3}, "z": {"value": 0.5}}
    assert read(method="grid", parameters=parameters).size == 6
    assert read(parameters=parameters).size is None


def test_samplers_are_those_of_the_method(read):
    values = {"x": {"values": [1, 2]}}
    for method, sampler in (("bayes", "TPESampler"), ("random", "RandomSampler"), ("grid", "GridByTrial")):
        ours = read(method=method, parameters=values).sampler(1)
        assert getattr(ours, "make", type(ours)).__name__ == sampler


@pytest.mark.parametrize(
    ("settings", "epochs", "first", "last", "eta"),
    [
        ({"min_iter": 10}, 100, 10, 100, 3),
        ({"min_iter": 10, "eta": 2}, None, 10, "auto", 2),
        ({"max_iter": 27, "s": 2}, 100, 3, 27, 3),  # W&B's bands: 27/3 and 27/9
        ({"max_iter": 5, "s": 4}, 100, 1, 5, 3),
    ],
)
def test_hyperband_looks_where_wandb_s_does(read, settings, epochs, first, last, eta):
    pruner = read(early_terminate={"type": "hyperband", **settings}).pruner(epochs)
    assert (pruner._min_resource, pruner._max_resource, pruner._reduction_factor) == (first, last, eta)


def test_without_early_termination_every_trial_ends(read):
    assert isinstance(read().pruner(100), optuna.pruners.NopPruner)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "magic"}, "method is 'magic'; choose one of bayes, random, grid"),
        ({"metric": {"name": "test/uar", "goal": "maximize"}}, "trials compute no test scores"),
        ({"metric": {"name": "val/uar", "goal": "minimize"}}, "metric is"),
        ({"parameters": {"x": {"value": 1}}}, "nothing to search"),
        ({"parameters": ["x"]}, "parameters must be options of ser fit"),
        ({"parameters": {"x": {"min": 1}}}, "parameter x is .*give it values, or min and max"),
        ({"parameters": {"x": {"min": 1, "max": 2.5}}}, "both whole numbers or both with a decimal point"),
        (
            {"parameters": {"x": {"distribution": "log_uniform_values", "min": "low", "max": 1.0}}},
            "with a decimal point",
        ),
        ({"parameters": {"x": {"distribution": "log_uniform_values", "min": 0.0, "max": 1.0}}}, "which is no log_unif"),
        ({"parameters": {"x": {"distribution": "uniform", "min": 3.0, "max": 1.0}}}, "which is no uniform"),
        ({"parameters": {"x": {"distribution": "uniform", "max": 1.0}}}, "which is no uniform"),
        ({"parameters": {"x": {"distribution": "beta"}}}, "no distribution 'beta' here; choose categorical, uniform"),
        ({"parameters": {"x": {"values": [1, 2], "probabilities": [0.1, 0.9]}}}, "parameter x"),
        ({"parameters": {"x": {"values": []}}}, "parameter x"),
        (
            {"parameters": {"optimizer": {"parameters": {"lr": {"values": [1]}}}}},
            "written with dots, as in optimizer.lr",
        ),
        ({"method": "grid"}, "a grid takes every value of a parameter; give optimizer.lr values"),
        ({"method": "grid", "parameters": {"x": {"min": 1, "max": 10001}}}, "the grid has 10001 settings; at most"),
        ({"command": ["python", "train.py", "${args}"]}, r"it must be \[ser, fit, ..., '\${args}'\]"),
        ({"command": ["ser", "fit"]}, "command is"),
        ({"command": "ser fit"}, "command is"),
        ({"early_terminate": {"type": "envelope"}}, "must be of type hyperband"),
        ({"early_terminate": {"type": "hyperband"}}, "with min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 1}}, "eta from 2"),
        ({"early_terminate": {"type": "hyperband", "min_iter": "3"}}, "whole numbers"),
    ],
)
def test_what_is_no_sweep_of_ser_is_refused(read, changes, said):
    with pytest.raises(UserError, match=rf"small\.yaml: .*{said}"):
        read(**changes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"", "is not a sweep file: it lacks command, method, metric, parameters"),
        (b"- a", "is not a sweep file"),
        (b"model: {}", "is not a sweep file"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, said):
    file = tmp_path / "other.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_sweep(file)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Could not read the sweep file .*: Is a directory"):
        read_sweep(tmp_path)


MIXED = {
    "optimizer.lr": {"distribution": "log_uniform_values", "min": 0.0001, "max": 0.1},
    "model.net.lstm_hidden": {"values": [8, 16, 32]},
    "model.net.num_blocks": {"min": 1, "max": 9},
}


def drawn(sweep, seed, *counts):
    """Return the settings of the trials of a study that is broken off after some of them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sweep.sampler(seed))
    for count in counts:
        study.sampler = sweep.sampler(seed)  # of another process
        for _ in range(count):
            trial = study.ask(sweep.space)
            study.tell(trial, trial.params["model.net.num_blocks"] - trial.params["model.net.lstm_hidden"] / 10)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("method", ["bayes", "random", "grid"])
def test_a_seed_repeats_the_trials_and_a_break_changes_none(read, method):
    parameters = MIXED if method != "grid" else {key: MIXED[key] for key in list(MIXED)[1:]}
    sweep = read(method=method, parameters=parameters)
    once = drawn(sweep, 3, 15)
    assert drawn(sweep, 3, 15) == once
    assert drawn(sweep, 3, 4, 9, 2) == once
    assert len({tuple(settings.values()) for settings in once}) > 10  # nothing is drawn again and again
    assert (drawn(sweep, 4, 15) == once) == (method == "grid")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.net", '{"class_path": "subprocess.Popen", "init_args": {"args": "touch PWNED", "shell": true}}'),
        ("model.net.lstm_hidden", '{"class_path": "subprocess.Popen"}'),
        ("model.net.lstm_hidden", 9),
        ("optimizer.lr", 0.5),
        ("optimizer.lr", float("nan")),
        ("model.net.num_blocks", 1.5),
        ("trainer.logger", "nowhere.Logger"),
    ],
)
def test_settings_that_the_sweep_does_not_allow_are_refused(read, name, value):
    sweep = read(parameters=MIXED)
    settings = {"optimizer.lr": 0.01, "model.net.lstm_hidden": 8, "model.net.num_blocks": 2}
    assert sweep.arguments(settings) == [f"--{key}={value}" for key, value in settings.items()]
    for use in (sweep.arguments, sweep.overlay):
        with pytest.raises(UserError, match=rf"The study holds a trial with {name} = .*which the sweep file does not"):
            use({**settings, name: value})
