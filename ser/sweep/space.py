"""W&B's sweep files, read for Optuna: the settings to be searched, and how.

https://docs.wandb.ai/models/sweeps/sweep-config-keys has the format. Settings that Optuna lacks are an error.
"""

import itertools
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial

from ser.errors import UserError
from ser.settings.config_yaml import load, plain

METRIC = "val/uar"
ARGS = "${args}"  # where W&B's agent puts the settings of a trial
METHODS = ("bayes", "random", "grid")
GRID = 10_000  # settings, at most
Setting = bool | int | float | str | None


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        name: Of the file, without its ending.
        options: Options of ``ser fit`` that all trials share, the config among them.
        method: How settings are chosen: by TPE ("bayes"), at random, or all of them ("grid").
        space: What each searched parameter can be.
        constants: Parameters with one value.
        early_terminate: Hyperband's settings as W&B has them; None lets every trial end.
    """

    name: str
    options: list[str]
    method: str
    space: dict[str, BaseDistribution]
    constants: dict[str, Any]
    early_terminate: dict[str, Any] | None

    @property
    def size(self) -> int | None:
        """Number of trials, if that is limited: a grid's."""
        if self.method != "grid":
            return None
        return math.prod(len(_values(distribution)) for distribution in self.space.values())

    def any_settings(self) -> dict[str, Setting]:
        """Return settings with which the command can be tried."""
        return {name: _values(distribution)[0] for name, distribution in self.space.items()}

    def check(self, settings: Mapping[str, Setting]) -> None:
        """Check that a trial's settings are of this sweep: a study's storage may hold others, which would run.

        Raises:
            UserError: They are not.
        """
        for name, value in settings.items():
            if name not in self.space or not _allows(self.space[name], value):
                raise UserError(
                    f"The study holds a trial with {name} = {value!r}, which the sweep file does not "
                    "allow. Give --name, or another --storage, for a study of this sweep file alone."
                )

    def arguments(self, settings: Mapping[str, Setting]) -> list[str]:
        """Return a trial's settings as options of the command line, as W&B's agent writes them.

        Raises:
            UserError: See :meth:`check`.
        """
        self.check(settings)
        constants = {name: _as_setting(value) for name, value in self.constants.items()}
        return [f"--{name}={_as_text(value)}" for name, value in {**constants, **settings}.items()]

    def overlay(self, settings: Mapping[str, Setting]) -> dict[str, Any]:
        """Return a trial's settings as an overlay of the sweep's config.

        Raises:
            UserError: See :meth:`check`.
        """
        self.check(settings)
        config: dict[str, Any] = {}
        for name, value in {**self.constants, **settings}.items():
            *groups, last = name.split(".")
            place = config
            for group in groups:
                place = place.setdefault(group, {})
            written_out = isinstance(value, str) and value[:1] in ("[", "{")
            place[last] = json.loads(value) if written_out else value
        return config

    def sampler(self, seed: int) -> BaseSampler:
        """Return the sampler; a grid has one order, whatever the seed."""
        if self.method == "grid":
            return GridByTrial({name: _values(distribution) for name, distribution in self.space.items()})
        return SeededByTrial(TPESampler if self.method == "bayes" else RandomSampler, seed)

    def pruner(self, max_epochs: int | None) -> BasePruner:
        """Return the pruner.

        Args:
            max_epochs: The longest that a trial can last; None takes what the first trial lasted.
        """
        settings = self.early_terminate
        if settings is None:
            return NopPruner()
        eta, last = settings.get("eta", 3), settings.get("max_iter")
        first = settings["min_iter"] if last is None else max(1, int(last / eta ** settings["s"]))
        return HyperbandPruner(min_resource=first, max_resource=last or max_epochs or "auto", reduction_factor=eta)


class GridByTrial(BaseSampler):
    """The settings of a grid one after the other, a new trial each, whichever process runs it.

    Processes that start trials at the same moment may draw one point twice with Optuna's GridSampler.

    Args:
        values: Of each parameter.
    """

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self.settings = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return no parameters: each is looked up by itself."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose none of these."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Choose a parameter."""
        earlier = study.get_trials(deepcopy=False)[: trial.number]
        new = sum(not RetryHeartbeatStaleTrialCallback.retry_history(other) for other in earlier)
        return self.settings[new % len(self.settings)][param_name]


class SeededByTrial(BaseSampler):
    """A new sampler for every trial, seeded by the search's seed and the trial's number.

    So a resumed study draws what it would have drawn without a break, and no two processes draw the same.

    Args:
        make: Constructs a sampler from a seed.
        seed: Of the search.
    """

    def __init__(self, make: Callable[..., BaseSampler], seed: int) -> None:
        self.make = make
        self.seed = seed
        self._own = threading.local()  # trials are drawn in threads

    @property
    def sampler(self) -> BaseSampler:
        """The sampler of the trial that this thread draws."""
        sampler: BaseSampler = self._own.sampler
        return sampler

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the trial's sampler."""
        (seed,) = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
        self._own.sampler = self.make(seed=int(seed))
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are chosen together."""
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose these."""
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Choose another parameter."""
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        UserError: The file is missing, no sweep of ``ser fit``, or one that Optuna cannot run.
    """
    try:
        content = plain(load(path.read_text()))
    except OSError as error:
        raise UserError(f"Could not read the sweep file {path}: {error.strerror}. sweeps/ has examples.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    keys = {"command", "method", "metric", "parameters"}
    if not isinstance(content, dict) or not keys <= content.keys():
        lacking = keys - content.keys() if isinstance(content, dict) else keys
        raise UserError(f"{path} is not a sweep file: it lacks {', '.join(sorted(lacking))}. See sweeps/cornn.yaml.")
    try:
        return _sweep(path.stem, content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _sweep(name: str, content: dict[str, Any]) -> Sweep:
    method, metric, parameters = (content[key] for key in ("method", "metric", "parameters"))
    if method not in METHODS:
        raise UserError(f"method is {method!r}; choose one of {', '.join(METHODS)}.")
    if not isinstance(metric, dict) or (metric.get("name"), metric.get("goal")) != (METRIC, "maximize"):
        raise UserError(
            f"metric is {metric}; it must be {{name: {METRIC}, goal: maximize}}, since trials compute no test scores."
        )
    if not isinstance(parameters, dict) or not all(isinstance(spec, dict) for spec in parameters.values()):
        raise UserError("parameters must be options of ser fit, each with its values, or min and max.")
    sweep = Sweep(
        name=name,
        options=_fit_options(content["command"]),
        method=method,
        space={key: _distribution(key, spec) for key, spec in parameters.items() if "value" not in spec},
        constants={key: spec["value"] for key, spec in parameters.items() if "value" in spec},
        early_terminate=_early_terminate(content.get("early_terminate")),
    )
    if not sweep.space:
        raise UserError("no parameter has more than one value, so there is nothing to search.")
    endless = [key for key, distribution in sweep.space.items() if isinstance(distribution, FloatDistribution)]
    if method == "grid" and endless:
        raise UserError(f"a grid takes every value of a parameter; give {', '.join(endless)} values.")
    if sweep.size is not None and sweep.size > GRID:
        raise UserError(f"the grid has {sweep.size} settings; at most {GRID} can be searched. Choose method bayes.")
    return sweep


def _fit_options(command: Any) -> list[str]:
    """Return the command's options without those that W&B's agent fills in."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    if words[:2] != ["ser", "fit"] or words.count(ARGS) != 1:
        raise UserError(f"command is {command}; it must be [ser, fit, ..., '{ARGS}'].")
    words.remove(ARGS)
    return words[2:]


def _early_terminate(settings: Any) -> dict[str, Any] | None:
    if settings is None:
        return None
    least = {"min_iter": 1, "max_iter": 1, "s": 1, "eta": 2}  # what Optuna takes
    if (
        not isinstance(settings, dict)
        or settings.get("type") != "hyperband"
        or not ("min_iter" in settings or {"max_iter", "s"} <= settings.keys())
        or not all(isinstance(settings[key], int) and settings[key] >= least[key] for key in settings.keys() & least)
    ):
        raise UserError(
            f"early_terminate is {settings}; it must be of type hyperband with min_iter, or max_iter and s, whole "
            "numbers, and eta from 2."
        )
    return settings


def _uniform(spec: dict[str, Any]) -> BaseDistribution:
    return FloatDistribution(spec["min"], spec["max"])


def _log_uniform_values(spec: dict[str, Any]) -> BaseDistribution:
    return FloatDistribution(spec["min"], spec["max"], log=True)


def _int_uniform(spec: dict[str, Any]) -> BaseDistribution:
    return IntDistribution(spec["min"], spec["max"])


def _q_uniform(spec: dict[str, Any]) -> BaseDistribution:
    step = spec.get("q", 1)
    low, high = math.ceil(spec["min"] / step) * step, math.floor(spec["max"] / step) * step
    if isinstance(step, int):
        return IntDistribution(low, high, step=step)
    return FloatDistribution(low, high, step=step)


def _categorical(spec: dict[str, Any]) -> BaseDistribution:
    return CategoricalDistribution([_as_setting(value) for value in spec["values"]])


DISTRIBUTIONS: dict[str, Callable[[dict[str, Any]], BaseDistribution]] = {
    "categorical": _categorical,
    "uniform": _uniform,
    "int_uniform": _int_uniform,
    "q_uniform": _q_uniform,
    "log_uniform_values": _log_uniform_values,
}


def _distribution(name: str, spec: dict[str, Any]) -> BaseDistribution:
    bounds = [spec.get("min"), spec.get("max")]
    kind = spec.get("distribution")
    if kind is None and "values" in spec:
        kind = "categorical"
    elif kind is None and all(type(bound) is int for bound in bounds):
        kind = "int_uniform"
    elif kind is None and all(type(bound) is float for bound in bounds):
        kind = "uniform"
    if kind is None or "probabilities" in spec or any(isinstance(bound, str) for bound in bounds):
        raise UserError(
            f"parameter {name} is {spec}; give it values, or min and max, both whole numbers or both with a decimal "
            "point. A nested parameter is written with dots, as in optimizer.lr."
        )
    if kind not in DISTRIBUTIONS:
        raise UserError(f"parameter {name}: there is no distribution {kind!r} here; choose {', '.join(DISTRIBUTIONS)}.")
    try:
        return DISTRIBUTIONS[kind](spec)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"parameter {name} is {spec}, which is no {kind} distribution ({error}).") from error


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    """Return what a parameter can be; of a continuous one, the least."""
    match distribution:
        case CategoricalDistribution():
            return distribution.choices
        case IntDistribution():
            return range(distribution.low, distribution.high + 1, distribution.step)
        case FloatDistribution():
            return [distribution.low]
    raise TypeError(type(distribution))


def _allows(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, FloatDistribution):
        return isinstance(value, float) and distribution.low <= value <= distribution.high
    return value in _values(distribution)


def _as_setting(value: Any) -> Setting:
    """Return a value as Optuna can store it: a list as text."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _as_text(setting: Setting) -> str:
    return setting if isinstance(setting, str) else json.dumps(setting)
