"""What an input costs, in a measure that is the same on every machine: lines of Python that are run for it.

    bomb(target, data)     what is too much about it, or ""

A line may call into C and stay there; so an input is also a bomb when it takes seconds of CPU time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

LINES = 60_000
"""More than for an empty input that any input may cost,"""
LINES_A_BYTE = 300
"""and more for each byte of it. A byte of 0-9-1 that is worth a method costs about 30."""
SECONDS = 3.0
"""Of CPU time, which no input of a few KB may take."""


class TooMuch(BaseException):
    """Ends a run that has cost too much; no `except Exception` of the broker's keeps it."""


def lines(run: Callable[[bytes], object], data: bytes, most: int = 1 << 62) -> int:
    """How many lines are run for an input. Raises: TooMuch above `most`, and what `run` raises."""
    count = 0

    def in_frame(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        if count > most:
            raise TooMuch
        return in_frame

    before = sys.gettrace()
    sys.settrace(in_frame)
    try:
        run(data)
    finally:
        sys.settrace(before)
    return count


@cache
def _least(run: Callable[[bytes], object]) -> int:
    run(b"")  # what is made once is made now
    return lines(run, b"")


def bomb(run: Callable[[bytes], object], data: bytes) -> str:
    """What is too much about an input's cost, or "". Raises what `run` raises."""
    most = 2 * _least(run) + LINES + LINES_A_BYTE * len(data)
    begun = time.process_time()
    try:
        lines(run, data, most)
    except TooMuch:
        return f"more than {most:,} lines are run for {len(data):,} bytes"
    seconds = time.process_time() - begun
    if seconds > SECONDS + most / 1e6:  # to count lines takes time, too
        return f"{seconds:.1f} s of CPU for {len(data):,} bytes"
    return ""
