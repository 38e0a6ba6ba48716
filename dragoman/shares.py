"""Whose input is dealt with, and for how long, in a turn of the loop: nobody starves the others by sending much.

A connection whose input takes longer than BURST at once is greedy, until for a while none takes long any more. What the
greedy ones send waits, and is dealt with bit by bit, if others have work: in each turn of the loop for a fraction of
their time, QUANTUM at least. So they have what the others leave, all of it when there is nobody else, and a flood costs
the others little. While its input waits, a connection is not read, so it gets no more than the socket's buffers hold.

Times of work are of this thread's CPU: what other processes take is nobody's fault.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dragoman.transport import Transport

BURST: Final = 0.001
"""Seconds that a connection's input may take at once. Compiled, all that a socket is read for in one go takes 2 ms, of
the smallest frames."""

QUANTUM: Final = 0.0003
"""Seconds that the greedy ones have together in a turn of the loop, when others have work, too."""

TALK: Final = 0.0002
REST: Final = 0.001
"""When others have work, those whose input moves no message to or from a queue (heartbeats, pings, acknowledgements of
nothing, messages to nowhere) have so many seconds, and then rest for so many."""

SHARE: Final = 0.15
"""Of the time that the others take, what the greedy ones have if it is more."""

ALONE: Final = 0.004
"""Seconds that they have in a turn when there is nobody else,"""

LATELY: Final = 0.03
"""which means that no one else has sent anything for so long."""

FORGOTTEN: Final = 0.1
"""Seconds after which a connection counts as greedy no more, if no input of it has taken longer than QUANTUM since. Who
asks, and asks again when he has his answer, would else be one for as long as others have work, for a single burst."""

PACE: Final = 1e-6
"""Seconds that a byte takes, until that is known."""

DEAR: Final = 0.001
"""Seconds beyond its time that a single piece of input may take, such as a message to thousands of bindings. After
more than that, the greedy ones rest for RESTS times as long as it took."""

RESTS: Final = 4

_LEAST: Final = 64


class Shares:
    """Of one server's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[Transport] = deque()
        self._spent = 0.0  # seconds, on those who are not greedy, since the last turn of those who are
        self._heard = 0.0  # when one of those has sent something last, by perf_counter
        self._due = False
        self._rests = 0.0  # until when those who are greedy rest, by perf_counter

    def take(self, transport: Transport, data: bytes) -> None:
        """Input has come: deal with it now, or when its turn comes."""
        if transport.rest:
            transport.rest = transport.rest[transport.rest_at:] + data
            transport.rest_at = 0
            return
        transport.rest = data
        transport.took = 0.0
        now = perf_counter()
        if now >= transport.greedy_until:
            self._heard = now
        elif self._waiting or now < self._heard + LATELY:
            self.wait(transport)
            return
        self._spent += self._work(transport, BURST)
        if transport.rest:
            self.wait(transport)
        elif transport.took > BURST:
            self._served(transport)

    def busy(self) -> bool:
        """Whether somebody has sent something lately."""
        return bool(self._waiting) or perf_counter() < self._heard + LATELY

    def wait(self, transport: Transport) -> None:
        """Have it wait for its turn."""
        if not transport.waits:
            transport.waits = True
            transport.read_or_not()
            self._waiting.append(transport)
            self._soon()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            wait = self._rests - perf_counter()
            if wait > 0:
                self.loop.call_later(wait, self._turn)
            else:
                self.loop.call_soon(self._turn)

    def _served(self, transport: Transport) -> None:
        """Its input waits for no turn any more."""
        if transport.took > QUANTUM:
            transport.greedy_until = perf_counter() + FORGOTTEN + RESTS * transport.took

    def _turn(self) -> None:
        self._due = False
        now = perf_counter()
        waiting = self._waiting
        if not waiting:  # who began to wait in the last turn had its turn then, too
            return
        alone = now >= self._heard + LATELY
        room = ALONE if alone else max(QUANTUM if waiting[0].moves else TALK, SHARE * self._spent)
        spent = self._spent = 0.0
        while waiting and spent < room:
            transport = waiting.popleft()
            before = transport.progress()
            try:
                spent += self._work(transport, min(QUANTUM, room - spent))
            except Exception as error:  # must never happen; if it does, it costs this connection, not its turn for ever
                self.loop.call_exception_handler({"message": f"{transport.peer}: its input cannot be dealt with",
                                                  "exception": error})
                transport.rest, transport.rest_at = b"", 0
                transport.abort()
            transport.moves = transport.progress() != before
            if transport.rest and not transport.held and not transport.flooded_since:
                waiting.append(transport)
            else:  # all is done, or it goes on when it is read again
                transport.waits = False
                self._served(transport)
                transport.read_or_not()
        if not alone and (spent - room > DEAR or waiting and not waiting[0].moves):
            self._rests = perf_counter() + max(REST, RESTS * spent)
        if waiting:
            self._soon()

    def _work(self, transport: Transport, seconds: float) -> float:
        """Deal with some of the input of a connection; give how long that took."""
        begun = now = thread_time()
        end = begun + seconds
        data, at = transport.rest, transport.rest_at
        while at < len(data) and now < end and not transport.held:
            size = max(_LEAST, int((end - now) / transport.pace))
            part = data[at:at + size] if at or size < len(data) else data
            transport.rest_at = at = at + len(part)
            transport.feed(part)
            before, now = now, thread_time()
            transport.pace = max(1e-10, 0.5 * transport.pace + 0.5 * (now - before) / len(part))
        if transport.front_end is None or transport.front_end.finished or at >= len(data):
            transport.rest, transport.rest_at = b"", 0
        transport.took += now - begun
        return now - begun
