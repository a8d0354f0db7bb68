"""Studies: where trials are kept, for one process or for many on several machines."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ser.errors import UserError
from ser.runs.settings import Changed, differences
from ser.sweep import trials
from ser.sweep.space import Sweep

ATTEMPTS = 3  # several processes that start at once create the same tables
DRIVERS = ("postgresql", "mysql")  # extras of ser


def storage_url(url: str | None, experiment: Path) -> URL:
    """Return the address of the storage; by default a file of the experiment.

    Raises:
        UserError: It is no address.
    """
    if url is None:
        return URL.create("sqlite", database=str(experiment / "study.db"))
    try:
        return make_url(url)
    except ArgumentError as error:
        raise UserError(
            f"--storage is {url!r}; it must be an address such as postgresql+psycopg://user:password@host/database."
        ) from error


def open_storage(url: URL) -> RDBStorage:
    """Open a storage, and create its tables if they are missing.

    Raises:
        UserError: It cannot be opened, or its driver is not installed.
    """
    sqlite = url.get_backend_name() == "sqlite"
    problem = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt)
        try:
            return RDBStorage(
                re.sub(r"[{}]", r"\g<0>\g<0>", url.render_as_string(hide_password=False)),  # a template to Optuna
                engine_kwargs={
                    "pool_pre_ping": not sqlite,
                    "connect_args": {"timeout": 60} if sqlite else {"connect_timeout": 10},
                },
                heartbeat_interval=trials.HEARTBEAT_S,
                grace_period=trials.STALE_S,
                heartbeat_stale_trial_callback=trials.requeue,
            )
        except ImportError as error:
            kind = url.get_backend_name()
            extra = f"install the extra ser[{kind}]: pip install -e '.[{kind}]' in the folder of ser"
            how = extra if kind in DRIVERS else "choose PostgreSQL or MySQL"
            raise UserError(f"There is no driver for {url.render_as_string()}: {how}.") from error
        except SQLAlchemyError as error:
            problem = reason(error)
    raise UserError(
        f"Could not open the storage {url.render_as_string()}: {problem}. --storage must be the address of an SQLite "
        "file, or of a PostgreSQL or MySQL database that answers."
    )


def reason(error: BaseException) -> str:
    """Return a database's error in one line."""
    return " ".join(str(getattr(error, "orig", error)).split())


def open_study(
    storage: RDBStorage, name: str, sweep: Sweep, config: dict[str, Any], folds: Sequence[int] | None, seed: int = 1
) -> optuna.Study:
    """Create a study or join it.

    Args:
        storage: Where it is kept.
        name: Its name.
        sweep: What its trials are.
        config: The config of a trial.
        folds: What a trial's score is the mean over.
        seed: Of the search.

    Raises:
        UserError: A study of this name has other settings, or trials that are not of the sweep.
    """
    max_epochs = config["trainer"]["max_epochs"]
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        sampler=sweep.sampler(seed),
        pruner=sweep.pruner(max_epochs if max_epochs and max_epochs > 0 else None),
    )
    ours = {
        "method": sweep.method,
        "folds": folds,
        "parameters": {name: distribution_to_json(distribution) for name, distribution in sweep.space.items()},
        "config": config,
    }
    theirs = study.user_attrs.get("sweep")
    if theirs is None:
        study.set_user_attr("sweep", ours)
    elif differing := _changed(ours, theirs):
        raise UserError(
            f"The study {name} has other settings, so its trials cannot be compared with these:\n"
            + "\n".join(f"  {line}" for line in differing)
            + "\nGive the same settings, or --name for another study."
        )
    for trial in study.get_trials(deepcopy=False):
        sweep.check(trial.params)
    return study


def _changed(ours: dict[str, Any], theirs: dict[str, Any]) -> list[Changed]:
    """Return how two studies differ, if their trials cannot be compared."""

    def search(study: dict[str, Any]) -> dict[str, Any]:
        parameters = {f"parameters.{name}": distribution for name, distribution in study["parameters"].items()}
        return {"method": study["method"], "folds": study["folds"], **parameters}

    now, then = search(ours), search(theirs)
    changed = [Changed(name, then.get(name), now.get(name)) for name in {**then, **now}]
    return [item for item in changed if item.then != item.now] + differences(ours["config"], theirs["config"])
