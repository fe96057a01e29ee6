"""`kuber export`: the curves of a run, for TensorBoard or MLflow."""

from pathlib import Path
from typing import Annotated

import typer

from kuber.cli.terminal import say
from kuber.errors import SettingsError


def export(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, or of a `kuber.Entity`.", metavar="RUN_DIR")],
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="New folder for TensorBoard event files.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option("--mlflow", metavar="URI", help="MLflow tracking URI: sqlite:///FILE or http://HOST."),
    ] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", metavar="NAME", help="MLflow experiment; created if missing.")
    ] = "kuber",
    follow: Annotated[bool, typer.Option("--follow", help="Keep exporting until the run has ended.")] = False,
) -> None:
    """Export the curves of a run to TensorBoard or MLflow. They are accuracies, gains, losses and bytes."""
    if (tensorboard is None) == (mlflow is None):
        raise SettingsError("Give either --tensorboard DIR or --mlflow URI.")
    if tensorboard is not None:
        from kuber.integrations import tensorboard as curves

        count, where = curves.write(run_dir, tensorboard, follow=follow), str(tensorboard)
    else:
        from kuber.integrations import mlflow as metrics

        assert mlflow is not None
        count, where = metrics.write(run_dir, uri=mlflow, experiment=experiment, follow=follow), mlflow
    say(f"Exported {count} values of {run_dir} to {where}.")
