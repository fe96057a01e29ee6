"""What a process that runs a stranger's model may take of this machine. Standard library only: it is loaded first."""

import resource
from pathlib import Path

PROCESS_STATUS = Path("/proc/self/statm")


def confine(*, memory_bytes: int, cpu_seconds: int | None = None) -> None:
    """From here on this process gets `memory_bytes` more than it has now, no files to write, and no core dump.

    With `cpu_seconds` it is ended after so much more time of a processor. Its end is seen by who started it.
    """
    pages = int(PROCESS_STATUS.read_text().split()[0]) if PROCESS_STATUS.exists() else 0
    memory = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if cpu_seconds is not None:
        used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_seconds, used + cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes no file
