"""Everything KUber raises.

KUberError
├ SettingsError                      a setting is unknown, impossible, or contradicts another
├ KnowledgeError
│ ├ KnowledgeNotFoundError           no such record or blob
│ ├ IncompatibleKnowledgeError       sound, but for another task or architecture
│ └ CorruptKnowledgeError            bytes or record are not what they claim to be
├ ServiceError
│ ├ ServiceUnavailableError          no answer; trying again may help
│ ├ NotAuthorizedError               the service knows you, or does not, and says no
│ ├ ConflictError                    contradicts what is already stored
│ ├ InsufficientStorageError         no space left where the service stores
│ └ RequestRejectedError             the request itself is wrong
├ DatasetError                       the data cannot be had, or are not what was expected
└ TrainingError
  └ DivergedError                    the loss is no longer a finite number

Every class has a stable `code`; services send it in their problem details and the client rebuilds the class
from it. The message is one sentence for the person at the keyboard: what is wrong and what to do.
"""

from typing import ClassVar


class KUberError(Exception):
    """Base of everything KUber raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1  # what a command ends with

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsError(KUberError):
    """A setting is unknown, impossible, or contradicts another."""

    code = "settings"
    exit_code = 2


class KnowledgeError(KUberError):
    """Something is wrong with a piece of knowledge."""

    code = "knowledge"


class KnowledgeNotFoundError(KnowledgeError):
    """No such record in the registry, or no such blob in the vault."""

    code = "knowledge-not-found"


class IncompatibleKnowledgeError(KnowledgeError):
    """The knowledge is sound, but belongs to another task or architecture."""

    code = "knowledge-incompatible"


class CorruptKnowledgeError(KnowledgeError):
    """Bytes or record are not what they claim to be."""

    code = "knowledge-corrupt"


class ServiceError(KUberError):
    """The registry or the vault did not do what it was asked."""

    code = "service"
    exit_code = 4


class ServiceUnavailableError(ServiceError):
    """The service gave no answer, or said it cannot answer now; trying again may help."""

    code = "service-unavailable"


class NotAuthorizedError(ServiceError):
    """The service refuses this caller."""

    code = "not-authorized"


class ConflictError(ServiceError):
    """The request contradicts what the service already stores."""

    code = "conflict"


class InsufficientStorageError(ServiceError):
    """The service has no space left to store what was sent; what it stored before is safe."""

    code = "insufficient-storage"


class RequestRejectedError(ServiceError):
    """The request itself is wrong; sending it again will not help."""

    code = "request-rejected"


class DatasetError(KUberError):
    """The data cannot be had, or are not what was expected."""

    code = "dataset"
    exit_code = 3


class TrainingError(KUberError):
    """Training cannot go on."""

    code = "training"


class DivergedError(TrainingError):
    """The loss, or a weight, is no longer a finite number."""

    code = "diverged"


def all_errors() -> list[type[KUberError]]:
    """Every class of the tree, the base first."""
    found: list[type[KUberError]] = [KUberError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return found


def error_class(code: str) -> type[KUberError] | None:
    """The class with this `code`, or None where this version knows no such code."""
    return next((cls for cls in all_errors() if cls.code == code), None)
