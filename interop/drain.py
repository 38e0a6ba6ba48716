"""Draining: moving all messages of a queue at one broker into a queue at another, and knowing when it is empty.

A message is settled there when it is confirmed here, so whatever is killed when, nothing is lost; what had been
confirmed but not settled comes again, marked as redelivered, and may be here twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from broker.outcome import REJECT, RELEASE, Outcome
from interop.care import REJECT_ANYWAY, Care
from interop.ends import Arrived, Delivery, EndError, From, Remote, Source, To
from interop.mover import Figures, Mover

STEP = 0.1
"""Seconds between two looks at how far it is."""

GRACE = 5.0
"""Seconds that an end in the middle waits for confirms."""

Left = Callable[[], Awaitable[tuple[int, int] | None]]
"""Asks how many messages are left there: to be had, and in the hands of other consumers. None: one cannot know."""


@dataclass(slots=True)
class Drained:
    """What has been done for one queue."""

    moved: int = 0
    again: int = 0  # of those, that had been delivered before: perhaps they are here twice
    bytes: int = 0
    held: int = 0  # left there, in the hands of other consumers
    refused: str = ""  # why one was refused here, which ended it


class _Careful(Source):
    """A source whose messages are never rejected: what is refused here stays there, and ends the moving."""

    def __init__(self, source: Source, drained: Drained) -> None:
        self.source = source
        self.drained = drained
        self.dialect = source.dialect
        self.selects = source.selects
        self.lost = source.lost
        self.unsettled = 0
        self.refused = asyncio.Event()
        self._arrived: Arrived | None = None

    def start(self, arrived: Arrived) -> None:
        self._arrived = arrived
        self.source.start(self._on_arrived)

    def _on_arrived(self, delivery: Delivery) -> None:
        self.unsettled += 1
        if delivery.redelivered:
            self.drained.again += 1
        assert self._arrived is not None
        self._arrived(delivery)

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self.unsettled -= 1
        if outcome is REJECT:
            self.refused.set()
            outcome = RELEASE
        self.source.settle(delivery, outcome)

    async def close(self) -> None:
        await self.source.close()


async def drain(there: Remote, here: Remote, queue: str, drained: Drained, left: Left, told: Callable[[], None],
                prefetch: int = 1000, idle: float = 1.0, patience: float = 10.0) -> None:
    """Move a queue's messages to the queue of the same name until it is empty, or one is refused here.

    drained is kept up to date, and `told` called whenever it has changed. The queue counts as empty when nothing has
    come for `idle` seconds, and `left` does not say otherwise. What other consumers have may come back, such as those
    of a run that was killed: for `patience` seconds. Raises: EndError when either side is lost.
    """
    figures = Figures()
    target = await here.target(To(queue=queue))
    source = None
    mover = None
    try:
        source = _Careful(await there.source(From(queue=queue, prefetch=prefetch)), drained)
        mover = Mover(source, target, figures, [], care=Care(REJECT_ANYWAY))
        mover.start()
        await _until_empty(source, mover, [source.lost, target.lost, there.lost, here.lost], figures, drained, left,
                           told, (idle, patience))
    finally:
        if mover is not None:
            await mover.stop(GRACE)
            _take(figures, drained, told)
        for end in (source, target):
            if end is not None:
                with contextlib.suppress(EndError):
                    await end.close()


async def _until_empty(source: _Careful, mover: Mover, ends: list[asyncio.Future[str]], figures: Figures,
                       drained: Drained, left: Left, told: Callable[[], None], waits: tuple[float, float]) -> None:
    """Raises: EndError."""
    loop = asyncio.get_running_loop()
    idle, patience = waits
    quiet_since = asked = loop.time()
    before = -1
    while True:
        done, _ = await asyncio.wait(ends, timeout=STEP, return_when=asyncio.FIRST_COMPLETED)
        _take(figures, drained, told)
        if done:
            raise EndError(next(iter(done)).result())
        if source.refused.is_set():
            drained.refused = figures.last_error
            return
        now = loop.time()
        if figures.received != before or source.unsettled:
            quiet_since = asked = now
            before = figures.received
        elif now - asked >= idle:
            asked = now
            ready, held = await left() or (0, 0)
            if ready == 0 and (held == 0 or now - quiet_since >= patience):
                drained.held = held
                return


def _take(figures: Figures, drained: Drained, told: Callable[[], None]) -> None:
    if figures.moved != drained.moved:
        drained.moved, drained.bytes = figures.moved, figures.bytes
        told()
