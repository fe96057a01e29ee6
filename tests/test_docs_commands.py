"""Blocks of commands on the operator's pages run as they stand, in a fresh folder.

A block that cannot be run has a comment before it: `<!-- not run: REASON -->`.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["hub.md", "security.md", "deploying.md"]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?^```(?:console|bash)\n(?P<text>.*?)^```", re.M | re.S)
SERVICE = re.compile(r"kuber (registry|vault|dashboard)\b.*&$", re.S)
SECONDS = 300  # for a page, on a busy machine
PORTS = (5001, 5002)  # of the services, unless they are given others

# Starts `kuber` as a user does; a service that was started in the background is waited for, as a person would.
PRELUDE = """
set -eu -o pipefail
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
up() {
    for _ in $(seq 600); do grep -q "is up at" "$1" && return; sleep 0.05; done
    cat "$1" "$1.err" >&2; return 1
}
"""


def blocks(page: str) -> list[tuple[str, str | None]]:
    """The blocks of commands of a page, each with the reason why it is not run, if there is one."""
    found = BLOCK.finditer((DOCS / page).read_text(encoding="utf-8"))
    return [(block["text"], block["reason"]) for block in found]


def commands(block: str) -> list[str]:
    """The commands of a block, without prompts and output; a command may continue on further lines."""
    lines: list[str] = []
    for line in block.splitlines():
        if lines and lines[-1].endswith("\\"):
            lines[-1] = f"{lines[-1]}\n{line}"
        elif line.startswith("$ "):
            lines.append(line.removeprefix("$ "))
    return [re.sub(r"\s+# .*$", "", line, flags=re.M) for line in lines]


def script(page: str) -> str:
    """One bash script with the commands of all blocks of a page that can be run."""
    text, services = [PRELUDE], 0
    for block, reason in blocks(page):
        for command in [] if reason else commands(block):
            text.append(f"echo {shlex.quote(command)} >&2")
            if SERVICE.search(command):
                services += 1
                log = f"service-{services}.log"
                text += [f"{command.removesuffix('&')} > {log} 2> {log}.err &", f"up {log}"]
            else:
                text.append(command)
    return "\n".join(text)


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_run_or_says_why_not(page):
    for text, reason in blocks(page):
        assert reason or commands(text), f"{page}: a block without commands needs a reason: {text[:60]}"
        assert reason is None or len(reason) > 10


@pytest.mark.parametrize("page", [page for page in PAGES if any(reason is None for _, reason in blocks(page))])
@pytest.mark.process
def test_blocks_run_as_they_stand(page, tmp_path):
    assert shutil.which("bash"), "install bash"
    assert shutil.which("openssl"), "install openssl; `make nginx` does"
    alone = ["unshare", "-rn"]  # with a loopback interface of its own: others may use the same ports
    up = "ip link set lo up"
    if not succeeds([*alone, "bash", "-c", up]):
        alone, up = [], "true"
        for port in PORTS:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                pytest.fail(f"port {port}, which the page uses, is taken; stop what uses it")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "kuber"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kuber "$@"\n')
    program.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KUBER_")}
    environ |= {"PATH": f"{program.parent}:{environ['PATH']}", "HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*alone, "bash", "-c", f"{up}\n{script(page)}"],
        cwd=home,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
