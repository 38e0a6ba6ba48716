"""`$SYS/broker/...`: what a virtual host's MQTT side is doing, under the names that Mosquitto has for it.

Every so often the figures are counted anew, bit by bit, and those that have changed are published to an exchange of the
broker's own, `amq.mqtt.sys`, for the subscriptions that begin with `$SYS`. The last figures are kept for those who
subscribe later, as retained messages are. What is counted is what clients of MQTT do in this virtual host, but for
`store/messages`: that is all that its queues hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from broker.exchange import Exchange
from broker.message import MQTT, Message, address_of
from broker.virtualhost import VirtualHost
from protocols.mqtt.content import NO_PROPERTIES, PUBLISH, identity, make_native
from protocols.topics import EXCHANGE, fits, key_of

SYSTEM_EXCHANGE: Final = "amq.mqtt.sys"
ROOT: Final = "$SYS/broker/"
FILTER_ARGUMENT: Final = "x-mqtt-filter"
"""The argument that a subscription's binding has."""
FAMILY: Final = "MQTT"
"""What the names of MQTT's dialects begin with (ManagedConnection.dialect)."""
SESSION: Final = "mqtt-session:"
SHARED: Final = "mqtt-share:"
"""What the names of the queues of sessions and of shared subscriptions begin with."""

_MINUTES: Final = (1, 5, 15)
_AT_ONCE: Final = 500
_NOBODY: Final = identity(b"", b"")


class Load:
    """How often something happens in a minute, on average over the last one, five and fifteen minutes."""

    __slots__ = ("averages", "last")

    def __init__(self) -> None:
        self.averages = [0.0, 0.0, 0.0]
        self.last = 0

    def count(self, total: int, seconds: float) -> None:
        """It has happened so often by now; seconds: since this was told last. (Exponential, as of a Unix load.)"""
        rate = (total - self.last) * 60 / seconds
        self.last = total
        for number, minutes in enumerate(_MINUTES):
            faded = math.exp(-seconds / (60 * minutes))
            self.averages[number] = rate + faded * (self.averages[number] - rate)


class SystemTopics:
    """The figures of one virtual host."""

    def __init__(self, host: VirtualHost, version: str, interval: int) -> None:
        """version: as people read it; interval: seconds between two counts, 0 for no figures at all."""
        self.host = host
        self.version = version
        self.interval = interval
        self.exchange: Exchange = host.system_exchange(SYSTEM_EXCHANGE, "topic")
        self.exchange.internal = True  # its messages are the broker's, whoever publishes in whatever dialect
        self.values: dict[str, str] = {}  # by topic, as they were published last
        self._loads: dict[str, Load] = {}
        self._most_clients = 0
        self._counted_at = host.broker.clock.now
        if interval:
            host.broker.chores.add(self._count())

    def matching(self, topic_filter: str) -> list[Message]:
        """What somebody gets who subscribes now."""
        return [self._message(topic, value) for topic, value in self.values.items() if fits(topic_filter, topic)]

    def _message(self, topic: str, value: str) -> Message:
        payload = value.encode()
        native, _ = make_native(PUBLISH, _NOBODY, topic.encode(), NO_PROPERTIES, payload)
        return Message(address_of(SYSTEM_EXCHANGE, key_of(topic)), MQTT, native, None, len(payload), False, 4, 0,
                       self.host.broker.clock.now)

    def _due(self) -> None:
        self.host.broker.chores.add(self._count())

    def _count(self) -> Iterator[None]:
        """Count it all, publish what has changed, and see to it that this happens again."""
        sessions = messages = size = 0
        for number, queue in enumerate(list(self.host.queues.values())):
            if queue.name.startswith(SESSION):
                sessions += 1
            messages += queue.ready + queue.unsettled
            size += queue.ready_bytes + queue.unsettled_bytes
            if number % _AT_ONCE == _AT_ONCE - 1:
                yield
        subscriptions = shared = 0
        for name in (EXCHANGE, SYSTEM_EXCHANGE):
            for number, binding in enumerate(list(self.host.exchanges[name].bindings.values())):
                if FILTER_ARGUMENT in binding.arguments:
                    subscriptions += 1
                    if binding.queue is not None and binding.queue.name.startswith(SHARED):
                        shared += 1
                if number % _AT_ONCE == _AT_ONCE - 1:
                    yield
        retained = self.host.retained
        figures = self._traffic(sessions)
        figures |= {"subscriptions/count": subscriptions, "shared_subscriptions/count": shared,
                    "retained messages/count": len(retained) if retained is not None else 0,
                    "messages/stored": messages, "store/messages/count": messages, "store/messages/bytes": size}
        self._publish({ROOT + name: str(value) for name, value in figures.items()})
        self.host.broker.timers.after(1000 * self.interval, self._due)

    def _traffic(self, sessions: int) -> dict[str, int | str]:
        """Who is there, and what has come and gone. sessions: the number of those that have a queue."""
        management = self.host.broker.management
        now = self.host.broker.clock.now
        traffic = management.traffic(self.host, FAMILY)
        connected = sum(each.dialect.startswith(FAMILY) for each in management.connections_of(self.host))
        total = max(sessions, connected)
        self._most_clients = max(self._most_clients, total)
        figures: dict[str, int | str] = {
            "version": f"dragoman version {self.version}",
            "uptime": f"{(now - management.started) // 1000} seconds",
            "clients/connected": connected, "clients/active": connected,
            "clients/disconnected": total - connected, "clients/inactive": total - connected,
            "clients/total": total, "clients/maximum": self._most_clients}
        loads = {"connections": traffic.connections}
        for what, count in (("messages/received", traffic.messages_in), ("messages/sent", traffic.messages_out),
                            ("publish/messages/received", traffic.messages_in),
                            ("publish/messages/sent", traffic.messages_out),
                            ("bytes/received", traffic.bytes_in), ("bytes/sent", traffic.bytes_out)):
            figures[what] = count
            loads[what.replace("publish/messages", "publish")] = count
        return figures | self._averages(loads, now)

    def _averages(self, loads: dict[str, int], now: int) -> dict[str, int | str]:
        averages: dict[str, int | str] = {}
        seconds = (now - self._counted_at) / 1000
        self._counted_at = now
        for what, count in loads.items():
            load = self._loads.setdefault(what, Load())
            if seconds > 0:
                load.count(count, seconds)
            for minutes, average in zip(_MINUTES, load.averages, strict=True):
                averages[f"load/{what}/{minutes}min"] = f"{average:.2f}"
        return averages

    def _publish(self, values: dict[str, str]) -> None:
        changed = [topic for topic, value in values.items() if self.values.get(topic) != value]
        self.values = values
        if self.exchange.bindings:
            for topic in changed:
                self.host.route_and_enqueue(self.exchange, self._message(topic, values[topic]))
