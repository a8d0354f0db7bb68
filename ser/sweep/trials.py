"""Trials of a study: Optuna's loop runs them, each is followed epoch by epoch and stopped when it is hopeless."""

import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from optuna import Study, Trial
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from ser.errors import UserError
from ser.parallel import Workers
from ser.runs.fits import Fit, Running, start
from ser.runs.folder import RunFolder
from ser.sweep.space import METRIC, Sweep

POLL_S = 0.5
HEARTBEAT_S = 10  # how often Optuna tells the storage that a trial lives
STALE_S = 60  # for how long that may be missing before another process takes a trial for dead
RETRIES = 3  # of a trial whose process dies: it may be the trial that kills it
MISTAKES = 3  # as many first trials that are bad input: so will be all


@dataclass(frozen=True)
class Plan:
    """How the fits of trials are started.

    Attributes:
        options: Options of ``ser fit`` that all share.
        experiment: Folder of their run folders.
        folds: Numbers of the folds; None fits the config's.
    """

    options: Sequence[str]
    experiment: Path
    folds: Sequence[int] | None

    def fit(self, trial: int, fold: int | None, settings: Sequence[str]) -> Fit:
        """Return a fit, which computes no test scores whatever else it is told.

        Its run gets a number beside a name that is taken, by a study that was deleted.
        """
        name, on = (f"trial{trial}", []) if fold is None else (f"trial{trial}-fold{fold}", ["--data.fold", str(fold)])
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        run = next(name for name in names if not (self.experiment / name).exists())
        where = ["--run.root", self.experiment.parent, "--run.experiment", self.experiment.name, "--run.name", run]
        options = ["fit", *self.options, *settings, *on, "--test_checkpoint", "none", *map(str, where)]
        return Fit(name, options, RunFolder(self.experiment, run), self.experiment / "logs" / f"{run}.log")


class FitFailed(Exception):
    """A trial's fit failed: the study records that, and goes on."""


class Interrupted(Exception):
    """A trial was interrupted."""


class Trials:
    """Runs trials of a study until as many have ended as are wanted, whichever processes run them.

    Args:
        study: The study.
        sweep: What its trials are.
        plan: How their fits are started.
        workers: Where.
    """

    def __init__(self, study: Study, sweep: Sweep, plan: Plan, workers: Workers) -> None:
        self.study = study
        self.sweep = sweep
        self.plan = plan
        self.workers = workers
        self._interrupted = Event()
        self._count = 0
        self._mistakes: list[str | None] = []  # of the trials of this process, None where there was none

    def run(self, count: int, show: Callable[[], None]) -> None:
        """Run trials.

        Args:
            count: Trials that the study is to have, ended and not requeued.
            show: Called whenever something may have changed.

        Raises:
            UserError: The first trials were all bad input, or the study holds one that is not of the sweep.
        """
        self._count = count
        at_once = max(1, min(self.workers.slots, count - sum(ended_and_running(self.study))))
        with ThreadPoolExecutor(at_once) as threads:
            loops = [threads.submit(self._run_until_enough) for _ in range(at_once)]
            try:
                waiting = True
                while waiting:
                    ended, rest = wait(loops, POLL_S, FIRST_EXCEPTION)
                    waiting = bool(rest) and not any(loop.exception() for loop in ended)
                    show()
            finally:  # after Ctrl-C, say
                self._interrupted.set()
        for loop in loops:
            loop.result()

    def _run_until_enough(self) -> None:
        while not self._interrupted.is_set():
            ended, running = ended_and_running(self.study)
            if ended >= self._count:
                return
            if ended + running >= self._count:  # the last ones run, here or elsewhere; if their processes die, others
                fail_stale_trials(self.study)  # run them again
                time.sleep(POLL_S)
                continue
            attempt = Attempt(self)
            try:
                self.study.optimize(attempt, n_trials=1, catch=(FitFailed, Interrupted))
            except ValueError:
                if not attempt.lost:
                    raise

    def is_surplus(self, number: int) -> bool:
        """Tell whether other threads or processes have started the last trials at the same moment as this one."""
        return number not in [trial.number for trial in _counted(self.study)][: self._count]

    def check_mistakes(self, mistake: str | None) -> None:
        """Take note of bad input.

        Raises:
            UserError: The first trials were all bad input.
        """
        self._mistakes.append(mistake)
        if len(self._mistakes) == MISTAKES and all(self._mistakes):
            raise UserError(f"The first {MISTAKES} trials failed: {mistake}")

    @property
    def interrupted(self) -> bool:
        """Whether no trial is to go on."""
        return self._interrupted.is_set()


class Attempt:
    """Optuna's objective for one trial: a fit of every fold, one after the other.

    The pruner is fed by the first fold alone, where all trials can be compared from the first epoch on; the trial's
    value is the mean over the folds of the validation UAR of the chosen checkpoint.

    Args:
        trials: Whose trial it is.

    Attributes:
        lost: Whether another process has taken the trial for dead, after this machine slept, say.
    """

    def __init__(self, trials: Trials) -> None:
        self.trials = trials
        self.lost = False

    def __call__(self, trial: Trial) -> float:
        """Run the trial, and return its value.

        Raises:
            FitFailed: A fit failed.
            Interrupted: No trial is to go on, or this one is surplus; it is requeued.
            TrialPruned: It is hopeless.
            UserError: The first trials were all bad input, or this one is not of the sweep.
        """
        study, plan = self.trials.study, self.trials.plan
        settings = self._settings(trial)
        uars: list[float] = []
        runs: list[str] = []
        try:
            if self.trials.is_surplus(trial.number):
                raise Interrupted
            for fold in [None] if plan.folds is None else plan.folds:
                fit = plan.fit(trial.number, fold, settings)
                runs.append(str(fit.folder.experiment / fit.folder.name))
                trial.set_user_attr("runs", {"machine": platform.node(), "process": os.getpid(), "folders": runs})
                uars.append(self._uar(trial, fit, prune=not uars))
                trial.set_user_attr("uar", uars)
        except Interrupted:
            requeue(study, study.get_trials(deepcopy=False)[trial.number])
            raise
        except UpdateFinishedTrialError:
            self.lost = True
            raise
        self.trials.check_mistakes(None)
        return statistics.fmean(uars)

    def _settings(self, trial: Trial) -> list[str]:
        for name, distribution in self.trials.sweep.space.items():
            try:
                match distribution:
                    case CategoricalDistribution(choices=choices):
                        trial.suggest_categorical(name, choices)
                    case IntDistribution(low=low, high=high, step=step, log=log):
                        trial.suggest_int(name, low, high, step=step, log=log)
                    case FloatDistribution(low=low, high=high, step=step, log=log):
                        trial.suggest_float(name, low, high, step=step, log=log)
            except ValueError as error:  # the trial was queued with other distributions
                raise UserError(
                    f"The study holds a trial that is not of this sweep file: {error}. Give --name."
                ) from error
        self.trials.sweep.check(trial.params)
        return self.trials.sweep.arguments(trial.params)

    def _uar(self, trial: Trial, fit: Fit, *, prune: bool) -> float:
        """Run a fit, and return the validation UAR of the checkpoint that was chosen."""
        running = start(self.trials.workers, fit)
        try:
            self._follow(trial, running, prune=prune)
        finally:
            if not running.future.done():
                self.trials.workers.stop(running.future)
                wait([running.future])
        ended = running.ended()
        metrics = (fit.folder.newest or Path()) / "metrics.json"
        scores = json.loads(metrics.read_text()) if metrics.exists() else {}
        if ended.failure is None and "val" in scores:
            return float(scores["val"]["uar"])
        problem = ended.failure or "it chose no checkpoint"
        trial.set_user_attr("error", problem)
        self.trials.check_mistakes(problem if ended.bad_input else None)
        raise FitFailed(problem)

    def _follow(self, trial: Trial, running: Running, *, prune: bool) -> None:
        """Report every epoch until a fit has ended.

        Raises:
            Interrupted: It is not to go on.
            TrialPruned: It is hopeless, also if it has ended meanwhile: what is pruned is no matter of speed.
        """
        ended, reported = False, list[float]()
        while not ended:
            ended = bool(wait([running.future], POLL_S).done)  # before its epochs are read: they are all there
            epochs = [float(row[METRIC]) for row in running.fit.epochs() if row.get(METRIC)] if prune else []
            for uar in epochs[len(reported) :]:
                reported.append(uar)
                trial.report(max(reported), step=len(reported))
                if trial.should_prune():
                    raise TrialPruned
            if self.trials.interrupted and not ended:
                raise Interrupted


def requeue(study: Study, trial: FrozenTrial) -> None:
    """Queue a trial again that was broken off, unless its processes die again and again."""
    RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, trial)


def ended_and_running(study: Study) -> tuple[int, int]:
    """Count the trials that have ended and those that run, wherever; one that was requeued counts once."""
    trials = _counted(study)
    ended = sum(trial.state.is_finished() for trial in trials)
    return ended, len(trials) - ended


def _counted(study: Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False)
    requeued = {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in requeued]
