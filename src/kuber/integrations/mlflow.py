"""The curves of a run as MLflow metrics."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from kuber.errors import SettingsError
from kuber.integrations.scalars import PAUSE, Scalar, Traffic, looks, scalars

METRICS = 1000  # that MLflow takes at once
PARAMS = 100  # that MLflow takes at once
LONGEST = 500  # characters of a parameter that every version takes
SETTINGS_FILE = "settings.json"


def write(run_dir: Path, *, uri: str, experiment: str, follow: bool = False, pause: float = PAUSE) -> int:
    """Write the scalars of a run, one MLflow run an entity, with the settings as parameters; how many there were.

    With `follow` it goes on until the run has ended. Raises SettingsError when `run_dir` is no run folder, MLflow is
    not installed, or refuses.
    """
    parts, total, count = looks(run_dir, follow=follow, pause=pause), Traffic(), 0
    params = _settings(run_dir)
    with _told(uri):
        tracking = _Tracking(uri, experiment, source=run_dir.resolve().name, params=params)
        done = False
        try:
            for events in parts:
                found = list(scalars(events, total))
                for entity in dict.fromkeys(scalar.entity for scalar in found):
                    tracking.write(entity, [scalar for scalar in found if scalar.entity == entity])
                count += len(found)
            done = True
        finally:
            tracking.end("FINISHED" if done else "KILLED")
    return count


class _Tracking:
    """An MLflow run for each entity."""

    def __init__(self, uri: str, experiment: str, *, source: str, params: dict[str, str]) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(experiment)
        self._experiment = known.experiment_id if known else self._client.create_experiment(experiment)
        self._source = source
        self._params = params
        self._runs: dict[str, str] = {}  # entity -> id of its run
        self._last: dict[str, int] = {}  # entity -> time of the last that was written

    def write(self, entity: str, found: list[Scalar]) -> None:
        from mlflow.entities import Metric

        id = self._runs.get(entity) or self._begin(entity, _milliseconds(found[0].time))
        metrics = [Metric(one.name, one.value, _milliseconds(one.time), one.round) for one in found]
        for start in range(0, len(metrics), METRICS):
            self._client.log_batch(id, metrics=metrics[start : start + METRICS])
        self._last[entity] = metrics[-1].timestamp

    def end(self, status: str) -> None:
        for entity, id in self._runs.items():
            self._client.set_terminated(id, status, end_time=self._last.get(entity))

    def _begin(self, entity: str, time: int) -> str:
        from mlflow.entities import Param

        tags = {"kuber.run": self._source, "kuber.entity": entity}
        run = self._client.create_run(self._experiment, start_time=time, run_name=entity, tags=tags)
        id = self._runs[entity] = str(run.info.run_id)
        params = [Param(name, value) for name, value in self._params.items()]
        for start in range(0, len(params), PARAMS):
            self._client.log_batch(id, params=params[start : start + PARAMS])
        return id


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """What MLflow refuses, as a SettingsError of one sentence."""
    try:
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise SettingsError("MLflow is not installed: pip install 'kuber[mlflow]'.") from None
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:  # it lets those of its stores through
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise SettingsError(f"MLflow at {uri} refuses: {reason[:300]}.") from None


def _settings(run_dir: Path) -> dict[str, str]:
    """The settings of a run, none where they are not written down."""
    try:
        told: dict[str, Any] = json.loads((run_dir / SETTINGS_FILE).read_bytes())
        return {name: str(value)[:LONGEST] for name, value in told.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError):
        raise SettingsError(f"{run_dir / SETTINGS_FILE} cannot be read as settings.") from None


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
