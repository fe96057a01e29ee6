"""Ports of a hub whose services fail on demand, and whose background checks wait for the test."""

import threading


class FailingPort:
    """A port whose calls raise `error` while it is set; `check` waits until it may, and then does the same."""

    def __init__(self, port, *, checked=True):
        self.port = port
        self.error = None
        self.of = None  # names of the only methods that fail; None: all of them
        self.calls = []
        self.may_check = threading.Event()
        self.checks = 0
        self._checked = checked

    def __getattr__(self, name):
        if name == "check" and self._checked:
            return self._check
        method = getattr(self.port, name)

        def call(*args, **kwargs):
            self.calls.append(name)
            if self.error is not None and (self.of is None or name in self.of):
                raise self.error
            return method(*args, **kwargs)

        return call

    def _check(self):
        if threading.current_thread() is not threading.main_thread():
            self.may_check.wait()
        self.checks += 1
        if self.error is not None and self.of is None:
            raise self.error
