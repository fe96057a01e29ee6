"""A TCP proxy that harms what passes through it: it cuts, stalls and flips bytes at places drawn from a seed."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Passes connections on to `target`, each with a mishap at an offset of its own; `url` is where it listens.

    A mishap is `cut` (both ends are closed), `stall` (nothing passes any more, and nobody is told), `flip` (one bit
    of one byte is another) or `none`. It strikes one direction, chosen by the seed.
    """

    def __init__(self, target: str, *, seed: int, mishaps: list[str], reach: int) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self._target = host, int(port)
        self._random = random.Random(seed)
        self._mishaps = mishaps
        self._reach = reach  # bytes within which a mishap strikes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.struck: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in [self._listener, *self._open]:
            _close(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(self._target)
                self._open += [near, far]
                mishap, upwards = self._random.choice(self._mishaps), self._random.random() < 0.5
                place = self._random.randrange(1, self._reach)
                for source, sink, ours in ((near, far, upwards), (far, near, not upwards)):
                    told = (source, sink, mishap if ours else "none", place)
                    threading.Thread(target=self._pass_on, args=told, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, mishap: str, place: int) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                within = place - passed
                passed += len(data)
                if mishap != "none" and 0 <= within < len(data):
                    self.struck.append(mishap)
                    if mishap == "stall":
                        sink.sendall(data[:within])
                        return
                    if mishap == "cut":
                        sink.sendall(data[:within])
                        break
                    data = data[:within] + bytes([data[within] ^ 4]) + data[within + 1 :]
                sink.sendall(data)
        _close(source)
        _close(sink)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextlib.contextmanager
def proxy(target: str, *, seed: int, mishaps: list[str], reach: int) -> Iterator[Proxy]:
    """A proxy to `target` for as long as this is open."""
    made = Proxy(target, seed=seed, mishaps=mishaps, reach=reach)
    try:
        yield made
    finally:
        made.close()
