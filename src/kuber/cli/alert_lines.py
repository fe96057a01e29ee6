"""Lines about what goes wrong in a run: for the live table and the plain lines."""

from kuber.domain.event import Event

SHORT_ID = 8  # last characters of an id that are shown; the first are a time


class AlertLines:
    """Lines of the events that warn; an unreachable hub makes one line until it answers again."""

    def __init__(self) -> None:
        self._unreachable: set[tuple[str | None, str]] = set()  # entity and service
        self._failures: set[tuple[str | None, str]] = set()  # entity and line

    def line(self, event: Event) -> str | None:
        """Return the line of an event that warns for the first time; None for all others."""
        detail = event.detail
        match event.kind:
            case "unreachable":
                if (event.entity, _service(event)) in self._unreachable:
                    return None
                self._unreachable.add((event.entity, _service(event)))
                return f"continues without the {_service(event)}: {detail['reason']}"
            case "reachable":
                self._unreachable.discard((event.entity, _service(event)))
                return f"reaches the {_service(event)} again"
            case "rejected":
                return f"rejected {detail['knowledge'][-SHORT_ID:]}: {detail['reason']}"
            case "dropped":
                article = "an" if detail["message"] == "attestation" else "a"
                return f"could not send {article} {detail['message']}: {detail['reason']}"
            case "restored" if detail["lost"]:
                return f"publishes its newest model again: the hub has lost {detail['lost']} of its records"
            case "restored":
                return f"left out {detail['left_out']} records that the hub no longer has"
            case "rekeyed":
                return f"trusts a new key of {detail['name']}, which the hub signed because the former one was lost"
            case "no-teachers":
                return f"no teachers in {detail['rounds']} searches in a row: {detail['reason']}"
            case "failed":
                line = f"failed to {detail['action']}: {detail['reason']}"
                if (event.entity, line) in self._failures:
                    return None
                self._failures.add((event.entity, line))
                return line
        return None


def _service(event: Event) -> str:
    """Return the service that is meant: without the registry, which older logs do not name, there is no hub."""
    return "vault" if event.detail.get("service") == "vault" else "hub"
