"""The dashboard application: pages, downloads, and security headers."""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from nicegui import app as pages
from nicegui import ui
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.dashboard.context import PageContext
from kuber.dashboard.hub_feed import HubFeed
from kuber.dashboard.hub_reader import HubReader
from kuber.dashboard.layout import frame
from kuber.dashboard.pages.runs import REPORT
from kuber.domain.address import is_loopback
from kuber.errors import KnowledgeNotFoundError, KUberError
from kuber.services.http.application import STATUSES
from kuber.views.entity_logs import EntityLogs
from kuber.wire.problem import problem_from

STYLE = Path(__file__).parent / "style.css"
RECONNECT_SECONDS = 30.0  # for which a disconnected tab keeps its state
# Vue compiles templates in the browser. Nothing is loaded from, or sent to, anywhere else.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; "
    "form-action 'self'; object-src 'none'"
)

# A report may come from someone else, so it may not run scripts.
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"


@contextlib.contextmanager
def open_dashboard(
    registry: HttpRegistry,
    vault: HttpVault,
    *,
    runs: Path,
    entities: Path | None,
    host: str,
    ca: Path | None = None,
    pinned_keys: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[FastAPI]:
    """Open the application that shows a hub and the runs of a folder.

    The logs of its entities are looked up in that folder, and in `entities`, the folder of those with custom loops.
    `pinned_keys` are public keys by entity id, with which signatures are checked.
    """
    reader = HubReader(registry, vault, ca=ca, pinned_keys=pinned_keys)
    logs = EntityLogs(runs, *([] if entities is None else [entities]))
    context = PageContext(feed=HubFeed(registry), reader=reader, runs=runs, logs=logs)
    app = FastAPI(title="KUber dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Headers)
    if is_loopback(host):  # prevents DNS rebinding
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])
    add_routes(app, context)
    ui.add_css(STYLE, shared=True)
    ui.run_with(
        app,
        root=lambda: frame(context),
        title="KUber",
        favicon=FAVICON,
        dark=None,
        language="en-US",
        tailwind=False,
        reconnect_timeout=RECONNECT_SECONDS,
        show_welcome_message=False,
    )
    # No loading bar for background requests: it has no accessible name.
    pages.config.quasar_config["loadingBar"]["skipHijack"] = True
    context.feed.open()
    try:
        yield app
    finally:
        context.feed.close()


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the routes that are not pages: health, downloads and reports."""

    @app.get("/healthz")
    def health() -> JSONResponse:
        feed = context.feed
        state = {"hub": feed.offline is None, "events": feed.view.last}
        return JSONResponse({"status": "ok", "service": "dashboard"} | state)

    @app.get("/download/{id}/{kind}")
    async def download(id: str, kind: str) -> Response:
        """Return a file of a record; bytes and signature are verified before its first byte is sent."""
        data, name = await asyncio.to_thread(context.reader.file, id, kind)
        disposition = f"attachment; filename*=UTF-8''{quote(name)}"
        return Response(data, media_type="application/octet-stream", headers={"Content-Disposition": disposition})

    @app.get("/report/{name}")
    def report(name: str) -> Response:
        """Return the report of a run."""
        path = os.path.join(context.runs, name, REPORT)
        if name in ("", ".", "..") or "/" in name or "\0" in name or not os.path.isfile(path):
            raise KnowledgeNotFoundError(f"There is no report of the run {name[:100]!r}.")
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    @app.exception_handler(KUberError)
    async def on_error(request: Request, error: KUberError) -> Response:
        status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 502)
        body = problem_from(error, status).model_dump_json()
        return Response(body, status, media_type="application/problem+json")


class _Headers:
    """Middleware that sets the security headers of every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", POLICY)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path fill="none" stroke="#0072B2" stroke-width="3" '
    'd="M8 24 16 8l8 16"/><circle cx="8" cy="24" r="5" fill="#009E73"/><circle cx="24" cy="24" r="5" fill="#D55E00"/>'
    '<circle cx="16" cy="8" r="5" fill="#0072B2"/></svg>'
)
