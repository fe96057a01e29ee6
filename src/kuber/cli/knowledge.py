"""`kuber knowledge`: inspect, pull, evaluate and withdraw the knowledge of a hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kuber.cli.hub_options import (
    DEFAULT_REGISTRY,
    DEFAULT_VAULT,
    OPERATOR_TOKEN,
    AdminToken,
    IdentityFolder,
    RegistryUrl,
    VaultUrl,
    open_hub,
    open_registry,
)
from kuber.cli.setting_options import Ca
from kuber.cli.terminal import say
from kuber.errors import SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from kuber.client.registry import HttpRegistry
    from kuber.domain.evaluation import Evaluation
    from kuber.domain.knowledge import Knowledge

knowledge = typer.Typer(
    help="Inspect, pull, evaluate or withdraw knowledge.", no_args_is_help=True, rich_markup_mode=None
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the record, or its beginning or end.")]
TaskName = Annotated[str | None, typer.Option("--task", metavar="NAME", help="Only records of this task.")]
WIDE = 100  # columns from which on a listing has more columns


@knowledge.command(name="list")
def list_records(
    task: TaskName = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Number of records to list.")] = 20,
    best: Annotated[
        bool, typer.Option("--best", help="List the most accurate first, instead of the newest.")
    ] = False,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    identity: IdentityFolder = None,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """List published knowledge, newest first."""
    from rich.table import Table

    from kuber.cli.console import Console
    from kuber.domain.query import Query, collect
    from kuber.views.evaluation_set import COMMON, comparison_note, ranked_by, set_name
    from kuber.views.formatting import size

    with open_registry(registry, identity, admin_token, ca) as records:
        page = collect(records.discover, Query(task=task, order="accuracy" if best else "newest", limit=limit))
        names = _names(records)
    console = Console(markup=False)  # names are their owners'
    table = Table()
    wide = console.width >= WIDE
    sets = [set_name(record) for record in page.items]
    own = any(name != COMMON for name in sets)  # only then the sets differ within a task
    columns = ["id", "entity", "task", "round", "accuracy"]
    for column in (*columns, *(["set"] if own else []), *(("architecture", "files", "size") if wide else ())):
        table.add_column(column, justify="right" if column in ("round", "accuracy") else "left", no_wrap=True)
    for record in page.items:
        row = [
            record.id[-12:],
            names.get(record.entity, record.entity)[: 20 if wide else 14],
            record.task.name[: 20 if wide else 14],
            str(record.round),
            ranked_by(record),
            *([set_name(record)] if own else []),
        ]
        total = sum(artifact.size for artifact in record.artifacts.values())
        details = [record.architecture.name.rpartition(".")[2], " ".join(sorted(record.artifacts)), size(total)]
        table.add_row(*row, *(details if wide else []))
    console.print(table)
    note = comparison_note(f"{record.task.name} {record.trusted.test_set}" for record in page.items)
    if note and best:
        console.print(note)
    if page.cursor is not None:
        console.print(f"There are more than {limit} records; raise --limit to see them.")
    if page.omitted:
        say(f"{len(page.omitted)} records are too large to be listed: {', '.join(page.omitted[:10])}.")


@knowledge.command()
def show(
    id: Id,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    identity: IdentityFolder = None,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Show a record: accuracies, files and parents."""
    from rich.table import Table

    from kuber.cli.console import Console
    from kuber.views.evaluation_set import claimed, describe_set, shown_evaluation
    from kuber.views.formatting import percent, size
    from kuber.views.stated_prior import describe_prior

    with open_registry(registry, identity, admin_token, ca) as records:
        record = _record(records, id)
        names = _names(records)
        attested = records.attestations(record.id)
    table = Table(show_header=False, box=None)
    shape = "x".join(map(str, record.task.input_shape))
    table.add_row("id", record.id)
    table.add_row("entity", f"{names.get(record.entity, '?')} ({record.entity})")
    table.add_row("published", f"{record.published_at:%Y-%m-%d %H:%M:%S} UTC, round {record.round}")
    table.add_row("task", f"{record.task.name}: {record.task.classes} classes, samples of {shape}")
    arguments = ", ".join(f"{name}={value}" for name, value in record.architecture.arguments.items())
    table.add_row(
        "architecture", f"{record.architecture.name}({arguments}), {len(record.architecture.manifest)} tensors"
    )
    prior = describe_prior(record)
    if prior is not None:
        table.add_row("prior", prior)
    for kind, artifact in sorted(record.artifacts.items()):
        table.add_row(kind, f"{artifact.digest}, {size(artifact.size)}")
    table.add_row("evaluated on", describe_set(record))
    table.add_row("claimed", claimed(record))
    if record.verification is not None:
        table.add_row("verdict", f"{record.verification.standing}: {record.verification.reason}")
    for found in attested:
        table.add_row("attested", f"{percent(found.evaluation.accuracy)} by {names.get(found.entity, found.entity)}")
    table.add_row("learned from", ", ".join(parent[-12:] for parent in record.parents) or "no other record")
    console = Console(markup=False)  # names are their owners'
    console.print(table)
    by_class = shown_evaluation(record)
    if by_class is not None:
        console.print(_class_table("accuracy by class", record.task.labels, by_class))


@knowledge.command()
def pull(
    id: Id,
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for the files.")] = Path("."),
    registry: RegistryUrl = DEFAULT_REGISTRY,
    vault: VaultUrl = DEFAULT_VAULT,
    identity: IdentityFolder = None,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Pull a record and its files, verified. Writes ID.safetensors, ID.onnx and ID.json."""
    from kuber.client.record_files import check_kinds, check_origin, write_files
    from kuber.entity.state.pinned_keys import read_pinned_keys

    with open_hub(registry, vault, identity, admin_token, ca) as (records, blobs):
        record = _record(records, id)
        check_kinds(record)
        check_origin(record, records, {} if identity is None else read_pinned_keys(identity))
        for path in write_files(record, blobs, folder):
            say(path)


@knowledge.command()
def evaluate(
    id: Id,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="An .npz file with x and y, or a folder with one folder of images per class."
        ),
    ],
    mean: Annotated[
        str | None, typer.Option(metavar="X,...", help="Mean of each channel, for pixels from 0 to 1.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="X,...", help="Standard deviation of each channel; needs --mean.")
    ] = None,
    prior: Annotated[
        Literal["as-published", "own", "uniform"],
        typer.Option(
            help="Class frequencies to which the logits are adjusted: those of the labels of DATA (own), equal "
            "ones, or those that they have."
        ),
    ] = "as-published",
    registry: RegistryUrl = DEFAULT_REGISTRY,
    vault: VaultUrl = DEFAULT_VAULT,
    identity: IdentityFolder = None,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Evaluate a published model on your own data, without training. Its signature is checked."""
    from kuber.cli.console import Console
    from kuber.client.record_files import check_origin
    from kuber.data.batches import Normalisation
    from kuber.entity.state.pinned_keys import read_pinned_keys
    from kuber.verifier.local_evaluation import default_normalisation, evaluate_locally
    from kuber.views.evaluation_set import claimed
    from kuber.views.formatting import percent

    if (mean is None) != (std is None):
        raise SettingsError("--mean and --std must be given together.")
    given = None if mean is None or std is None else Normalisation(_numbers(mean), _numbers(std))
    if not data.exists():
        raise SettingsError(f"{data} does not exist; give an .npz file or a folder.")
    with open_hub(registry, vault, identity, admin_token, ca) as (records, blobs):
        record = _record(records, id)
        check_origin(record, records, {} if identity is None else read_pinned_keys(identity))
        found = evaluate_locally(record, blobs, data, normalisation=given, prior=prior)
    used = given or default_normalisation(record)
    console = Console(markup=False)  # names are their owners'
    console.print(_class_table(f"{record.id[-12:]} on {data.name}", record.task.labels, found))
    means, deviations = [", ".join(f"{value:.4g}" for value in values) for values in (used.mean, used.std)]
    console.print(
        f"Accuracy {percent(found.accuracy)} on {sum(found.total)} samples (mean {means}, std {deviations})."
    )
    if prior != "as-published":
        frequencies = "of the labels of these data" if prior == "own" else "that are equal"
        console.print(f"Its logits are adjusted to class frequencies {frequencies}.")
    console.print(f"Its publisher claims {claimed(record)} on other data.")


@knowledge.command()
def withdraw(
    id: Id,
    identity: Annotated[
        Path, typer.Option("--identity", metavar="DIR", help="Folder with the publishing entity's key and token.")
    ],
    registry: RegistryUrl = DEFAULT_REGISTRY,
    ca: Ca = None,
) -> None:
    """Withdraw a record of your own: discovery no longer returns it."""
    with open_registry(registry, identity, OPERATOR_TOKEN, ca) as records:
        record = _record(records, id)
        records.withdraw(record.id)
    say(f"The record {record.id} is withdrawn.")


@knowledge.command()
def tree(
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Id of a record; if not given, the latest of each entity.")
    ] = None,
    task: TaskName = None,
    depth: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="Generations to draw.")] = 3,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    identity: IdentityFolder = None,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Draw the lineage of knowledge. Below each record are those that it learned from."""
    from rich.markup import escape
    from rich.tree import Tree

    from kuber.cli.console import Console
    from kuber.domain.query import Query, collect
    from kuber.views.evaluation_set import ranked_by

    with open_registry(registry, identity, admin_token, ca) as records:
        names = _names(records)
        if id is not None:
            roots: tuple[Knowledge, ...] = (_record(records, id),)
        else:
            query = Query(task=task, initial=False, latest=True, order="newest", limit=100)
            roots = collect(records.discover, query).items
        known = {record.id: record for record in roots}
        drawn: set[str] = set()

        def draw(branch: Tree, record: "Knowledge", depth: int) -> None:
            name, accuracy = escape(names.get(record.entity, record.entity)), ranked_by(record)
            again = record.id in drawn and bool(record.parents)
            drawn.add(record.id)
            twig = branch.add(
                f"{name}, round {record.round}: {accuracy} [dim]{record.id[-12:]}[/dim]"
                + (" [dim](above)[/dim]" if again else "")
            )
            if again or not record.parents:
                return
            if not depth:
                twig.add(f"[dim]... and {len(record.parents)} parents[/dim]")
                return
            for parent in record.parents:
                if parent not in known:
                    known[parent] = records.knowledge(parent)
                draw(twig, known[parent], depth - 1)

        title = "latest knowledge of each entity, and what it learned from" if id is None else "what it learned from"
        trunk = Tree(title)
        for record in roots:
            draw(trunk, record, depth)
    Console().print(trunk)


def _class_table(title: str, labels: tuple[str, ...], evaluation: "Evaluation") -> "Table":
    from rich.table import Column, Table

    table = Table("class", Column("correct", justify="right"), Column("samples", justify="right"), title=title)
    for label, correct, total in zip(labels, evaluation.correct, evaluation.total, strict=True):
        if total:
            table.add_row(label, str(correct), str(total))
    return table


def _record(records: "HttpRegistry", id: str) -> "Knowledge":
    """Return the record with this id, or the only one whose id begins or ends with it."""
    from kuber.client.short_ids import record_id
    from kuber.errors import KnowledgeNotFoundError

    try:
        return records.knowledge(record_id(records, id))
    except KnowledgeNotFoundError:
        raise SettingsError(f"There is no record whose id begins or ends with {id[:100]!r}.") from None


def _names(records: "HttpRegistry") -> dict[str, str]:
    from kuber.client.short_ids import names_of_entities

    return names_of_entities(records)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(
            f"{text!r} is not a list of numbers; give one for each channel, separated by commas."
        ) from None
