"""`kuber run --dashboard`: web pages while a run lasts."""

import re
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fixtures.commands import Command
from tests.fixtures.waiting import wait_until

TINY = (
    "--dataset",
    "digits",
    "--architecture",
    "mlp",
    "--num-entities",
    "2",
    "--num-rounds",
    "100000",  # it is stopped long before
    "--local-epochs",
    "1",
)


@pytest.mark.process
def test_a_run_prints_the_address_of_its_pages_and_stops_them(tmp_path: Path) -> None:
    with Command("run", "--dashboard", *TINY, folder=tmp_path) as run:
        assert run.stderr is not None
        address, lines = None, []
        for line in run.stderr:
            lines.append(line)
            found = re.search(r"The dashboard is at (http://\S+)\.", line)
            if found:
                address = found[1]
                break
        assert address is not None, "".join(lines)
        health = httpx.get(f"{address}/healthz").json()
        assert (health["service"], health["status"]) == ("dashboard", "ok")
        wait_until(lambda: httpx.get(f"{address}/healthz").json()["events"] >= 4, "events on the pages")
        run.terminate()
        run.communicate()
    assert run.returncode == 130
    processes = psutil.process_iter(["cmdline"])
    left = [process for process in processes if str(tmp_path) in " ".join(process.info["cmdline"] or ())]
    assert left == []
