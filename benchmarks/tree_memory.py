"""Peak memory of a process tree: the sum of proportional set sizes."""

import threading
from pathlib import Path

import psutil


class TreeMemory:
    """Samples the memory of a process tree four times per second, in a thread. A context manager.

    Proportional: a page that n processes map counts 1/n for each. `anonymous` excludes pages of files, which the
    kernel can evict. A sample reads /proc/PID/smaps_rollup, which takes about a millisecond per process.
    """

    def __init__(self, pid: int, seconds: float = 0.25) -> None:
        self.peak = self.peak_anonymous = 0.0
        self._pid = pid
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "TreeMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            whole, anonymous = look(self._pid)
            self.peak, self.peak_anonymous = max(self.peak, whole), max(self.peak_anonymous, anonymous)


def look(pid: int) -> tuple[float, float]:
    """Return the current memory in MB: total, and anonymous."""
    whole = anonymous = 0.0
    try:
        tree = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0.0, 0.0
    for process in tree:
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has ended meanwhile
            continue
        sizes = dict(line.split()[:2] for line in text.splitlines()[1:])
        whole += int(sizes["Pss:"]) / 1024
        anonymous += int(sizes["Pss_Anon:"]) / 1024
    return whole, anonymous
