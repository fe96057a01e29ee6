"""Denial of files, network and other processes to this process, by the Linux kernel: Landlock and seccomp.

Landlock (kernel 5.13 and later) denies to open, make or run files, to connect and to send signals. A seccomp filter
denies every system call but those that computing on open pipes needs. Each holds without the other; neither can be
undone. Standard library only, because it is loaded first.

The calls are made through ctypes, because no library on PyPI does both to a running process: `pyseccomp` was last
released in 2021 and needs libseccomp, `sandlock` starts commands under a supervisor and, for a running process,
applies Landlock to files alone.
"""

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Sequence

ProgramLine = tuple[int, int, int, int]  # of the kernel's BPF: operation, jump if true, jump if false, operand

_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _RESTRICT_SELF, _LANDLOCK_VERSION = 444, 446, 1  # of Landlock, on every architecture
_SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* of linux/audit.h
_SET_FILTER, _ALL_THREADS = 1, 1
_ALLOW, _DENY, _NO_SUCH_CALL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # operations
_CALL, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # places in the kernel's struct seccomp_data
_X32 = 0x40000000  # system calls of the x32 interface have this bit
_CLONE_THREAD = 0x00010000

# Numbers on x86_64 and aarch64: asm/unistd_64.h and asm-generic/unistd.h.
_CLONE, _CLONE3, _TGKILL = (56, 220), (435, 435), (234, 131)
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "close": (3, 57),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getrandom": (318, 278),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettid": (186, 178),
    "getpid": (39, 172),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getcpu": (309, 168),
    "getrusage": (98, 165),
    "times": (100, 153),
    "gettimeofday": (96, 169),
    "restart_syscall": (219, 128),
    "ppoll": (271, 73),
}


def deny_files_and_network() -> tuple[str, ...]:
    """Deny this process files, network and other processes; return what holds: `landlock`, `seccomp`, both or none.

    Files and pipes that are open stay usable. Threads of the process that exist already are under seccomp only.
    """
    if not sys.platform.startswith("linux"):
        return ()
    applied = []
    for name, apply in (("landlock", _apply_landlock), ("seccomp", _apply_seccomp)):
        try:
            apply()
        except OSError:  # the kernel has no such thing, or something forbids its use
            continue
        applied.append(name)
    return tuple(applied)


def _apply_landlock() -> None:
    version = system_call(_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    files = (1 << 13) - 1  # the first version's: run, write, read, list, remove, make
    files |= sum(1 << bit for bit, since in ((13, 2), (14, 3), (15, 5)) if version >= since)  # move, cut, ioctl
    network = 3 if version >= 4 else 0  # bind and connect of TCP
    scopes = 3 if version >= 6 else 0  # abstract sockets and signals
    handled = (ctypes.c_uint64 * 3)(files, network, scopes)  # all that is handled and has no rule is denied
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = system_call(_CREATE_RULESET, handled, size, 0)
    try:
        _forbid_new_privileges()
        system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _apply_seccomp() -> None:
    machine = platform.machine()
    if machine not in _SECCOMP_CALL or sys.maxsize < 1 << 32:  # a 32-bit Python makes other calls
        raise OSError(errno.ENOSYS, "the system calls of this processor are not known")
    lines = seccomp_program(machine, os.getpid())
    code = b"".join(
        operation.to_bytes(2, "little") + bytes((yes, no)) + operand.to_bytes(4, "little")
        for operation, yes, no, operand in lines
    )
    program = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))

    _forbid_new_privileges()
    argument = Program(len(lines), ctypes.addressof(program))
    if system_call(_SECCOMP_CALL[machine], _SET_FILTER, _ALL_THREADS, ctypes.byref(argument)) != 0:
        raise OSError(errno.EAGAIN, "a thread has a filter of its own")


def seccomp_program(machine: str, process: int) -> Sequence[ProgramLine]:
    """Return the filter for a machine: it allows the listed calls, new threads, and signals to the process itself."""
    column = 0 if machine == "x86_64" else 1
    lines: list[ProgramLine] = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _DENY),
        (_LOAD, 0, 0, _CALL),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _DENY),
        (_EQUAL, 0, 1, _CLONE3[column]),
        (_RETURN, 0, 0, _NO_SUCH_CALL),  # then the C library uses `clone`, whose flags a filter can see
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
        (_EQUAL, 0, 4, _TGKILL[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 0, 1, process),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    for numbers in _ALLOWED.values():
        lines += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    return [*lines, (_RETURN, 0, 0, _DENY)]


def _forbid_new_privileges() -> None:
    """Let no program that this process runs gain privileges; the kernel asks for it before it confines."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def system_call(number: int, *arguments: object) -> int:
    """Make a system call and return its result. Raises OSError when the kernel refuses it."""
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    passed = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = library.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result
