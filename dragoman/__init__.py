"""The front door: the command line, the configuration file, and the server that puts the parts together.

DRAGOMAN_PURE=1 in the environment runs the Python sources even where compiled modules lie beside them: to find out
whether a fault is one of compiling, and to measure coverage.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from importlib.util import find_spec

__version__ = "0.1.0"

_COMPILED_PACKAGES = ("broker", "protocols", "store")


def compiled() -> bool:
    """Whether the hot path runs as compiled modules (all of it does, or none)."""
    spec = find_spec("broker.message")
    return spec is not None and not (spec.origin or "").endswith(".py")


def version_line() -> str:
    """What `dragoman --version` prints and logs begin with."""
    python = ".".join(map(str, sys.version_info[:3]))
    return f"dragoman {__version__} ({'compiled' if compiled() else 'plain Python'}, Python {python})"


def _use_sources_only() -> None:
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    folders = tuple(os.path.join(home, package) for package in _COMPILED_PACKAGES)

    def finder(path: str) -> FileFinder:
        real = os.path.realpath(path)
        if not any(real == folder or real.startswith(folder + os.sep) for folder in folders):
            raise ImportError(path)  # not ours: the next hook takes it
        return FileFinder(path, (SourceFileLoader, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, finder)
    sys.path_importer_cache.clear()


if os.environ.get("DRAGOMAN_PURE", "") not in ("", "0"):
    _use_sources_only()
