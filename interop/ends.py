"""The ends of a bridge: where messages come from and where they go, here or at another broker, in whatever dialect.

A bridge takes deliveries from a `Source`, hands their messages to a `Target`, and settles a delivery when the target
has told what became of its message. It does not know which dialect, library or side it has before it: the local
exchanges and queues are ends like any other. All of it runs on the event loop; nothing here blocks it.

Messages are `broker.message.Message`, in the dialect of the end that gives or takes them (`dialect`); a bridge
translates with `Message.translated`, so that what is not to be changed is not changed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker.message import Message
from broker.outcome import Outcome

ANY = 0
"""The dialect of a local end: it gives messages as they were published, in whatever dialect, and takes any."""


class EndError(Exception):
    """An end cannot do what is asked of it; the text is for an operator's eyes, without secrets."""


class Unsupported(EndError):
    """This dialect, or that broker, cannot do this at all."""


@dataclass(frozen=True, slots=True)
class From:
    """What a source takes from: a queue, or an exchange (of MQTT: topics) by keys.

    Of an exchange the remote broker keeps a queue for us: called `queue`, and kept while we are away, when `queue` is
    given; otherwise of a name that the broker chooses, and gone with us.
    """

    queue: str = ""
    exchange: str = ""
    keys: tuple[str, ...] = ()  # routing keys or patterns, in the terms of topic exchanges
    selector: str = ""  # JMS's; where the other broker cannot select, the bridge does
    prefetch: int = 100  # deliveries that may be unsettled, at least 1
    arguments: dict[str, Any] = field(default_factory=dict)  # of the queue that is made
    settled: bool = False  # at most once: messages count as settled when they are delivered
    name: str = ""  # the bridge's, the same in every run: by it, what a killed run has left is ended at once


@dataclass(frozen=True, slots=True)
class To:
    """What a target sends to: an exchange, with its own key or each message's, or a queue."""

    queue: str = ""
    exchange: str = ""
    key: str | None = None  # None: that of each message
    settled: bool = False  # at most once: nobody waits for confirms

    def key_for(self, key: str) -> str:
        """The routing key that a message with this one is sent by."""
        if self.queue:
            return self.queue
        return key if self.key is None else self.key


class Delivery:
    """A message that a source has given out, to be settled by `Source.settle` (unless it gives them settled)."""

    __slots__ = ("message", "redelivered", "handle")

    def __init__(self, message: Message, redelivered: bool, handle: Any) -> None:
        self.message = message
        self.redelivered = redelivered  # it may have been delivered before
        self.handle = handle  # the source's own


Arrived = Callable[[Delivery], None]
"""What a source calls with each delivery, in order, on the loop."""

TRY_AGAIN = 0
REFUSED = 1
NOWHERE = 2
FORBIDDEN = 3
"""What to make of a message that the target has not taken: to try again may help; it will never take it (it was
rejected, is too large); there is no queue for it to go to; we may not send it there, as long as nobody lets us."""


class Done(Protocol):
    """What a target calls once for each message: without anything when it is safe there, or else with why not, and one
    of the above."""

    def __call__(self, why: str = "", reason: int = TRY_AGAIN) -> None:
        ...


class End:
    """What sources and targets have in common."""

    dialect: int
    """Of the messages that it gives or takes, or ANY."""

    lost: asyncio.Future[str]
    """Done when it is over, with why: its queue or exchange is gone, the other side ended it, or the connection was
    lost."""

    def over(self, why: str) -> None:
        """It is over: what is lost, or was closed, is so for good."""
        if not self.lost.done():
            self.lost.set_result(why)

    def tell_ready(self) -> None:
        """There may be room again for whoever sends."""

    async def close(self) -> None:
        """Say good-bye; what is unsettled goes back to where it came from. Nothing happens if it is over."""
        raise NotImplementedError


class Source(End):
    """Gives messages, at most `From.prefetch` of them unsettled."""

    selects: bool = False
    """Whether it gives only what fits `From.selector`; otherwise somebody else has to look."""

    rebinds: bool = False
    """Whether a key has one binding, which gets other arguments when it is bound again; not one more."""

    def start(self, arrived: Arrived) -> None:
        """Deliver from now on."""
        raise NotImplementedError

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Say what became of a delivery; of one whose connection is lost, it is without effect."""
        raise NotImplementedError

    def keeps_rejected(self) -> bool | None:
        """Whether what is rejected there is kept somewhere, as a dead letter; None: nobody knows."""
        return None

    async def bind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        """Of an exchange: take messages with these keys, too. arguments: of the bindings, where they have some.
        Raises: EndError, Unsupported."""
        raise Unsupported("bindings cannot be changed here")

    async def unbind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        """Of an exchange: take messages with these keys no more. arguments: those that they were bound with.
        Raises: EndError, Unsupported."""
        raise Unsupported("bindings cannot be changed here")


class Target(End):
    """Takes messages, in order."""

    _callbacks: tuple[Callable[[], None], ...] = ()

    def send(self, message: Message, done: Done) -> None:
        """Send a message; `done` is called later, perhaps at once; with why, when the connection is lost."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it has room now. After False, `call_when_ready` tells when it has."""
        return True

    def call_when_ready(self, callback: Callable[[], None]) -> None:
        """Call back, once, when there is room again, or it is over."""
        self._callbacks = (*self._callbacks, callback)

    def tell_ready(self) -> None:
        if self._callbacks and (self.lost.done() or self.ready()):
            callbacks, self._callbacks = self._callbacks, ()
            for callback in callbacks:
                callback()

    def forget(self) -> list[Done]:
        """Of which messages nothing is told yet; nothing will be."""
        raise NotImplementedError

    def over(self, why: str) -> None:
        super().over(why)
        for done in self.forget():
            done(why, TRY_AGAIN)
        self.tell_ready()


@dataclass(frozen=True, slots=True)
class Options:
    """How to connect to a remote broker, beside its URL."""

    user: str = ""  # where it is empty, what the URL has
    password: str = field(default="", repr=False)
    mechanism: str = ""  # of SASL; "": the best that both sides have
    tls: ssl.SSLContext | None = None  # for amqps and mqtts; None: the system's authorities, no certificate of ours
    server_name: str = ""  # that the other side's certificate is to have; "": the URL's host
    heartbeat: int = 30  # seconds; 0 for none. A side that is silent for longer is lost, some seconds later
    timeout: float = 30.0  # seconds for connecting and logging in, and for every request after that
    name: str = ""  # container id, client id, connection name; what a remote keeps for us, it keeps for this name
    session_expiry: int = 7 * 86400  # seconds that an MQTT 5 broker keeps what came for us while we are away; 0: not
    mqtt: int = 5  # version of MQTT, 5 or 4 (3.1.1)


class Remote:
    """A connection to another broker, made and not yet opened."""

    lost: asyncio.Future[str]
    """Done when an open connection is lost, with why."""

    product: str = ""
    """What the other broker is, once the connection is open; "" when it does not say."""

    broker_id: str = ""
    """How the other broker calls itself, once the connection is open: what it says as `qpid.federation_tag` in its
    connection or server properties (Dragoman and qpidd do); "" when it does not say."""

    async def open(self) -> None:
        """Connect and log in. Raises: EndError."""
        raise NotImplementedError

    async def source(self, taken: From) -> Source:
        """Raises: EndError, Unsupported."""
        raise NotImplementedError

    async def target(self, sent: To) -> Target:
        """Raises: EndError, Unsupported."""
        raise NotImplementedError

    async def close(self) -> None:
        """Say good-bye; never raises."""
        raise NotImplementedError
