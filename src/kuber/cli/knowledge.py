"""`kuber knowledge`: looking at what a hub holds, trying it out, and taking one's own back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kuber.cli.hub import REGISTRY_HERE, TOKEN, VAULT_HERE, AdminToken, RegistryUrl, VaultUrl, token_in
from kuber.cli.setting_options import Ca
from kuber.errors import SettingsError

if TYPE_CHECKING:
    from kuber.client.credentials import Credentials
    from kuber.client.registry import HttpRegistry
    from kuber.client.vault import HttpVault
    from kuber.domain.knowledge import Knowledge

knowledge = typer.Typer(help="Look at knowledge, try it out, take your own back.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="Id of the record, or how it begins, or how it ends.")]
TaskName = Annotated[str | None, typer.Option("--task", metavar="NAME", help="Of this task only.")]
IdentityFolder = Annotated[
    Path | None,
    typer.Option("--identity", metavar="DIR", help="Ask as the entity whose key and token lie here."),
]
NARROW = 100  # columns below which a listing says less


@knowledge.command(name="list")
def list_records(
    task: TaskName = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many records.")] = 20,
    best: Annotated[bool, typer.Option("--best", help="The most accurate first, not the newest.")] = False,
    registry: RegistryUrl = REGISTRY_HERE,
    identity: IdentityFolder = None,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """List what is published, the newest first."""
    from rich.console import Console
    from rich.table import Table

    from kuber.domain.query import Query
    from kuber.views import percent, size

    with open_registry(registry, identity, admin_token, ca) as records:
        page = records.discover(Query(task=task, order="accuracy" if best else "newest", limit=limit))
        names = _names(records)
    console = Console(markup=False)  # names are their owners'
    table = Table()
    wide = console.width >= NARROW
    for column in ("id", "entity", "task", "round", "accuracy"):
        table.add_column(column, justify="right" if column in ("round", "accuracy") else "left", no_wrap=True)
    if wide:
        for column in ("architecture", "forms", "bytes"):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
    for one in page.items:
        row = [
            one.id[-12:],
            names.get(one.entity, one.entity)[:20],
            one.task.name[:20],
            str(one.round),
            percent(one.trusted.accuracy),
        ]
        total = sum(artifact.size for artifact in one.artifacts.values())
        told = [one.architecture.name.rpartition(".")[2], " ".join(sorted(one.artifacts)), size(total)]
        table.add_row(*row, *(told if wide else []))
    console.print(table)
    if page.cursor is not None:
        console.print(f"There are more than {limit}; --limit shows them.")


@knowledge.command()
def show(
    id: Id,
    registry: RegistryUrl = REGISTRY_HERE,
    identity: IdentityFolder = None,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Show a record: what it claims, what was found, whom it learnt from."""
    from rich.console import Console
    from rich.table import Table

    from kuber.views import percent, size

    with open_registry(registry, identity, admin_token, ca) as records:
        one = _record(records, id)
        names = _names(records)
        attested = records.attestations(one.id)
    table = Table(show_header=False, box=None)
    shape = "x".join(map(str, one.task.input_shape))
    table.add_row("id", one.id)
    table.add_row("entity", f"{names.get(one.entity, '?')} ({one.entity})")
    table.add_row("published", f"{one.published_at:%Y-%m-%d %H:%M:%S} UTC, round {one.round}")
    table.add_row("task", f"{one.task.name}: {one.task.classes} classes, samples of {shape}")
    arguments = ", ".join(f"{name}={value}" for name, value in one.architecture.arguments.items())
    table.add_row("architecture", f"{one.architecture.name}({arguments}), {len(one.architecture.manifest)} tensors")
    for kind, artifact in sorted(one.artifacts.items()):
        table.add_row(kind, f"{artifact.digest}, {size(artifact.size)}")
    table.add_row("evaluated on", "the common test set" if one.task.test_set else "its publisher's own data")
    table.add_row("claims", percent(one.evaluation.accuracy))
    if one.verification is not None:
        table.add_row("the hub", f"{one.verification.standing}: {one.verification.reason}")
    for found in attested:
        table.add_row("attested", f"{percent(found.evaluation.accuracy)} by {names.get(found.entity, found.entity)}")
    table.add_row("learnt from", ", ".join(parent[-12:] for parent in one.parents) or "nobody")
    console = Console(markup=False)  # names are their owners'
    console.print(table)
    recalls = Table(title="recall, as trusted")
    recalls.add_column("class")
    recalls.add_column("right", justify="right")
    recalls.add_column("of", justify="right")
    for label, correct, total in zip(one.task.labels, one.trusted.correct, one.trusted.total, strict=True):
        recalls.add_row(label, str(correct), str(total))
    console.print(recalls)


@knowledge.command()
def pull(
    id: Id,
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the files go.")] = Path("."),
    registry: RegistryUrl = REGISTRY_HERE,
    vault: VaultUrl = VAULT_HERE,
    identity: IdentityFolder = None,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Pull the files of a record, verified by their digests: ID.safetensors, ID.onnx, and the record as ID.json."""
    from kuber.wire import KnowledgeBody

    endings = {"weights": "safetensors"}
    with _hub(registry, vault, identity, admin_token, ca) as (records, blobs):
        one = _record(records, id)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, artifact in one.artifacts.items():
            path = folder / f"{one.id}.{endings.get(kind, kind)}"
            path.write_bytes(blobs.get(artifact.digest))
            print(path)
        path = folder / f"{one.id}.json"
        path.write_text(KnowledgeBody.of(one).model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
        print(path)


@knowledge.command()
def evaluate(
    id: Id,
    data: Annotated[
        Path, typer.Argument(help="An .npz file of x and y, or a folder with a folder of images a class.")
    ],
    mean: Annotated[str | None, typer.Option(metavar="X,...", help="Of each channel, of pixels from 0 to 1.")] = None,
    std: Annotated[str | None, typer.Option(metavar="X,...", help="Of each channel; with --mean.")] = None,
    registry: RegistryUrl = REGISTRY_HERE,
    vault: VaultUrl = VAULT_HERE,
    identity: IdentityFolder = None,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Evaluate a deposited model on data of your own, without any training."""
    from rich.console import Console
    from rich.table import Table

    from kuber.data.batches import Normalisation
    from kuber.verifier.local_evaluation import appraise, usual_normalisation
    from kuber.views import percent

    if (mean is None) != (std is None):
        raise SettingsError("--mean and --std are given together.")
    given = None if mean is None or std is None else Normalisation(_numbers(mean), _numbers(std))
    if not data.exists():
        raise SettingsError(f"There is no {data}; give an .npz file or a folder.")
    with _hub(registry, vault, identity, admin_token, ca) as (records, blobs):
        one = _record(records, id)
        found = appraise(one, blobs, data, normalisation=given)
    used = given or usual_normalisation(one)
    table = Table(title=f"{one.id[-12:]} on {data.name}")
    table.add_column("class")
    table.add_column("right", justify="right")
    table.add_column("of", justify="right")
    for label, correct, total in zip(one.task.labels, found.correct, found.total, strict=True):
        if total:
            table.add_row(label, str(correct), str(total))
    console = Console(markup=False)  # names are their owners'
    console.print(table)
    means, deviations = [", ".join(f"{value:.4g}" for value in values) for values in (used.mean, used.std)]
    console.print(
        f"Accuracy {percent(found.accuracy)} of {sum(found.total)} samples (mean {means}, std {deviations})."
    )
    console.print(f"Its publisher claims {percent(one.evaluation.accuracy)} on other data.")


@knowledge.command()
def withdraw(
    id: Id,
    identity: Annotated[Path, typer.Option("--identity", metavar="DIR", help="Of the entity that published it.")],
    registry: RegistryUrl = REGISTRY_HERE,
    ca: Ca = None,
) -> None:
    """Take a record of your own back: it is found no more."""
    with open_registry(registry, identity, TOKEN, ca) as records:
        one = _record(records, id)
        records.withdraw(one.id)
    print(f"The record {one.id} is withdrawn.")


@knowledge.command()
def tree(
    id: Annotated[str | None, typer.Argument(help="Of this record only; else of the newest of each entity.")] = None,
    task: TaskName = None,
    depth: Annotated[int, typer.Option(min=1, max=100, help="How far back.")] = 3,
    registry: RegistryUrl = REGISTRY_HERE,
    identity: IdentityFolder = None,
    admin_token: AdminToken = TOKEN,
    ca: Ca = None,
) -> None:
    """Draw who taught whom: below each record those that it learnt from."""
    from rich.console import Console
    from rich.markup import escape
    from rich.tree import Tree

    from kuber.domain.query import Query
    from kuber.views import percent

    with open_registry(registry, identity, admin_token, ca) as records:
        names = _names(records)
        if id is not None:
            roots: tuple[Knowledge, ...] = (_record(records, id),)
        else:
            roots = records.discover(Query(task=task, initial=False, latest=True, order="newest", limit=100)).items
        known = {one.id: one for one in roots}
        drawn: set[str] = set()

        def draw(branch: Tree, one: "Knowledge", left: int) -> None:
            line = f"{escape(names.get(one.entity, one.entity))}, round {one.round}: {percent(one.trusted.accuracy)}"
            again = one.id in drawn and bool(one.parents)
            drawn.add(one.id)
            twig = branch.add(f"{line} [dim]{one.id[-12:]}[/dim]" + (" [dim](above)[/dim]" if again else ""))
            if again or not one.parents:
                return
            if not left:
                twig.add(f"[dim]... and {len(one.parents)} before it[/dim]")
                return
            for parent in one.parents:
                if parent not in known:
                    known[parent] = records.knowledge(parent)
                draw(twig, known[parent], left - 1)

        trunk = Tree("newest knowledge, and below each what it learnt from" if id is None else "what it learnt from")
        for one in roots:
            draw(trunk, one, depth)
    Console().print(trunk)


@contextmanager
def open_registry(
    url: str, identity: Path | None, admin_token: Path, ca: Path | None, *, patience: float = 10.0
) -> Iterator["HttpRegistry"]:
    """The registry at `url`, asked as the operator, or as the entity whose folder `identity` is."""
    from kuber.client.registry import HttpRegistry

    credentials = credentials_of(identity, admin_token)
    with HttpRegistry(url, credentials=credentials, patience=patience, ca=ca) as records:
        records.check()
        yield records


def credentials_of(identity: Path | None, admin_token: Path) -> "Credentials":
    """What to ask a hub with: the operator's token, or that of the entity whose folder `identity` is."""
    from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
    from kuber.signing import Identity

    if identity is None:
        return Credentials(token=token_in(admin_token))
    if not (identity / TOKEN_FILE).exists():
        raise SettingsError(f"There is no token of an entity in {identity}; it gets one when it joins.")
    return Credentials(Identity.load_or_create(identity / KEY_FILE), path=identity / TOKEN_FILE)


@contextmanager
def _hub(
    registry: str, vault: str, identity: Path | None, admin_token: Path, ca: Path | None
) -> Iterator[tuple["HttpRegistry", "HttpVault"]]:
    from kuber.client.vault import HttpVault

    with (
        open_registry(registry, identity, admin_token, ca) as records,
        HttpVault(vault, credentials=records.credentials, ca=ca) as blobs,
    ):
        blobs.check()
        yield records, blobs


def _record(records: "HttpRegistry", id: str) -> "Knowledge":
    """The record with this id, or the only one of the newest 1,000 whose id begins or ends so."""
    from kuber.domain.query import MAX_LIMIT, Query
    from kuber.errors import KnowledgeNotFoundError

    try:
        return records.knowledge(id)
    except KnowledgeNotFoundError:
        page = records.discover(Query(order="newest", limit=MAX_LIMIT)).items
        found = [one for one in page if one.id.startswith(id) or one.id.endswith(id)]
        if len(found) != 1:
            count = "no" if not found else f"{len(found)}"
            raise SettingsError(f"There is {count} record whose id is, begins or ends with {id!r}.") from None
        return found[0]


def _names(records: "HttpRegistry") -> dict[str, str]:
    names: dict[str, str] = {}
    cursor = None
    while True:
        page = records.members(limit=1000, cursor=cursor)
        names |= {member.id: member.name for member in page.items}
        if page.cursor is None:
            return names
        cursor = page.cursor


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"{text!r} is no list of numbers; give one for each channel, with commas.") from None
