"""What a user sees when a command fails: one line, and an exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

USER_ERROR = 2
INTERNAL_ERROR = 1


@contextmanager
def one_line_errors(*, show_traceback: bool) -> Iterator[None]:
    """Turn exceptions of the block into one red line on stderr and an exit.

    Status 2 is what the caller can mend: a file, an option, a checkpoint, a request. Status 1 is a
    fault of mmcore or of a model's code.
    """
    import typer

    from mmcore.errors import EngineDeadError, InternalError, MmcoreError

    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError, typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if show_traceback:
            traceback.print_exc()
        internal = isinstance(error, InternalError | EngineDeadError) or not isinstance(
            error, MmcoreError | OSError | ValueError | NotImplementedError | ImportError
        )
        if internal:
            advice = "" if show_traceback else " (mmcore --traceback shows where)"
            complain(f"{type(error).__name__}: {error}{advice}", label="internal error")
        else:
            complain(describe(error))
        raise typer.Exit(INTERNAL_ERROR if internal else USER_ERROR) from None


def describe(error: Exception) -> str:
    """Say what is wrong; an OSError's own text starts with a number that helps nobody."""
    if isinstance(error, OSError) and error.strerror:
        subject = f"{error.filename}: " if error.filename else ""
        return f"{subject}{error.strerror}"
    return str(error) or type(error).__name__


def complain(message: str, *, label: str = "error") -> None:
    """Write one line to stderr, red where stderr is a terminal."""
    line = " ".join(message.split())
    if sys.stderr.isatty():
        label, line = f"\x1b[1;31m{label}\x1b[0m", f"\x1b[31m{line}\x1b[0m"
    sys.stderr.write(f"{label}: {line}\n")
