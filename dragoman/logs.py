"""Logging: readable lines at a terminal, one JSON object a line elsewhere.

Names that clients choose end up in logs, so control characters are escaped: a record is always one line. Only at
level debug is it followed by the traceback of the exception that it is about; otherwise the exception is named.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

from dragoman.config import Log

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ESCAPES = {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)]} | {9: "\\t", 10: "\\n", 13: "\\r"}
_COLOURS = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31m"}

LINES, QUIET, PEERS = 200, 10.0, 10_000
"""So many lines of a kind in so many seconds, for each of so many peers."""


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00.123 warning  the message (ValueError: what happened)`"""

    def __init__(self, traceback: bool, colour: bool) -> None:
        super().__init__()
        self.traceback = traceback
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = f"{when}.{int(record.msecs):03d} {record.levelname.lower():8} {record.getMessage()}".translate(_ESCAPES)
        if record.exc_info:
            text += _cause(record).translate(_ESCAPES)
        if self.colour and record.levelname in _COLOURS:
            text = f"{_COLOURS[record.levelname]}{text}\033[0m"
        if record.exc_info and self.traceback:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """Keys time (UTC), level, logger, message, what a caller gave as `extra`, error, and traceback at level debug."""

    def __init__(self, traceback: bool) -> None:
        super().__init__()
        self.traceback = traceback

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {"time": f"{when}.{int(record.msecs):03d}Z", "level": record.levelname.lower(),
                                  "logger": record.name, "message": record.getMessage()}
        fields.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            fields["error"] = _cause(record).strip(" ()")
            if self.traceback:
                fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class Calm(logging.Filter):
    """Of lines of one kind about one peer, LINES at most in QUIET seconds; of the others, how many there were. A client
    that has itself refused all day long is not to fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._since = 0.0  # seconds since the epoch
        self._counts: dict[tuple[str, str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return True
        if not 0 <= record.created - self._since < QUIET:
            counts, self._counts = self._counts, {}
            self._since = record.created
            for (name, text, peer), count in counts.items():
                if count > LINES:
                    logging.getLogger(name).warning("%s: %d more lines as '%s' were left out", peer or "all",
                                                    count - LINES, text)
        args = record.args
        first = args[0] if isinstance(args, tuple) and args else None
        peer = first.rpartition(":")[0] if isinstance(first, str) and len(self._counts) < PEERS else ""
        key = (record.name, str(record.msg), peer)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count <= LINES


def configure(settings: Log) -> None:
    """Log as the settings say, from now on. Called again, it opens the file anew (as log rotation wants).

    Raises OSError when the file cannot be opened; logging is then as it was.
    """
    handler: logging.StreamHandler[Any] = logging.StreamHandler(sys.stderr)
    if settings.file:
        handler = logging.FileHandler(settings.file, encoding="utf-8", errors="backslashreplace")
    traceback = settings.level == "debug"
    if is_text(settings):
        colour = not settings.file and sys.stderr.isatty() and "NO_COLOR" not in os.environ
        handler.setFormatter(TextFormatter(traceback, colour))
    else:
        handler.setFormatter(JsonFormatter(traceback))
    handler.addFilter(Calm())
    root = logging.getLogger()
    old = root.handlers[:]
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.raiseExceptions = False  # a log that cannot be written (a full disk) must not disturb the broker
    logging.captureWarnings(True)
    for each in old:
        if isinstance(each, logging.FileHandler):
            each.close()


def is_text(settings: Log) -> bool:
    """Whether lines are for people."""
    return settings.format == "text" or (settings.format == "auto" and not settings.file and sys.stderr.isatty())


def _cause(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    error = record.exc_info[1]
    return f" ({type(error).__name__}: {error})" if str(error) else f" ({type(error).__name__})"
