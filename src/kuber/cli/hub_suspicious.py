"""`kuber hub suspicious`: publishers whose claims other entities contradict, and copies."""

import json
import textwrap
from dataclasses import asdict
from typing import Annotated

import typer

from kuber.cli.hub_options import DEFAULT_REGISTRY, OPERATOR_TOKEN, AdminToken, RegistryUrl, as_operator
from kuber.cli.setting_options import Ca
from kuber.cli.terminal import say

WIDTH = 79  # columns


def suspicious(
    as_json: Annotated[bool, typer.Option("--json", help="Print each record as a line of JSON.")] = False,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    admin_token: AdminToken = OPERATOR_TOKEN,
    ca: Ca = None,
) -> None:
    """Print contradicted claims, and copies.

    Whose claims others contradict, who contradicts them, and who publishes copies of the models of others.
    No line is a proof: an entity that attests may lie too. Compare with `kuber knowledge show ID`.
    """
    from kuber.views.formatting import printable
    from kuber.views.suspicion import by_publisher

    with as_operator(registry, admin_token, ca) as operator:
        found = operator.suspicions()
    if as_json:
        for each in found:
            say(json.dumps(asdict(each)))
        return
    if not found:
        say("No claim is contradicted, and no record is a copy.")
    for publisher in by_publisher(found):
        text = f"{printable(publisher.publisher)}: {publisher.facts}"
        for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False):
            say(line)
        ids = ", ".join(record.knowledge for record in publisher.records[:2])
        rest = len(publisher.records) - 2
        say(f"  {ids}" + (f" and {rest} more" if rest > 0 else ""))
