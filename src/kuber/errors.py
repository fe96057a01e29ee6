"""The exceptions KUber raises.

KUberError
├ SettingsError                      a setting is unknown, impossible, or contradicts another
├ KnowledgeError
│ ├ KnowledgeNotFoundError           no such record or blob
│ ├ IncompatibleKnowledgeError       valid, but for another task or architecture
│ └ CorruptKnowledgeError            bytes or record are invalid, or not what they claim to be
├ ServiceError
│ ├ ServiceUnavailableError          no answer; a retry may help
│ ├ NotAuthorizedError               the service refuses this caller
│ ├ ConflictError                    the request contradicts what is already stored
│ ├ InsufficientStorageError         the service has no space left
│ └ RequestRejectedError             the request itself is wrong
├ DatasetError                       the data are missing, unreadable or not as expected
└ TrainingError
  └ DivergedError                    the loss or a weight is not finite

Every class has a stable `code`: services send it in their problem details, and the client rebuilds the class from it.
The message says to the user, in a sentence or two, what is wrong and what to do.
"""

from typing import ClassVar


class KUberError(Exception):
    """Base class of all exceptions that KUber raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1  # of a command that ends with this error

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsError(KUberError):
    """A setting is unknown, impossible, or contradicts another."""

    code = "settings"
    exit_code = 2


class TaskError(SettingsError, ValueError):
    """A task is impossible."""


class KnowledgeError(KUberError):
    """A record, or the model it names, is missing or cannot be used."""

    code = "knowledge"


class KnowledgeNotFoundError(KnowledgeError):
    """The registry has no such record, or the vault no such blob."""

    code = "knowledge-not-found"


class IncompatibleKnowledgeError(KnowledgeError):
    """The knowledge is valid, but for another task or architecture."""

    code = "knowledge-incompatible"


class TimeLimitError(IncompatibleKnowledgeError):
    """The model takes longer than it may."""


class CorruptKnowledgeError(KnowledgeError):
    """The bytes or the record are invalid, or not what they claim to be."""

    code = "knowledge-corrupt"


class ServiceError(KUberError):
    """The registry or the vault failed to serve a request."""

    code = "service"
    exit_code = 4


class ServiceUnavailableError(ServiceError):
    """The service did not answer, or cannot answer now; a retry may help, after `retry_after` seconds.

    `retry_after` is infinite where only a change outside of KUber helps, such as a new certificate.
    """

    code = "service-unavailable"

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotAuthorizedError(ServiceError):
    """The service refuses this caller."""

    code = "not-authorized"


class ConflictError(ServiceError):
    """The request contradicts what the service already stores."""

    code = "conflict"


class InsufficientStorageError(ServiceError):
    """The service has no space left for the new data; what it stored before is safe."""

    code = "insufficient-storage"


class RequestRejectedError(ServiceError):
    """The request itself is wrong; a retry will not help.

    `too_large` is whether something between client and service refuses a body of this size.
    """

    code = "request-rejected"

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class TooLargeError(RequestRejectedError):
    """A message is larger than the service accepts."""


class DatasetError(KUberError):
    """The data are missing, unreadable or not as expected."""

    code = "dataset"
    exit_code = 3


class TrainingError(KUberError):
    """Training failed."""

    code = "training"


class DivergedError(TrainingError):
    """The loss or a weight is not finite."""

    code = "diverged"


def all_errors() -> list[type[KUberError]]:
    """Return every class of the tree, the base class first; not those that only refine one and have its code."""
    found: list[type[KUberError]] = [KUberError]
    for cls in found:
        found.extend(subclass for subclass in cls.__subclasses__() if "code" in vars(subclass))
    return found


def error_class(code: str) -> type[KUberError] | None:
    """Return the class with this `code`; None if this version of KUber has no such code."""
    return next((cls for cls in all_errors() if cls.code == code), None)


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's text, cut and without full stop; if it is empty, the error's class name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
