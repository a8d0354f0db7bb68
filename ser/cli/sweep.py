"""``ser sweep``: searches settings by a W&B sweep file, on one machine or several, without an account."""

import re
import shlex
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import optuna
import yaml
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.engine import URL

from ser.cli import arguments
from ser.cli.crossval import PlanningCLI
from ser.cli.fit import prepared
from ser.errors import UserError, cannot_create
from ser.evaluation.crossval import fold_numbers
from ser.runs.folder import SYNTHETIC
from ser.runs.scores import percent
from ser.settings.config_yaml import dump
from ser.storage import write_atomically
from ser.sweep.results import TrialTable, sweep_page
from ser.sweep.space import Sweep, read_sweep
from ser.sweep.study import open_storage, open_study, reason, storage_url
from ser.sweep.trials import Plan, Trials

# What the sweep sets for every trial; above all, no test scores.
OURS = {"test_checkpoint", "run.root", "run.experiment", "run.name", "ckpt_path"}
FLATTERS = (
    "The validation speakers of one fold are the test speakers of another, so a cross-validation with these settings "
    "is a little optimistic: an unbiased one chooses settings anew for every test speaker."
)


def run(args: Sequence[str]) -> None:
    """Run the verb.

    Args:
        args: "sweep" and its options.

    Raises:
        UserError: Bad input.
    """
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    args = list(args[1:])
    divide = args.index("--") if "--" in args else len(args)
    options, of_fits = _parse(args[:divide]), args[divide + 1 :]
    sweep = read_sweep(options.file)
    settled = OURS | sweep.space.keys() | sweep.constants.keys() | ({"data.fold"} if options.folds else set())
    _check_free(settled, of_fits)
    _check_free(
        sweep.space.keys() | sweep.constants.keys(), sweep.options
    )  # options win over the config of the best settings

    shared = ["--trainer.logger", "false", *sweep.options, *of_fits]
    with prepared():
        cli = PlanningCLI(["fit", *shared, *sweep.arguments(sweep.any_settings()), "--test_checkpoint", "none"])
        names = cli.datamodule.protocol.folds(cli.datamodule.table)
        folds = fold_numbers(options.folds, names) if options.folds else None
        experiment: Path = options.root / (options.name or f"sweep-{sweep.name}")
        try:
            experiment.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_create(experiment, error, place="--root", name="--name") from error
        with cli.workers(options.cluster, options.jobs, experiment) as workers:
            cli.datamodule.prepare_data()  # once, before the trials run
            url = storage_url(options.storage, experiment)
            study = open_study(
                open_storage(url), experiment.name, sweep, yaml.safe_load(cli.config_text), folds, options.seed
            )
            print(f"Study {study.study_name} in {url.render_as_string()}; run folders in {experiment}", flush=True)
            trials = Trials(study, sweep, Plan(shared, experiment, folds), workers)
            _search(trials, min(options.count, sweep.size or options.count), url)

    notes = [FLATTERS] if folds is not None and len(folds) > 1 else []
    notes += [SYNTHETIC] if cli.datamodule.synthetic else []
    _conclude(study, sweep, folds, experiment, notes)
    best_fit = ["ser", "fit", *_tested(sweep.options), *of_fits, "--config", str(experiment / "best.yaml")]
    print(f"Best settings: {shlex.join(best_fit)}")
    print(f"Page: {experiment / 'sweep.html'}")
    print(f"More: pip install optuna-dashboard && optuna-dashboard {shlex.quote(url.render_as_string())}")


def _parse(args: Sequence[str]) -> Namespace:
    options = arguments.sweep().parse_args(args)
    for name, value in {"count": options.count, "jobs": options.jobs}.items():
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; it must be at least 1.")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; it must be 0 or more.")
    return options


def _check_free(settled: set[str], options: Sequence[str]) -> None:
    """Check that no option of the fits is one that the sweep sets.

    Raises:
        UserError: One is.
    """
    for option in options:
        name = re.sub(r"=.*", "", option.removeprefix("--").replace(".init_args", ""))
        if option.startswith("--") and name in settled:
            raise UserError(f"--{name} cannot be given to the trials: the sweep sets it. See ser sweep --help.")


def _search(trials: Trials, count: int, url: URL) -> None:
    """Run the trials.

    Raises:
        UserError: The first trials all failed for bad input, or the storage is gone.
    """
    try:
        with TrialTable(trials.study, count) as table:
            trials.run(count, table.show)
    except StorageInternalError as error:
        why = reason(error.__cause__ or error)
        raise UserError(
            f"The connection to the storage {url.render_as_string()} is lost ({why}). It keeps the finished trials; "
            "the same command resumes."
        ) from error
    except KeyboardInterrupt:
        print("The same command resumes; running trials were requeued.")
        raise


def _conclude(
    study: optuna.Study, sweep: Sweep, folds: Sequence[int] | None, experiment: Path, notes: list[str]
) -> None:
    """Print and write the best settings, and write the page.

    Raises:
        UserError: No trial was completed.
    """
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        errors = [f" Last error: {trial.user_attrs['error']}" for trial in study.trials if "error" in trial.user_attrs]
        raise UserError(f"No trial of {study.study_name} was completed.{''.join(errors[-1:])}")
    best = study.best_trial
    over = "" if folds is None else f", mean over folds {', '.join(map(str, folds))}"
    scored = f"Trial {best.number}: validation UAR {percent(best.values[0])}{over}."
    settings = dump(sweep.overlay(best.params))
    write_atomically(experiment / "best.yaml", f"# {scored}\n{settings}".encode())
    print("\n".join([scored, *notes]))
    meaning = "A trial's score is the validation UAR of its best checkpoint. No test score was computed."
    write_atomically(experiment / "sweep.html", sweep_page(study, [scored, meaning, *notes]))


def _tested(options: Sequence[str]) -> list[str]:
    """Return options without ``--test_checkpoint none``: the best settings are to be tested."""
    return re.sub(r"--test_checkpoint[\0=]none(\0|$)", "", "\0".join(options)).rstrip("\0").split("\0")
