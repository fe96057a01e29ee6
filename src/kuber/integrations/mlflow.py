"""The curves of a run as MLflow metrics."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kuber.errors import ServiceUnavailableError, SettingsError
from kuber.integrations.scalars import Scalar, events_of, scalars

BATCH = 500  # metrics sent at once; MLflow takes 1000 at most
PARAMS = 100  # that MLflow takes at once
SETTINGS_FILE = "settings.json"


def write(run_dir: Path, *, uri: str, experiment: str, follow: bool = False) -> int:
    """Write the scalars of a run, an MLflow run for each entity, with the settings as parameters; how many there were.

    With `follow` it goes on until the run has ended. Raises SettingsError when `run_dir` is no run folder or MLflow
    is not installed, and what MLflow says is wrong as one too.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise SettingsError("MLflow is not installed: pip install 'kuber[mlflow]'.") from None
    ...
