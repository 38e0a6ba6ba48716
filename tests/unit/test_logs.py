"""dragoman.logs and dragoman.notify."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman import logs, notify
from dragoman.config import Log


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers  # pytest's own among them
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(False)


def record(message: str, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "dragoman", "levelname": "WARNING", "msg": message, "created": 0.5,
                                  "msecs": 500.0, **extra})
    if error is not None:
        made.exc_info = (type(error), error, error.__traceback__)
    return made


def raised() -> ValueError:
    try:
        raise ValueError("it went\nwrong")
    except ValueError as error:
        return error


@given(st.text())
def test_a_line_of_text_is_one_line(message: str) -> None:
    line = logs.TextFormatter(False, False).format(record(message))
    assert line.isprintable() or all(ord(character) >= 160 for character in line if not character.isprintable())
    assert "\n" not in line and "\x1b" not in line


def test_text() -> None:
    line = logs.TextFormatter(False, False).format(record("hello\nthere", raised()))
    assert line[4] == "-" and line[19:] == ".500 warning  hello\\nthere (ValueError: it went\\nwrong)"
    assert logs.TextFormatter(False, True).format(record("hello")).endswith("hello\033[0m")
    assert "Traceback" in logs.TextFormatter(True, False).format(record("hello", raised()))


@given(st.text(), st.dictionaries(st.sampled_from(["connection", "user", "queue"]), st.text() | st.integers()))
def test_json(message: str, extra: dict[str, Any]) -> None:
    line = logs.JsonFormatter(False).format(record(message, **extra))
    assert "\n" not in line
    assert json.loads(line) == {"time": "1970-01-01T00:00:00.500Z", "level": "warning", "logger": "dragoman",
                                "message": message, **extra}


def test_json_with_an_exception() -> None:
    fields = json.loads(logs.JsonFormatter(False).format(record("hello", raised())))
    assert fields["error"] == "ValueError: it went\nwrong" and "traceback" not in fields
    assert "Traceback" in json.loads(logs.JsonFormatter(True).format(record("hello", raised())))["traceback"]


def test_a_file_is_appended_to_and_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "d.log"
    path.write_text("before\n")
    logs.configure(Log(level="warning", format="text", file=str(path)))
    logging.getLogger("x").info("not shown")
    logging.getLogger("x").warning("one")
    path.rename(tmp_path / "old")
    logs.configure(Log(level="warning", format="text", file=str(path)))
    logging.getLogger("x").error("two")
    assert [line[-3:] for line in (tmp_path / "old").read_text().splitlines()] == ["ore", "one"]
    assert path.read_text().endswith("error    two\n")


def test_a_file_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    before = logging.getLogger().handlers[:]
    with pytest.raises(OSError):
        logs.configure(Log(file=str(tmp_path)))
    assert logging.getLogger().handlers == before


def test_a_terminal_gets_text_and_others_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert logs.is_text(Log())
    assert not logs.is_text(Log(file="x"))
    assert not logs.is_text(Log(format="json"))
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert not logs.is_text(Log())
    assert logs.is_text(Log(format="text"))


def test_nobody_to_notify(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in ("", "relative", str(tmp_path / "nobody"), "@nobody-listens-here", "/" + 200 * "x"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify.notify("READY=1")


@pytest.mark.parametrize(("usec", "pid", "seconds"), [
    ("", None, 0.0), ("2000000", None, 1.0), ("2000000", str(os.getpid()), 1.0), ("2000000", "1", 0.0),
    ("soon", None, 0.0)], ids=["unset", "anybody", "us", "another", "nonsense"])
def test_watchdog_interval(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, seconds: float) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_interval() == seconds


def test_lines_of_a_kind_are_counted_beyond_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each peer; others, and other lines, are written as ever."""
    calm = logs.Calm()
    said: list[str] = []

    def line(text: str, *values: object, created: float = 1000.0) -> None:
        record = logging.LogRecord("dragoman.test", logging.WARNING, "", 0, text, values, None)
        record.created = created
        if calm.filter(record):
            said.append(record.getMessage())
    monkeypatch.setattr(logging.getLogger("dragoman.test"), "warning", lambda text, *values: said.append(text % values))
    for number in range(logs.LINES + 50):
        line("%s: refused", f"10.0.0.1:{number}")
    assert len(said) == logs.LINES
    line("%s: refused", "10.0.0.2:1")
    line("%s: closed", "10.0.0.1:1")
    assert said[-2:] == ["10.0.0.2:1: refused", "10.0.0.1:1: closed"]
    line("%s: refused", "10.0.0.1:5", created=1000.0 + logs.QUIET)
    assert said[-2:] == ["10.0.0.1: 50 more lines as '%s: refused' were left out", "10.0.0.1:5: refused"]
