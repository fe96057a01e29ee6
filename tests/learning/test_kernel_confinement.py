"""Denial of files, network and processes by the kernel, probed from within a confined process."""

import errno
import json
import subprocess
import sys

import pytest

from kuber.learning import kernel_confinement
from kuber.learning.kernel_confinement import deny_files_and_network, seccomp_program
from tests.fixtures.waiting import LIMIT

PROBES = """
import json, os, socket, sys, tempfile, threading
from kuber.learning import kernel_confinement
without = sys.argv[1]
if without == "seccomp":
    kernel_confinement._SECCOMP_CALL.clear()
if without == "landlock":
    kernel_confinement._CREATE_RULESET = 99_999
written = os.path.join(sys.argv[2], "written")
open(sys.argv[2] + "/there", "w").close()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.close()
found = {"denied_by": kernel_confinement.deny_files_and_network()}


def connect(kind):
    with socket.socket(socket.AF_INET, kind) as end:
        try:
            end.connect(("127.0.0.1", 9))
        except ConnectionRefusedError:
            pass


def fork():
    if os.fork() == 0:
        os._exit(0)


def thread():
    worker = threading.Thread(target=lambda: found.update(computed=2 + 2))
    worker.start()
    worker.join()


def probe(name, function):
    try:
        function()
        found[name] = "done"
    except PermissionError:
        found[name] = "denied"
    except OSError as error:
        found[name] = repr(error)


probe("write", lambda: open(written, "w").close())
probe("read", lambda: open("/etc/passwd").close())
probe("list", lambda: os.listdir("/"))
probe("remove", lambda: os.unlink(sys.argv[2] + "/there"))
probe("connect", lambda: connect(socket.SOCK_STREAM))
probe("send", lambda: connect(socket.SOCK_DGRAM))
probe("fork", fork)
probe("run", lambda: os.execv("/bin/true", ["true"]))
probe("signal", lambda: os.kill(os.getppid(), 0))
probe("thread", thread)
print(json.dumps(found))
"""
FILES = {"write", "read", "list", "remove", "run"}
BY_LANDLOCK = FILES | {"signal", "connect"}
BY_SECCOMP = BY_LANDLOCK | {"send", "fork"}


def probes(folder, *, without):
    command = [sys.executable, "-c", PROBES, without, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    return json.loads(done.stdout)


@pytest.mark.process
def test_the_kernel_denies_files_network_and_processes(tmp_path):
    found = probes(tmp_path, without="")
    if not found["denied_by"]:
        pytest.skip("this kernel has neither Landlock nor seccomp")
    assert found["computed"] == 4
    assert found["thread"] == "done"
    for name in BY_SECCOMP if "seccomp" in found["denied_by"] else FILES:
        assert found[name] == "denied", name


@pytest.mark.parametrize(("kept", "without"), [("landlock", "seccomp"), ("seccomp", "landlock")])
@pytest.mark.process
def test_each_holds_without_the_other(tmp_path, kept, without):
    found = probes(tmp_path, without=without)
    if not found["denied_by"]:
        pytest.skip(f"this kernel does not have {kept}")
    assert found["denied_by"] == [kept]
    assert found["computed"] == 4
    for name in BY_SECCOMP if kept == "seccomp" else FILES:
        assert found[name] == "denied", name


def test_a_kernel_without_either_denies_nothing_and_is_no_error(monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOSYS, "no such system call")

    monkeypatch.setattr(kernel_confinement, "system_call", unknown)
    monkeypatch.setattr(kernel_confinement, "_forbid_new_privileges", lambda: None)
    assert deny_files_and_network() == ()
    monkeypatch.setattr(kernel_confinement.sys, "platform", "darwin")
    assert deny_files_and_network() == ()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_denies_what_is_not_listed_on_both_processors(machine):
    column = 0 if machine == "x86_64" else 1
    architecture = kernel_confinement._ARCHITECTURE[machine]

    def decision(call, first=0, *, architecture=architecture):
        lines, place, value = seccomp_program(machine, 77), 0, 0
        data = {0: call, 4: architecture, 16: first}
        while True:
            operation, yes, no, operand = lines[place]
            place += 1
            match operation:
                case 0x20:
                    value = data[operand]
                case 0x06:
                    return operand
                case 0x15:
                    place += yes if value == operand else no
                case 0x35:
                    place += yes if value >= operand else no
                case 0x45:
                    place += yes if value & operand else no

    allow, deny = 0x7FFF0000, 0x00050000 | errno.EPERM
    assert decision(kernel_confinement._ALLOWED["read"][column]) == allow
    assert decision(kernel_confinement._ALLOWED["read"][column], architecture=0x40000003) == deny
    assert decision(kernel_confinement._ALLOWED["ppoll"][column]) == allow
    openat, io_uring, prlimit = (257, 425, 302) if machine == "x86_64" else (56, 425, 261)
    assert {decision(call) for call in (openat, io_uring, prlimit, 1 << 30)} == {deny}
    clone, signal = kernel_confinement._CLONE[column], kernel_confinement._TGKILL[column]
    assert (decision(clone, 0x3D0F00), decision(clone, 17)) == (allow, deny)
    assert (decision(signal, 77), decision(signal, 78)) == (allow, deny)
    assert decision(435) == 0x00050000 | errno.ENOSYS
