"""The version, from the installed package; CMakeLists.txt is where it is written down."""

from __future__ import annotations


def read_version() -> str:
    """Return the version of the installed distribution, or of the extension in a bare build tree.

    Raises
    ------
    ImportError
        If mmcore is neither installed nor built.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mmcore")
    except PackageNotFoundError:
        from mmcore import _C

        return str(_C.__version__)
