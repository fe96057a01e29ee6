"""Export of a run's curves to MLflow."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from kuber.errors import SettingsError
from kuber.integrations.scalars import PAUSE, Scalar, Traffic, event_batches, scalars

MAX_METRICS = 1000  # in one call of MLflow
MAX_PARAMS = 100  # in one call of MLflow
MAX_CHARACTERS = 500  # of a parameter, in every version of MLflow
SETTINGS_FILE = "settings.json"


def write(run_dir: Path, *, uri: str, experiment: str, follow: bool = False, pause: float = PAUSE) -> int:
    """Write the scalars of a run, an MLflow run for each entity with the settings as parameters; return how many.

    With `follow` it continues until the run ends. Raises SettingsError when `run_dir` is not a run folder, or MLflow
    is not installed or fails.
    """
    batches, total, count = event_batches(run_dir, follow=follow, pause=pause), Traffic(), 0
    params = _settings(run_dir)
    with _translate_errors(uri):
        tracking = _Tracking(uri, experiment, source=run_dir.resolve().name, params=params)
        done = False
        try:
            for events in batches:
                new = list(scalars(events, total))
                for entity in dict.fromkeys(scalar.entity for scalar in new):
                    tracking.write(entity, [scalar for scalar in new if scalar.entity == entity])
                count += len(new)
            done = True
        finally:
            tracking.end("FINISHED" if done else "KILLED")
    return count


class _Tracking:
    """An MLflow run for each entity."""

    def __init__(self, uri: str, experiment: str, *, source: str, params: dict[str, str]) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        existing = self._client.get_experiment_by_name(experiment)
        self._experiment = existing.experiment_id if existing else self._client.create_experiment(experiment)
        self._source = source
        self._params = params
        self._runs: dict[str, str] = {}  # entity -> id of its run
        self._last: dict[str, int] = {}  # entity -> time of its last metric

    def write(self, entity: str, new: list[Scalar]) -> None:
        from mlflow.entities import Metric

        id = self._runs.get(entity) or self._begin(entity, _milliseconds(new[0].time))
        metrics = [Metric(scalar.name, scalar.value, _milliseconds(scalar.time), scalar.round) for scalar in new]
        for start in range(0, len(metrics), MAX_METRICS):
            self._client.log_batch(id, metrics=metrics[start : start + MAX_METRICS])
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
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(id, params=params[start : start + MAX_PARAMS])
        return id


@contextmanager
def _translate_errors(uri: str) -> Iterator[None]:
    """Raise MLflow's errors as SettingsError of one sentence."""
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise SettingsError("MLflow is not installed: pip install 'kuber[mlflow]'.") from None
    try:
        yield
    # MLflow does not wrap the errors of its stores.
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise SettingsError(f"MLflow at {uri} failed: {reason[:300]}.") from None


def _settings(run_dir: Path) -> dict[str, str]:
    """Return the settings of a run; empty if they were not saved."""
    try:
        settings: dict[str, Any] = json.loads((run_dir / SETTINGS_FILE).read_bytes())
        return {name: str(value)[:MAX_CHARACTERS] for name, value in settings.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError):
        raise SettingsError(f"{run_dir / SETTINGS_FILE} cannot be read as settings.") from None


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
