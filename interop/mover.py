"""The moving itself: from a source that is open to a target that is open, until one of them is lost.

Order is kept: deliveries are sent in the order in which they came. One that fails for now stops the sending of all
later ones; when those that are on their way have been told of, all that failed is sent again, in order, after a while
that grows from try to try. What was sent behind it has overtaken it by then, if the target took that: so from the
first refusal on, messages go one at a time for a while, and always where the order is to be strict (`Care`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from broker.message import Message
from broker.outcome import ACCEPT, REJECT, RELEASE
from broker.selector import Selector
from interop.care import Care, described
from interop.ends import ANY, REFUSED, TRY_AGAIN, Delivery, Source, Target

logger = logging.getLogger(__name__)

FIRST_RETRY = 0.05
LAST_RETRY = 30.0
"""Seconds from a failure to the next try, which double from try to try."""

BURST = 0.1
"""Seconds' worth of messages that a rate limit lets go at once, after a rest."""


class Figures:
    """What a bridge has done since the broker was started."""

    __slots__ = ("received", "moved", "bytes", "rejected", "retried", "looped", "duplicates", "unwanted", "lost",
                 "delay", "last_error")

    def __init__(self) -> None:
        self.received = 0  # deliveries from the source
        self.moved = 0  # that are safe at the target
        self.bytes = 0  # of those
        self.rejected = 0  # that the target would never take
        self.retried = 0  # times that the target would not take one for now
        self.looped = 0  # that have been here before, or came through too many brokers
        self.duplicates = 0  # that the target has had already
        self.unwanted = 0  # that the selector or a rule left out
        self.lost = 0  # at most once: that the target did not take
        self.delay = 0  # ms from the arrival of the last moved one here, or in the local queue, until it was safe
        self.last_error = ""


class Skipped(Exception):
    """A message is not to be moved; `counter` is the figure that counts it."""

    def __init__(self, counter: str) -> None:
        super().__init__(counter)
        self.counter = counter


Change = Callable[[Message, Delivery], Message]
"""What makes of a message the one that is sent. Raises: Skipped."""


class _Sent:
    """A delivery on its way to the target, and what the target calls when it knows."""

    __slots__ = ("mover", "delivery", "number")

    def __init__(self, mover: Mover, delivery: Delivery, number: int) -> None:
        self.mover = mover
        self.delivery = delivery
        self.number = number

    def __call__(self, why: str = "", reason: int = TRY_AGAIN) -> None:
        self.mover.told(self, why, reason)


class Mover:
    """One run of a bridge: `start` it, `stop` it."""

    def __init__(self, source: Source, target: Target, figures: Figures, changes: list[Change], settled: bool = False,
                 rate: int = 0, selector: str = "", now: Callable[[], int] = lambda: 0,
                 care: Care | None = None) -> None:
        """settled: at most once. rate: messages a second, 0 for any. selector: what the source does not select.
        now: the time, ms since the epoch. care: that of the bridge."""
        self.source = source
        self.target = target
        self.figures = figures
        self.changes = changes
        self.settled = settled
        self.rate = rate
        self.selector = Selector(selector) if selector and not source.selects else None
        self.now = now
        self.care = care or Care()
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[Delivery] = deque()
        self.outstanding = 0
        self.stopped = False
        self.idle = asyncio.Event()  # nothing is on its way
        self.idle.set()
        self.blocked: asyncio.Future[str] = self.loop.create_future()
        """Done when a message is never taken and must not be rejected, with which one and why."""
        self.cut: list[Delivery] = []  # that were on their way when the target was lost
        self._number = 0
        self._failed: list[_Sent] = []
        self._retry = FIRST_RETRY
        self._timer: asyncio.TimerHandle | None = None  # until which nothing is sent
        self._awaits_room = False
        self._pumping = False
        self._room = BURST * rate  # messages that may go at once
        self._room_at = self.loop.time()

    def start(self) -> None:
        self.source.start(self.arrived)

    async def stop(self, seconds: float) -> None:
        """Send no more, wait for what is on its way for up to so long, and give back the rest."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self.outstanding:
            try:
                await asyncio.wait_for(self.idle.wait(), seconds)
            except TimeoutError:
                logger.debug("%d messages are not confirmed within %s s", self.outstanding, seconds)
        failed = [each.delivery for each in sorted(self._failed, key=_number)]
        if not self.settled:
            for delivery in [*failed, *self.waiting]:
                self.source.settle(delivery, RELEASE)
        self._failed.clear()
        self.waiting.clear()

    # In.

    def arrived(self, delivery: Delivery) -> None:
        self.figures.received += 1
        if self.stopped:
            return  # the source gives it back when it is closed
        self.waiting.append(delivery)
        self.pump()

    def pump(self) -> None:
        """Send what may be sent now."""
        if self._pumping:
            return
        self._pumping = True
        try:
            waiting = self.waiting
            while waiting and not self.stopped and self._timer is None and not self._failed and self._may_send():
                self._send(waiting.popleft())
        finally:
            self._pumping = False

    def _may_send(self) -> bool:
        if self._awaits_room or (self.outstanding and self.care.one_at_a_time()):
            return False
        if not self.target.ready():
            self._awaits_room = True
            self.target.call_when_ready(self._has_room)
            return False
        if self.rate:
            now = self.loop.time()
            self._room = min(max(1.0, BURST * self.rate), self._room + (now - self._room_at) * self.rate)
            self._room_at = now
            if self._room < 1:
                self._timer = self.loop.call_later((1 - self._room) / self.rate, self._go_on)
                return False
            self._room -= 1
        return True

    def _has_room(self) -> None:
        self._awaits_room = False
        self.pump()

    def _go_on(self) -> None:
        self._timer = None
        self.pump()

    def _send(self, delivery: Delivery) -> None:
        message, wrong = None, ""
        try:
            message = self._changed(delivery)
        except Skipped as skipped:
            figures: Any = self.figures
            setattr(figures, skipped.counter, getattr(figures, skipped.counter) + 1)
            if not self.settled:
                self.source.settle(delivery, ACCEPT)
            return
        except Exception as error:  # must never happen; one bad message is not to stop the others
            logger.exception("a message cannot be changed as the bridge is to do")
            wrong = f"it cannot be changed: {error}"
        self._number += 1
        self.outstanding += 1
        self.idle.clear()
        sent = _Sent(self, delivery, self._number)
        if message is None:
            self.told(sent, wrong, REFUSED)
        else:
            self.target.send(message, sent)

    def _changed(self, delivery: Delivery) -> Message:
        """Raises: Skipped."""
        message = delivery.message
        if self.selector is not None and not self.selector.matches(message):
            raise Skipped("unwanted")
        for change in self.changes:
            message = change(message, delivery)
        wanted = self.target.dialect
        return message if wanted in (ANY, message.dialect) else message.translated(wanted)

    # Out.

    def told(self, sent: _Sent, why: str, reason: int) -> None:
        """The target has told what became of a message; why and reason are those of `Done`."""
        self.outstanding -= 1
        figures = self.figures
        delivery = sent.delivery
        if not why:
            figures.moved += 1
            figures.bytes += delivery.message.size
            figures.delay = max(0, self.now() - delivery.message.arrival)
            self._retry = FIRST_RETRY
            self.care.taken()
            if not self.settled:
                self.source.settle(delivery, ACCEPT)
        elif self.settled:
            figures.lost += 1
            figures.last_error = why
        elif reason:
            if not self.refuse(delivery, why, reason):
                self._failed.append(sent)
        else:
            figures.retried += 1
            figures.last_error = why
            self._failed.append(sent)
            if self.target.lost.done():
                self.cut.append(delivery)
            else:
                self.care.refused()
        if self.outstanding == 0:
            self.idle.set()
            if self._failed and not self.stopped and not self.blocked.done():
                self._try_later()
        if self.waiting:
            self.pump()

    def refuse(self, delivery: Delivery, why: str, reason: int) -> bool:
        """The target will never take a message: reject it at its source, or be blocked by it. Gives whether it is
        rejected."""
        figures = self.figures
        if self.care.rejects(reason, self.source.keeps_rejected()):
            if why != self.care.told:  # once, not for each message
                self.care.told = why
                logger.warning("%s is rejected at its source: %s", described(delivery.message), why)
            figures.last_error = why
            figures.rejected += 1
            self.source.settle(delivery, REJECT)
            return True
        if not self.blocked.done():
            self.care.block()
            figures.last_error = f"{described(delivery.message)}: {why}"
            self.blocked.set_result(figures.last_error)
        return False

    def blame(self, why: str, reason: int) -> None:
        """The target was lost because of the only message that was on its way."""
        delivery = self.cut[0]
        if self.refuse(delivery, why, reason):
            self._failed = [each for each in self._failed if each.delivery is not delivery]

    def _try_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self._retry, self._try_again)
        self._retry = min(2 * self._retry, LAST_RETRY)

    def _try_again(self) -> None:
        self._timer = None
        failed, self._failed = sorted(self._failed, key=_number), []
        self.waiting.extendleft(each.delivery for each in reversed(failed))
        self.pump()


def _number(sent: _Sent) -> int:
    return sent.number
