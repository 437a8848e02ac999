"""The command line ``mmcore``. Only the command that is run is imported, so that help is fast."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its status."""
    from mmcore.entrypoints.cli.app import app

    app(prog_name="mmcore")
