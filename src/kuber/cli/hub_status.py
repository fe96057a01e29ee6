"""`kuber hub status`: one page of numbers of a hub."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from kuber.cli.hub_options import (
    DEFAULT_REGISTRY,
    DEFAULT_VAULT,
    OPERATOR_TOKEN,
    AdminToken,
    RegistryUrl,
    VaultUrl,
    token_in,
)
from kuber.cli.setting_options import Ca
from kuber.cli.terminal import say
from kuber.errors import ServiceError

if TYPE_CHECKING:
    from kuber.client.http import HttpService
    from kuber.views.hub_status import NoStatus
    from kuber.wire.base import Message

ANSWER_SECONDS = 10.0
HEALTH_SECONDS = 3.0

T = TypeVar("T")


def status(
    registry: RegistryUrl = DEFAULT_REGISTRY,
    vault: VaultUrl = DEFAULT_VAULT,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print one page of numbers on the hub.

    Its contents, growth, sizes and last backup. Exits with 4 if a service gives none.
    """
    from kuber.client.admin import AdminClient
    from kuber.client.credentials import Credentials
    from kuber.client.vault import HttpVault
    from kuber.views.hub_status import NoStatus, status_lines

    token = token_in(admin_token)
    with (
        AdminClient(registry, token, patience=0, ca=ca) as records,
        HttpVault(vault, credentials=Credentials(token=token), patience=0, ca=ca) as blobs,
    ):
        found = _answer(records, records.status)
        stored = _answer(blobs, blobs.status)
    if as_json:
        lines = json.dumps({"registry": _json(found), "vault": _json(stored)}, indent=2).splitlines()
    else:
        lines = status_lines(found, stored, addresses=(registry, vault))
    for line in lines:
        say(line)
    if isinstance(found, NoStatus) or isinstance(stored, NoStatus):
        raise typer.Exit(ServiceError.exit_code)


def _answer(service: "HttpService", ask: Callable[..., T]) -> "T | NoStatus":
    """Return what a service answers, or why it does not."""
    from kuber.views.hub_status import NoStatus

    try:
        return ask(timeout=ANSWER_SECONDS)
    except ServiceError as error:
        try:
            service.check(timeout=HEALTH_SECONDS)
        except ServiceError:
            return NoStatus(reason=error.message)
        return NoStatus(reason=error.message, runs=True)


def _json(answer: "Message | NoStatus") -> dict[str, Any]:
    from kuber.views.hub_status import NoStatus

    if isinstance(answer, NoStatus):
        return {"error": answer.reason, "runs": answer.runs}
    return answer.model_dump(mode="json")
