"""`kuber export`: the curves of a run, for the tools that draw curves."""

from pathlib import Path
from typing import Annotated

import typer

from kuber.errors import SettingsError


def export(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, or of an entity's own loop.", metavar="RUN_DIR")],
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="A new folder for TensorBoard's logs.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option("--mlflow", metavar="URI", help="Where MLflow tracks: sqlite:///FILE or http://HOST."),
    ] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", metavar="NAME", help="Of MLflow; made when there is none.")
    ] = "kuber",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
) -> None:
    """Write a run's accuracies, gains, losses and bytes for TensorBoard or MLflow."""
    if (tensorboard is None) == (mlflow is None):
        raise SettingsError("Say where to: --tensorboard DIR or --mlflow URI, and one of them.")
    if tensorboard is not None:
        from kuber.integrations import tensorboard as curves

        count, where = curves.write(run_dir, tensorboard, follow=follow), str(tensorboard)
    else:
        from kuber.integrations import mlflow as metrics

        assert mlflow is not None
        count, where = metrics.write(run_dir, uri=mlflow, experiment=experiment, follow=follow), mlflow
    print(f"{count} numbers of {run_dir} are in {where}.")
