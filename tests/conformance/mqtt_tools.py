"""Devices for the tests of MQTT: paho-mqtt's client, blocking, with what happens to it kept for the test to look at.

    with Device(broker, "name") as device:          # MQTT 5; version=MQTTv311 or MQTTv31 for the older ones
        device.subscribe("a/#", qos=1)
        device.publish("a/b", b"payload", qos=1)    # returns when it is acknowledged
        assert device.next().payload == b"payload"
"""

from __future__ import annotations

import queue
import ssl
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.client import CallbackAPIVersion, MQTTMessage, MQTTv5
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.conformance.support import DEADLINE, LARGE_BODY

LARGE = LARGE_BODY[:1 << 20]
"""Many packets of TLS, but fewer than 100: paho overlooks the end of a packet that it reads in just so many pieces."""


@dataclass(frozen=True)
class Mqtt:
    """A broker of MQTT under test, guest/guest. `peer` tells that it is Mosquitto, to check the tests themselves
    against."""

    host: str
    port: int
    tls_port: int
    amqp_port: int  # that takes AMQP and finds MQTT by itself; of Mosquitto another plain one
    certificate: Path
    peer: bool

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


class Refused(Exception):
    """The broker would not have the client; `code` is its reason (of MQTT 5, into which paho translates older ones),
    `properties` what it said besides."""

    def __init__(self, reason: ReasonCode, properties: Any) -> None:
        super().__init__(str(reason))
        self.code: int = reason.value
        self.properties = properties


def properties(packet: int, **values: Any) -> Properties:
    """Properties of a packet by their names in paho: `properties(PacketTypes.PUBLISH, ContentType="text/plain")`."""
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Device:
    """One client. It does not connect again by itself when its connection breaks."""

    def __init__(self, broker: Mqtt, client_id: str = "", *, version: int = MQTTv5, clean: bool = True,
                 expiry: int | None = None, port: int = 0, tls: bool = False, user: str | None = "guest",
                 password: str | None = "guest", will: dict[str, Any] | None = None, manual_ack: bool = False,
                 connect: bool = True, **connect_options: Any):
        self.broker = broker
        self.version = version
        self.client_id = client_id
        self.clean = clean  # of a new connection: MQTT 5's clean start; of older ones it holds for all connections
        self.port = port or (broker.tls_port if tls else broker.port)
        self._news = threading.Condition()  # notified of whatever the thread of paho has learnt
        self.messages: queue.SimpleQueue[MQTTMessage] = queue.SimpleQueue()
        self.connack: tuple[Any, ReasonCode, Any] | None = None  # flags, reason, properties
        self.ended: ReasonCode | None = None  # why the connection ended, as told to the client
        self._aliases: dict[int, str] = {}
        self.aliases_used = 0
        self._acks: dict[int, Any] = {}  # answers by the packet id: [reasons] and properties
        self._connect_options = {name: value for name, value in
                                 {"SessionExpiryInterval": expiry, **connect_options}.items() if value is not None}
        old = {} if version == MQTTv5 else {"clean_session": clean}
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, manual_ack=manual_ack,
                                reconnect_on_failure=False, **old)
        if user is not None:
            self.paho.username_pw_set(user, password)
        if tls:
            self.paho.tls_set_context(broker.tls())
        if will is not None:
            self.paho.will_set(**will)
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_message = self._on_message
        self.paho.on_publish = self._on_publish
        self.paho.on_subscribe = self.paho.on_unsubscribe = self._on_subscribed
        if connect:
            self.connect()

    def connect(self) -> None:
        """Connect, or again. Raises Refused, OSError."""
        self.connack = self.ended = None
        self._aliases.clear()
        options: dict[str, Any] = {}
        if self.version == MQTTv5:
            options = {"clean_start": self.clean, "properties": properties(PacketTypes.CONNECT,
                                                                           **self._connect_options)}
        self.paho.connect(self.broker.host, self.port, **options)
        self.paho.loop_start()
        self.wait(lambda: self.connack is not None or self.ended is not None, "an answer to CONNECT")
        if self.connack is None or self.connack[1].is_failure:
            self.stop()
            raise Refused(*(self.connack or (None, self.ended, None))[1:])

    def close(self, reason: int = 0, **values: Any) -> None:
        """Say good-bye, and wait until the connection is gone. May be called again."""
        if self.paho.is_connected():
            if self.version == MQTTv5:
                self.paho.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=reason),
                                     properties(PacketTypes.DISCONNECT, **values))
            else:
                self.paho.disconnect()
        self.stop()

    def stop(self) -> None:
        """End the thread, and close the sockets."""
        self.paho.loop_stop()
        self.paho._reset_sockets()  # else it forgets to close the pair of sockets that wakes its thread

    def vanish(self) -> None:
        """Break the connection without a word, as a device does that loses its power."""
        sock = self.paho.socket()
        assert sock is not None
        sock.shutdown(2)
        self.aborted()

    def aborted(self) -> ReasonCode:
        """Wait for the end of the connection; why, as the broker told (MQTT 5) or as paho calls it."""
        self.wait(lambda: self.ended is not None, "the end of the connection")
        self.stop()
        assert self.ended is not None
        return self.ended

    def subscribe(self, topic_filter: str, qos: int = 0, *, identifier: int | None = None,
                  **options: Any) -> int:
        """Subscribe; returns the reason code, of MQTT 3 the QoS granted or 0x80. `options` are MQTT 5's, by paho's
        names."""
        if self.version == MQTTv5:
            given = {} if identifier is None else {"SubscriptionIdentifier": identifier}
            result, mid = self.paho.subscribe(topic_filter, options=SubscribeOptions(qos, **options),
                                              properties=properties(PacketTypes.SUBSCRIBE, **given))
        else:
            result, mid = self.paho.subscribe(topic_filter, qos)
        assert result == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None
        return int(self._answer(mid, "SUBACK")[0][0].value)

    def unsubscribe(self, topic_filter: str) -> list[int]:
        """Unsubscribe; returns MQTT 5's reason codes."""
        result, mid = self.paho.unsubscribe(topic_filter)
        assert result == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None
        return [reason.value for reason in self._answer(mid, "UNSUBACK")[0]]

    def publish(self, topic: str, payload: bytes = b"", qos: int = 0, retain: bool = False, **values: Any) -> int:
        """Publish, wait until it is acknowledged, and return the reason code. `values` are MQTT 5's properties."""
        return int(self._answer(self.send(topic, payload, qos, retain, **values), "PUBACK or PUBCOMP")[0][0].value)

    def send(self, topic: str, payload: bytes = b"", qos: int = 0, retain: bool = False, **values: Any) -> int:
        """Publish without waiting; returns the packet id."""
        given = {name: value for name, value in values.items() if value is not None}
        more = properties(PacketTypes.PUBLISH, **given) if self.version == MQTTv5 else None
        info = self.paho.publish(topic, payload, qos, retain, more)
        assert info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS, info.rc
        return int(info.mid)

    def next(self) -> MQTTMessage:
        """The next message, its topic alias resolved."""
        try:
            return self.messages.get(timeout=DEADLINE)
        except queue.Empty:
            raise AssertionError("no message came") from None

    def payloads(self, count: int) -> list[bytes]:
        return [self.next().payload for _ in range(count)]

    def all(self, publisher: Device | None = None) -> list[MQTTMessage]:
        """All that has come, and is on its way: everything before a message that is published (by the publisher, or
        this device) and subscribed to for this."""
        mark = f"mark/{uuid.uuid4().hex}"
        self.subscribe(mark, 2)
        (publisher or self).publish(mark, b"", 2)
        found: list[MQTTMessage] = []
        while (message := self.next()).topic != mark:
            found.append(message)
        self.unsubscribe(mark)
        return found

    def ack(self, message: MQTTMessage) -> None:
        """Of a device that acknowledges by hand: acknowledge QoS 1."""
        self.paho.ack(message.mid, message.qos)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._news:
            assert self._news.wait_for(condition, DEADLINE), f"never happened: {what}"

    def _learnt(self) -> None:
        with self._news:
            self._news.notify_all()

    def _answer(self, mid: int, what: str) -> Any:
        self.wait(lambda: mid in self._acks or self.ended is not None, what)
        if mid not in self._acks:
            raise AssertionError(f"the connection ended instead of {what}: {self.ended}")
        return self._acks.pop(mid)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, props: Any) -> None:
        self.connack = flags, reason, props
        self._learnt()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, props: Any) -> None:
        self.ended = self.ended or reason  # paho may tell twice: that the broker said so, and that it is gone
        self._learnt()

    def _on_message(self, client: Any, userdata: Any, message: MQTTMessage) -> None:
        alias = getattr(message.properties, "TopicAlias", None)
        if alias is not None and message.topic:
            self._aliases[alias] = message.topic
        elif alias is not None:
            message._topic = self._aliases[alias].encode()  # a plain assignment would be refused
            self.aliases_used += 1
        self.messages.put(message)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason: ReasonCode, props: Any) -> None:
        self._acks[mid] = [reason], props
        self._learnt()

    def _on_subscribed(self, client: Any, userdata: Any, mid: int, reasons: Any, props: Any) -> None:
        self._acks[mid] = reasons, props
        self._learnt()
