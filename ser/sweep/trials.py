"""Trials of a study: followed epoch by epoch, stopped when they are hopeless, repeated when their process died."""

import contextlib
import math
import os
import platform
import signal
import statistics
import time
from collections.abc import Callable, Sequence

from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from ser.errors import UserError
from ser.sweep.fits import Plan
from ser.sweep.space import Sweep

POLL_S = 0.5
HEARTBEAT_S = 10  # how often a process tells the study that its trials live
STALE_S = 60  # for how long it may be silent before another process takes them for dead
LIVES = 4  # processes in which a trial may be when they die
REPEATS = "repeats"  # which trials a trial repeats
MISTAKES = 3  # as many first trials refused as bad input: so will be all


class FollowedTrial:
    """A trial of a study: a fit of every fold, one after the other.

    The pruner is fed by the first fold alone, where all trials can be compared from the first epoch on; the trial's
    value is the mean over the folds of the validation UAR of the chosen checkpoint.

    Args:
        trial: Of the study.
        settings: The trial's settings, as options of the fit.
        slot: Which of the trials that run at once it is.
        plan: How its fits are started.
    """

    def __init__(self, trial: Trial, settings: Sequence[str], slot: int, plan: Plan) -> None:
        self.trial = trial
        self.settings = settings
        self.slot = slot
        self.plan = plan
        self.folds: Sequence[int | None] = plan.folds or [None]
        self.uars: list[float] = []
        self.reported = 0
        self.mistake: str | None = None
        self.runs: list[str] = []
        self._start()

    def _start(self) -> None:
        self.fit = self.plan.fit(self.trial.number, self.folds[len(self.uars)], self.settings, self.slot)
        self.runs.append(str(self.fit.path))
        where = {"machine": platform.node(), "process": os.getpid(), "folders": self.runs}
        self.trial.set_user_attr("runs", where)

    def follow(self) -> tuple[TrialState, float | None] | None:
        """Report what is new; return how the trial ended, if it did."""
        ended = self.fit.ended()  # before its epochs are read: what an ended fit wrote is all there
        if not self.uars and self._hopeless():  # also if it has ended meanwhile: what is pruned is no matter of speed
            self.fit.stop()
            return TrialState.PRUNED, None
        if ended is None:
            return None
        uar = self.fit.uar()
        if ended.failure is not None or uar is None:
            problem = ended.failure or "stopped from outside, or told to choose no checkpoint"
            self.trial.set_user_attr("error", problem)
            self.mistake = problem if ended.bad_input else None
            return TrialState.FAIL, None
        self.uars.append(uar)
        self.trial.set_user_attr("uar", self.uars)
        if len(self.uars) < len(self.folds):
            self._start()
            return None
        return TrialState.COMPLETE, statistics.fmean(self.uars)

    def _hopeless(self) -> bool:
        epochs = self.fit.epochs()
        while self.reported < len(epochs):
            self.reported += 1
            self.trial.report(max(epochs[: self.reported]), step=self.reported)
            if self.trial.should_prune():
                return True
        return False


class Trials:
    """Runs trials of a study until as many have ended as are wanted, whichever processes run them.

    Args:
        study: The study.
        storage: Where it is kept.
        sweep: What its trials are.
        plan: How their fits are started.
    """

    def __init__(self, study: Study, storage: RDBStorage, sweep: Sweep, plan: Plan) -> None:
        self.study = study
        self.storage = storage
        self.sweep = sweep
        self.plan = plan
        self.running: list[FollowedTrial] = []
        self._heartbeat = -math.inf
        self._mistakes: list[str | None] = []  # of the trials of this process, None where there was none

    def run(self, count: int, show: Callable[[], None]) -> None:
        """Run trials.

        Args:
            count: Trials that the study is to have, ended and not to be repeated.
            show: Called whenever something may have changed.

        Raises:
            UserError: The first trials were all refused as bad input.
        """
        former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's kill is like Ctrl-C
        try:
            while True:
                self._keep_alive()
                ended, under_way = ended_and_running(self.study)
                if ended >= count and not self.running:
                    return
                free = sorted(set(range(len(self.plan.environments))) - {followed.slot for followed in self.running})
                for slot in free[: max(0, count - ended - under_way)]:
                    self._start(slot, count)
                for followed in list(self.running):
                    self._follow(followed)
                show()
                time.sleep(POLL_S)
        finally:  # after Ctrl-C, say
            signal.signal(signal.SIGTERM, former)
            for followed in self.running:
                followed.fit.stop()
            for followed in self.running:
                self._give_back(followed.trial)

    def _start(self, slot: int, count: int) -> None:
        try:
            trial = self.study.ask(self.sweep.space)
        except ValueError as error:  # of a trial that was queued with other distributions
            raise UserError(f"The study holds a trial that is not of this sweep file: {error}. Give --name.") from error
        self._beat(trial)
        if trial.number in [other.number for other in _counted(self.study)][:count]:
            self.running.append(FollowedTrial(trial, self.sweep.arguments(trial.params), slot, self.plan))
        else:  # other processes started the last ones at the same moment
            self._give_back(trial)

    def _give_back(self, trial: Trial) -> None:
        """Have a trial repeated by whoever wants one more."""
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        if frozen.state == TrialState.RUNNING:
            self._tell(trial, TrialState.FAIL)
            repeat(self.study, frozen)

    def _follow(self, followed: FollowedTrial) -> None:
        try:
            end = followed.follow()
            if end is None:
                return
            self._tell(followed.trial, *end)
        except UpdateFinishedTrialError:  # this machine slept; another process has taken the trial for dead
            followed.fit.stop()
        self.running.remove(followed)
        self._mistakes.append(followed.mistake)
        if len(self._mistakes) == MISTAKES and all(self._mistakes):
            raise UserError(f"The first {MISTAKES} trials were refused: {followed.mistake}")

    def _tell(self, trial: Trial, state: TrialState, uar: float | None = None) -> None:
        # With the last point of a grid, Optuna's sampler stops a Study.optimize() that is not there.
        with contextlib.suppress(RuntimeError) if self.sweep.method == "grid" else contextlib.nullcontext():
            self.study.tell(trial.number, uar, state, skip_if_finished=True)

    def _keep_alive(self) -> None:
        """Tell the study that this process's trials live, and hand out again those of processes that died."""
        if time.monotonic() < self._heartbeat + HEARTBEAT_S:
            return
        for followed in self.running:
            self._beat(followed.trial)
        fail_stale_trials(self.study)
        self._heartbeat = time.monotonic()

    def _beat(self, trial: Trial) -> None:
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        self.storage.record_heartbeat(trial_id)


def ended_and_running(study: Study) -> tuple[int, int]:
    """Count the trials that have ended and those that run, wherever; one that was repeated counts once."""
    trials = _counted(study)
    ended = sum(trial.state.is_finished() for trial in trials)
    return ended, len(trials) - ended


def _counted(study: Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False)
    repeated = {number for trial in trials for number in trial.user_attrs.get(REPEATS, [])}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in repeated]


def repeat(study: Study, trial: FrozenTrial) -> None:
    """Queue a trial that was broken off, for whoever starts the next one.

    Optuna's own callback hands down which of hyperband's rungs were passed, too; these are passed anew.
    """
    grid = {name: value for name, value in trial.system_attrs.items() if name in ("grid_id", "search_space")}
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={REPEATS: [*trial.user_attrs.get(REPEATS, []), trial.number]},
            system_attrs=grid,
        )
    )


def repeat_stale(study: Study, trial: FrozenTrial) -> None:
    """Queue a trial whose process died, unless that happens again and again: it may be the trial that kills it."""
    if len(trial.user_attrs.get(REPEATS, [])) < LIVES - 1:
        repeat(study, trial)
