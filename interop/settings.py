"""What a link and a bridge are told to be: plain values, whoever read them from wherever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker.message import AMQP010, AMQP091, AMQP10, MQTT
from interop.care import DEAD_LETTER
from interop.ends import From, To

PULL = "pull"
PUSH = "push"

AT_LEAST_ONCE = "at-least-once"
AT_MOST_ONCE = "at-most-once"
EXACTLY_ONCE = "exactly-once"

DIALECTS = {"0-9-1": AMQP091, "0-10": AMQP010, "1.0": AMQP10, "mqtt": MQTT}
"""By the name that a link's settings have for them; "auto" is by the scheme of the URL."""


@dataclass(frozen=True)
class LinkSettings:
    """A connection to another broker."""

    name: str = ""
    url: str = ""
    dialect: str = "auto"
    failover: tuple[str, ...] = ()  # further URLs, tried in turn
    user: str = ""
    password_file: str = ""  # whose first line is the password
    password_env: str = ""  # the environment variable that has it
    mechanism: str = ""
    ca: str = ""  # PEM files
    certificate: str = ""
    key: str = ""
    verify: bool = True  # the other side's certificate
    server_name: str = ""
    heartbeat: int = 30  # seconds
    timeout: int = 30  # seconds, of connecting and of every request
    reconnect_min: int = 1  # seconds
    reconnect_max: int = 60
    client: str = ""  # what we call ourselves there; "": made of the broker's id and the link's name
    mqtt_version: str = "5.0"
    session_expiry: int = 7 * 86400  # seconds

    def dialect_name(self) -> str:
        number = self.dialect_number()
        return next(name for name, each in DIALECTS.items() if each == number)

    def dialect_number(self) -> int:
        if self.dialect == "auto":
            return MQTT if self.url.startswith("mqtt") else AMQP091
        return DIALECTS[self.dialect]


@dataclass(frozen=True)
class BridgeSettings:
    """Messages that are moved over a link, in one direction."""

    name: str = ""
    link: str = ""
    direction: str = PULL
    virtual_host: str = ""  # ours; "" for the first
    local_queue: str = ""
    local_exchange: str = ""
    remote_queue: str = ""
    remote_exchange: str = ""
    keys: tuple[str, ...] = ()  # that are taken from an exchange
    key: str = ""  # that it is sent with; "": each message's own
    selector: str = ""
    prefetch: int = 100
    rate: int = 0  # messages a second; 0 for any
    acknowledge: str = AT_LEAST_ONCE
    federation: bool = False  # what is taken from the remote exchange follows the bindings of the local one
    federation_hops: int = 16  # brokers that a binding may have come through
    hops: int = 16  # brokers that a message may have come through
    trace: bool = True  # note in each message that it came through here
    window: int = 10_000  # message ids that exactly-once remembers
    rules: tuple[dict[str, Any], ...] = ()
    reply_to: str = ""  # the address there that answers to requests are to come to
    reply_seconds: int = 300  # how long a request waits for its answer
    replies: bool = False  # what it takes are such answers
    arguments: tuple[tuple[str, Any], ...] = ()  # of the queue that is made where it takes from an exchange
    on_refused: str = DEAD_LETTER  # what becomes of messages that the other side never takes
    strict_order: bool = False  # one at a time, so that none can overtake another that is refused
    paused: bool = False

    def taken(self) -> From:
        """What its source takes from."""
        pulls = self.direction == PULL
        return From(self.remote_queue if pulls else self.local_queue,
                    self.remote_exchange if pulls else self.local_exchange, () if self.federation else self.keys,
                    self.selector, self.prefetch, dict(self.arguments), self.acknowledge == AT_MOST_ONCE,
                    self.name)

    def sent(self) -> To:
        """Where its target sends to."""
        if self.replies:
            return To()
        pulls = self.direction == PULL
        return To(self.local_queue if pulls else self.remote_queue,
                  self.local_exchange if pulls else self.remote_exchange, self.key or None,
                  self.acknowledge == AT_MOST_ONCE)
