"""The exceptions that mmcore raises, each with a stable code.

Every expected failure is one of these classes; the bindings raise them by name and the HTTP server
turns ``code`` into its error object. This module imports nothing, so that anything may import it.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "EngineDeadError",
    "EngineOverloadedError",
    "EngineShutdownError",
    "InternalError",
    "MediaError",
    "MediaFetchError",
    "MmcoreError",
    "PlaceholderMismatchError",
    "RequestAbortedError",
    "RequestTimeoutError",
    "UnservableRequestError",
    "ValidationError",
]


class MmcoreError(Exception):
    """Base of all errors that mmcore raises on purpose.

    Parameters
    ----------
    message
        What was given, what was expected and what to do.
    code
        A stable snake_case word for programs; the class's ``default_code`` when left out.
    request_id
        The request that the error belongs to, if it belongs to one.
    """

    default_code = "internal_error"

    code: str
    request_id: str | None

    def __init__(
        self, message: str = "", *, code: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = self.default_code if code is None else code
        self.request_id = request_id

    @property
    def message(self) -> str:
        """The text that the error was raised with."""
        return str(self)


class ValidationError(MmcoreError, ValueError):
    """A request or an argument is malformed or out of range; trying again does not help."""

    default_code = "invalid_request"


class MediaError(ValidationError):
    """A media item cannot be used: unreadable, of a refused format, or beyond a limit."""

    default_code = "invalid_media"


class MediaFetchError(MediaError):
    """A media item could not be, or was not allowed to be, fetched from where its URL points."""

    default_code = "media_fetch_failed"


class UnservableRequestError(ValidationError):
    """A well-formed request that this engine's memory and budgets can never hold."""

    default_code = "unservable"


class PlaceholderMismatchError(ValidationError):
    """The placeholders of a prompt and its media items disagree."""

    default_code = "placeholder_mismatch"


class CheckpointError(MmcoreError, ValueError):
    """A model folder is missing, incomplete, or describes something that mmcore cannot load."""

    default_code = "invalid_checkpoint"


class EngineOverloadedError(MmcoreError):
    """The queue is full; the same request may succeed later."""

    default_code = "engine_overloaded"


class RequestAbortedError(MmcoreError):
    """The request was aborted before it finished."""

    default_code = "request_aborted"


class RequestTimeoutError(MmcoreError, TimeoutError):
    """The request's deadline passed while it was queued or running."""

    default_code = "request_timeout"


class EngineShutdownError(MmcoreError):
    """The engine is draining or has shut down and takes no more work."""

    default_code = "engine_shutdown"


class EngineDeadError(MmcoreError):
    """The engine met an error that it cannot continue from; start a new one."""

    default_code = "engine_dead"


class InternalError(MmcoreError, RuntimeError):
    """A fault of mmcore or of the model's code, never of the request."""

    default_code = "internal_error"
