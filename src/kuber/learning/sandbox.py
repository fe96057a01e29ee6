"""Resource limits for a process that runs an untrusted model. Standard library only, because it is loaded first."""

import resource
from pathlib import Path

PROCESS_STATUS = Path("/proc/self/statm")


def confine(*, memory_bytes: int, cpu_seconds: int | None = None) -> None:
    """Limit this process to `memory_bytes` more than it has now, and forbid it to write files or dump core.

    With `cpu_seconds` the system kills it after that much more CPU time; its parent sees the exit.
    """
    pages = int(PROCESS_STATUS.read_text().split()[0]) if PROCESS_STATUS.exists() else 0
    memory = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if cpu_seconds is not None:
        used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_seconds, used + cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
