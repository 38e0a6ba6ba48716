"""Clients of MQTT that keep their half of a session, as a device with a disk would, over a broker that dies."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from tests.wire import Hangup, Peer
from tests.wire_mqtt import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, MqttClient, Packet

WINDOW = 40  # messages that wait for their acknowledgements
BROKEN = (Hangup, OSError)


class Device:
    """One client with a session that never ends. Its state outlives its connections."""

    def __init__(self, client_id: str, level: int) -> None:
        self.client_id = client_id
        self.level = level
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None
        self.was_there = False

    def connect(self, port: int) -> MqttClient:
        client = MqttClient(Peer("127.0.0.1", port), self.level)
        try:
            more = {"SessionExpiryInterval": 0xFFFFFFFF} if self.level == 5 else {}
            connack = client.connect(self.client_id, clean=False, **more)
            assert connack.flags == self.was_there, f"{self.client_id}: session present is {connack.flags}"
        except BaseException:
            client.drop()
            raise
        return client

    def start(self, port: int) -> None:
        self.thread = threading.Thread(target=self._run, args=(port,))
        self.thread.start()

    def join(self) -> bool:
        """False: it hangs."""
        assert self.thread is not None
        self.thread.join(60)
        if self.error is not None:
            raise self.error
        return not self.thread.is_alive()

    def _run(self, port: int) -> None:
        try:
            with contextlib.suppress(*BROKEN):
                client = self.connect(port)
                try:
                    self.work(client)
                finally:
                    client.drop()
        except BaseException as error:  # for `join`
            self.error = error

    def work(self, client: MqttClient) -> None:
        """Until the broker is gone, or all is done."""
        raise NotImplementedError


class Writer(Device):
    """Publishes numbers with QoS 1 or 2 until it is told to stop, and then what is not acknowledged yet."""

    def __init__(self, client_id: str, level: int, topic: str, qos: int) -> None:
        super().__init__(client_id, level)
        self.topic = topic
        self.qos = qos
        self.sent = 0
        self.stopping = False
        self.pending: dict[int, bytes] = {}  # by packet id, in order; b"" when only PUBCOMP is missing
        self.next_id = 0

    def work(self, client: MqttClient) -> None:
        for packet_id, payload in list(self.pending.items()):
            if payload:
                client.publish(self.topic, payload, self.qos, packet_id=packet_id, duplicate=True)
            else:
                client.acknowledge(PUBREL, packet_id)
        while True:
            while len(self.pending) < WINDOW and not self.stopping:
                self.next_id = self.next_id % 65535 + 1
                payload = self.pending[self.next_id] = b"%d" % self.sent
                self.sent += 1
                client.publish(self.topic, payload, self.qos, packet_id=self.next_id)
            if not self.pending:
                return
            self._take(client, client.read())

    def _take(self, client: MqttClient, found: Packet) -> None:
        if found.kind == PUBREC:
            assert found.packet_id in self.pending, found
            self.pending[found.packet_id] = b""
            client.acknowledge(PUBREL, found.packet_id)
        else:
            assert found.kind == (PUBACK if self.qos == 1 else PUBCOMP), found
            self.pending.pop(found.packet_id, None)


class Reader(Device):
    """Takes what comes with QoS 1 or 2, as method A of 4.3.3 does, and remembers it."""

    def __init__(self, client_id: str, level: int, topic_filter: str, done: Callable[[], bool]) -> None:
        super().__init__(client_id, level)
        self.filter = topic_filter
        self.done = done
        self.found: dict[str, list[int]] = {}  # by topic
        self.held: set[int] = set()  # packet ids of QoS 2 that are not released

    def subscribe(self, port: int) -> None:
        client = self.connect(port)
        assert client.subscribe((self.filter, 2)) == [2]
        client.disconnect()
        self.was_there = True

    def work(self, client: MqttClient) -> None:
        over = False
        while not over:  # one round more, in which the broker sees the last that was sent
            over = self.done() and not self.held
            client.ping()
            while client.inbox:
                self._take(client, client.inbox.popleft())

    def _take(self, client: MqttClient, found: Packet) -> None:
        numbers = self.found.setdefault(found.topic, [])
        if found.kind == PUBREL:
            self.held.discard(found.packet_id)
            client.acknowledge(PUBCOMP, found.packet_id)
        elif found.qos == 1:
            numbers.append(int(found.payload))
            client.acknowledge(PUBACK, found.packet_id)
        else:
            assert found.kind == PUBLISH and found.qos == 2, found
            if found.packet_id not in self.held:
                self.held.add(found.packet_id)
                numbers.append(int(found.payload))
            client.acknowledge(PUBREC, found.packet_id)
