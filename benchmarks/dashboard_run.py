"""Overhead of the dashboard on the wall time of `kuber run`, with its overview open in a tab.

Runs with and without `--dashboard` alternate. The tab is a client that receives everything a browser would and draws
nothing, because the work of a browser is not that of the dashboard. The ratio of wall times includes the noise of
machine and run; so the CPU time of the dashboard's process is printed too, as a share of all cores.

    python benchmarks/dashboard_run.py --pairs 4
"""

import argparse
import ast
import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import httpx
import psutil
import socketio
from hub_site import report

PRESET = ("--preset", "quick")


async def read(url: str, got: dict[str, int]) -> None:
    """Act as a tab on the overview until the dashboard ends."""
    async with httpx.AsyncClient() as client:
        html = (await client.get(url)).text
    found = re.search(r"query: (\{.*?\}),\n", html)
    assert found is not None
    options = ast.literal_eval(found[1])  # a Python literal in the page
    query = urlencode({**options, "implicit_handshake": "true", "document_id": "bench", "tab_id": "bench"})
    tab = socketio.AsyncClient(reconnection=False)

    @tab.on("run_javascript")
    async def answer(message: dict) -> None:
        got["messages"] += 1
        if "request_id" in message:
            reply = {"request_id": message["request_id"], "client_id": options["client_id"], "result": False}
            await tab.emit("javascript_response", reply)

    @tab.on("*")
    async def take(_: str, message: object) -> None:
        got["messages"] += 1

    await tab.connect(f"{url}?{query}", socketio_path="/_nicegui_ws/socket.io", transports=["websocket"])
    await tab.wait()


def run(folder: Path, options: list[str], *, dashboard: bool) -> dict[str, float]:
    """Return the wall seconds of one run, start-up included, and the CPU seconds of its dashboard."""
    command = [sys.executable, "-m", "kuber", "run", "--json", *options, "--runs-dir", str(folder)]
    command += ["--dashboard"] * dashboard
    got = {"messages": 0}
    computed = 0.0
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        pages: psutil.Process | None = None
        for line in process.stderr:
            found = re.search(r"The dashboard is at (http://\S+)\.", line)
            if found:
                threading.Thread(target=lambda url=found[1]: asyncio.run(read(url, got)), daemon=True).start()
                children = psutil.Process(process.pid).children()
                pages = next(child for child in children if "dashboard" in child.cmdline())
            if pages is not None:
                try:
                    times = pages.cpu_times()
                    computed = times.user + times.system
                except psutil.NoSuchProcess:
                    pages = None
        process.communicate()
    assert process.returncode == 0
    return {"wall": time.perf_counter() - start, "computed": computed, **got}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4)
    arguments, options = parser.parse_known_args()
    options = options or list(PRESET)
    ratios, shares, messages = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        for turn in range(arguments.pairs):
            order = (True, False) if turn % 2 else (False, True)  # the speed of the machine drifts
            found = {with_it: run(Path(temporary), options, dashboard=with_it) for with_it in order}
            ratios.append(found[True]["wall"] / found[False]["wall"])
            shares.append(found[True]["computed"] / (psutil.cpu_count() * found[True]["wall"]))
            messages.append(found[True]["messages"])
            walls = {"with": round(found[True]["wall"], 1), "without": round(found[False]["wall"], 1)}
            report(f"pair {turn + 1}, seconds", "", **walls, computed=round(found[True]["computed"], 1))
    report(
        "wall time of a run with the dashboard open / without",
        "< 1.05",
        median=round(statistics.median(ratios), 3),
        low=round(min(ratios), 3),
        high=round(max(ratios), 3),
        share_of_all_cores=round(statistics.median(shares), 4),
        messages_to_the_tab=round(statistics.median(messages)),
    )


if __name__ == "__main__":
    main()
