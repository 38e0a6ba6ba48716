"""What a client's connection is in every dialect: output, input that comes in pieces or has to wait, a login, an end.

`FrontEnd` (protocols/frontend.py) is what the server sees of it. The dialects' connections derive from the class here.
"""

from __future__ import annotations

import logging
from typing import Final

from broker.broker import Broker
from broker.consumer import Consumer
from broker.errors import AccessRefused
from broker.security.identity import Identity
from broker.security.sasl import Challenge, Failure, Outcome, SaslServer, Success
from broker.virtualhost import VirtualHost
from protocols.frontend import CHECKING, HELD, FrontEnd, Outlet

logger = logging.getLogger(__name__)

RUNNING: Final = 10
CLOSING: Final = 11
CLOSED: Final = 12
"""States: a virtual host is open; we have said that we close, and the client is to agree; all is over. The states
before them are each dialect's own, from 0 on."""

CLOSE_MS: Final = 10_000
"""How long we wait for a client to agree to a close."""

HANG_UP_MS: Final = 1000
"""How long a client that has closed may take to hang up."""


class ClientConnection(FrontEnd):
    """One client's connection. `peer` names it in the log; `sasl` is what it may log in with."""

    def __init__(self, broker: Broker, sasl: SaslServer, outlet: Outlet, peer: str) -> None:
        super().__init__()
        self.broker = broker
        self.sasl = sasl
        self.outlet = outlet
        self.peer = peer
        self.state = 0
        self.flushing = False  # the outlet knows that there is output
        self.has_news = False  # there is something to tell with the next output
        self.woken: list[Consumer] = []  # parked ones that have room again: asked when all input is done with
        self.gone = False  # the client has hung up
        self.last_input = broker.clock.now
        self._last_output = broker.clock.now
        self._close_by = 0  # ms since the epoch: when to wait no longer
        self._host: VirtualHost | None = None
        self._chunks: list[bytes] = []  # input that is not a whole frame yet
        self._have = 0
        self._need = 0

    @property
    def host(self) -> VirtualHost:
        """The virtual host; only once it is known."""
        assert self._host is not None
        return self._host

    # Output.

    def write(self, data: bytes) -> None:
        """Add to the output."""
        self.out.append(data)
        self.out_size += len(data)
        if not self.flushing:
            self.want_flush()

    def want_flush(self) -> None:
        """Have the output taken when this turn of the loop ends."""
        self.flushing = True
        self.outlet.want_flush()

    def take_output(self) -> list[bytes]:
        if self.has_news:
            self.has_news = False
            self.tell_news()
        self.flushing = False
        self._last_output = self.broker.clock.now
        out = self.out
        self.out = []
        self.out_size = 0
        return out

    def tell_news(self) -> None:
        """Write what was kept for the next output (`has_news`)."""
        raise NotImplementedError

    # Input.

    def receive(self, data: bytes) -> None:
        self.last_input = self.broker.clock.now
        at = 0
        if self._need:
            if self._have + len(data) < self._need or self.paused:
                self._chunks.append(data)
                self._have += len(data)
                return
            at = max(0, self._need - self._have)
            self._chunks.append(data[:at])  # no more than is needed: large chunks are better not copied
            awaited = b"".join(self._chunks)
            self._chunks.clear()
            self._need = 0
            done = self.frames(awaited, 0)
            if done < len(awaited):
                data = awaited[done:] + data[at:] if done >= 0 else b""
                at = 0
        if not self.paused:
            at = self.frames(data, at)
        if 0 <= at < len(data) and self.state != CLOSED:
            rest = data[at:]
            self._chunks.append(rest)
            self._have = len(rest)
            self._need = self.wanted(rest)
        while self.woken:
            woken, self.woken = self.woken, []
            for consumer in woken:
                if consumer.parked:
                    consumer.woken()

    def frames(self, data: bytes, at: int) -> int:
        """Handle all whole frames (of MQTT: packets) from `at` on, as long as input is not paused. Gives where the
        first begins that is not whole or has to wait; -1 if nobody can tell."""
        raise NotImplementedError

    def wanted(self, rest: bytes) -> int:
        """How many bytes there must be, these ones among them, for `frames` to go on; at least 1."""
        raise NotImplementedError

    def pause(self, why: int) -> None:
        """Look at no more input, and read no more: HELD, CONGESTED or CHECKING."""
        if not self.paused:
            self.outlet.pause_reading()
        self.paused |= why

    def unpause(self, why: int) -> None:
        """A reason to pause is over. Once there is none left, input that has waited is looked at."""
        if not self.paused & why:
            return
        self.paused &= ~why
        if self.paused:
            return
        self.last_input = self.broker.clock.now
        self.outlet.resume_reading()
        if self._need and self._have >= self._need:
            self.receive_rest(self.broker.management)

    def drop_input(self) -> None:
        """Of what has come nothing is looked at any more."""
        self._chunks.clear()
        self._need = 0

    def alarms_changed(self, reasons: list[str]) -> None:
        if not reasons:
            self.unpause(HELD)

    # Login: the dialect calls `log_in` and `respond`, and is told by `challenge`, `welcome` or `turn_away`.

    def log_in(self, mechanism: str, response: bytes | None) -> None:
        """The client has chosen a mechanism. Until there is an outcome, at once or later, its input waits."""
        self.mechanism = mechanism
        self.pause(CHECKING)
        self.sasl.start(mechanism, response, self._logged_in)

    def respond(self, response: bytes) -> None:
        """The client has answered a challenge."""
        self.pause(CHECKING)
        self.sasl.step(response, self._logged_in)

    def _logged_in(self, outcome: Outcome) -> None:
        if self.state >= CLOSING:
            return
        if isinstance(outcome, Challenge):
            self.challenge(outcome.data)
        elif isinstance(outcome, Success):
            self.user = outcome.user
            self.identity = outcome.identity
            self.welcome(outcome.extra)
        elif isinstance(outcome, Failure):
            logger.warning("%s: login refused: %s", self.peer, outcome.reason)
            self.broker.management.refused(self, outcome.reason)
            self.turn_away()
        self.unpause(CHECKING)

    def challenge(self, data: bytes) -> None:
        """Send a challenge."""
        raise NotImplementedError

    def welcome(self, extra: bytes) -> None:
        """The client has logged in. extra: what the mechanism has to say besides."""
        raise NotImplementedError

    def turn_away(self) -> None:
        """The client's login is refused: tell it, and not why."""
        raise NotImplementedError

    def renew(self, identity: Identity) -> None:
        self.identity = identity
        self.access = self.broker.policy.access(self, self.host_name)

    # The virtual host.

    def enter(self, host: VirtualHost) -> None:
        """The client is about to open a virtual host. Raises: AccessRefused, LimitReached."""
        try:
            self.outlet.admit(self, host.name)
        except AccessRefused:
            raise AccessRefused(f"access to vhost '{host.name}' refused for user '{self.user}'") from None
        self._host = host
        self.host_name = host.name

    def run(self, dialect: str, remark: str = "") -> None:
        """The client has been told that its virtual host is open. remark: for the log."""
        self.dialect = dialect
        self.opened = True
        self.state = RUNNING
        logger.info("%s: user %s opened vhost %s by %s%s", self.peer, self.user, self.host_name, dialect, remark)
        self.broker.management.opened(self)

    # Time, and the end.

    def tick(self, now: int) -> None:
        if self.state >= CLOSING:
            if now > self._close_by and not self.finished:
                self.finish()
        elif self.state == RUNNING:
            self.beat(now)

    def beat(self, now: int) -> None:
        """About once a second, while a virtual host is open. now: ms since the epoch."""
        raise NotImplementedError

    def show_life(self, now: int, interval: int, frame: bytes) -> None:
        """Write such a frame as a sign of life, in time for a client that wants one every so many ms; 0: none."""
        if interval and not self.out and now - self._last_output >= max(interval // 2 - 500, 0):
            self.write(frame)

    def is_silent(self, now: int, interval: int) -> bool:
        """Whether nothing comes from a client that was to give a sign of life every so many ms; 0: none."""
        return 0 < 2 * interval < now - self.last_input - 1000 and not self.paused

    def heartbeats(self, now: int, seconds: int, frame: bytes) -> None:
        """Of both sides, as AMQP before 1.0 has them: every so many seconds; 0: none."""
        self.show_life(now, 1000 * seconds, frame)
        if self.is_silent(now, 1000 * seconds):
            logger.warning("%s: closed, missed heartbeats from the client for %d s", self.peer, 2 * seconds)
            self.let_go()
            self.finish()

    def let_go(self) -> None:
        """Give back all that the client had. Each dialect adds what that is, and does it first."""
        self.woken.clear()
        self.has_news = False
        self.sasl.close()
        self.broker.management.closed(self)

    def await_close(self) -> None:
        """We have said that we close: the client has a while to agree."""
        self.state = CLOSING
        self._close_by = self.broker.clock.now + CLOSE_MS

    def await_hang_up(self) -> None:
        """The client closes, and we agree: it hangs up. One that saw us do so first may miss that we agree."""
        self.state = CLOSED
        self._close_by = self.broker.clock.now + HANG_UP_MS

    def finish(self) -> None:
        """Close the socket when all is written."""
        self.state = CLOSED
        self.finished = True
        self.drop_input()
        self.want_flush()

    def lost(self) -> None:
        if self.state == RUNNING:
            logger.info("%s: the client hung up without closing the connection", self.peer)
        self.state = CLOSED
        self.gone = True
        self.let_go()
        self.drop_input()
