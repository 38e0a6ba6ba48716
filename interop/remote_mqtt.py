"""MQTT at a remote broker, by aiomqtt (and paho, which is within it).

Whoever takes topics has a connection of its own, since flow control and what the broker keeps for us belong to a client
id: `From.queue` is that id, and without one the session ends with us. All who send share the connection of the link.

Messages are taken with QoS 1 and acknowledged when the bridge has settled them. (With QoS 2, paho acknowledges before
it gives a message out, so a bridge that is killed would lose it.) They are sent with their own QoS, at least 1 where
somebody waits for confirms. The socket is connected here, since aiomqtt would take a thread for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.message import MQTT, Address, Message, address_of
from broker.outcome import Outcome
from interop.adapter import ROUTES, Adapter, RemoteEnd, fresh_name
from interop.dial import Place, dial_socket, shortened, within
from interop.ends import (
    FORBIDDEN,
    REFUSED,
    TRY_AGAIN,
    Arrived,
    Delivery,
    Done,
    EndError,
    From,
    Options,
    Source,
    Target,
    To,
    Unsupported,
)
from protocols.mqtt import content
from protocols.topics import EXCHANGE, fits, key_of, topic_of

AGAIN = 1.0
"""Seconds until a message that the bridge gave back comes again: a broker of MQTT takes none back."""

MOST_UNCONFIRMED = 1000
"""Messages on their way, if the other side allows so many."""

NOBODY = content.identity(b"", b"")
FOREVER = 0xFFFFFFFF

_PACKET_HEAD = 9
"""Bytes of a PUBLISH beside topic, properties and payload, at most: type, length, those of the topic, packet id."""

_REASONS = {0x87: FORBIDDEN, 0x90: REFUSED, 0x99: REFUSED}
"""What to make of reason codes: not authorized; topic name invalid, payload format invalid. Others may pass."""


class Block(Properties):
    """Properties that are sent in the bytes that they have."""

    block: bytes

    def __init__(self, block: bytes) -> None:
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        object.__setattr__(self, "block", block)

    def pack(self) -> bytes:
        return self.block


class Client(aiomqtt.Client):
    """aiomqtt's client, with callbacks instead of queues and events, and acknowledgement by hand."""

    def __init__(self, place: Place, options: Options, client_id: str, expiry: int, receive_maximum: int) -> None:
        self.place = place
        self.version5 = options.mqtt >= 5
        self.told = ""  # why the other side ended it
        self.most = MOST_UNCONFIRMED
        self.largest = 0  # bytes of a packet that the other side takes; 0 when it does not say
        self.on_arrived: Callable[[Any], None] = lambda message: None
        self.on_confirmed: Callable[[int, Any], None] = lambda number, reason: None
        properties = None
        if self.version5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
            properties.SessionExpiryInterval = min(expiry, FOREVER)
            properties.ReceiveMaximum = receive_maximum
        super().__init__(
            place.host, place.port, username=place.user or None, password=place.password if place.user else None,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if self.version5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if self.version5 else not expiry, clean_start=not expiry if self.version5 else 3,
            timeout=options.timeout, keepalive=options.heartbeat, properties=properties,
            max_inflight_messages=MOST_UNCONFIRMED)
        self._client.manual_ack_set(True)
        self._logger.setLevel(60)  # whoever drives the link says what happened, once

    async def connect(self) -> None:
        """Raises: EndError."""
        made = await dial_socket(self.place, self.timeout)
        # paho would block for it, and aiomqtt take a thread
        self._client._create_socket = lambda: made  # type: ignore[method-assign]  # which is meant
        try:
            await self._lock.acquire()
            self._client_connect()
            await self._wait_for(self._connected, timeout=None)
        except BaseException as error:
            self.drop()
            made.close()
            if not isinstance(error, Exception):
                raise
            raise EndError(f"{self.place}: {_said(error)}") from None

    async def leave(self) -> None:
        """Say good-bye, and wait until the other side has heard it."""
        try:
            with contextlib.suppress(Exception):
                await self.__aexit__(None, None, None)
        finally:
            self.drop()

    def drop(self) -> None:
        """Let go of the socket."""
        self._client._sock_close()  # aiomqtt has no way to do it without the other side
        if self._misc_task is not None:
            self._misc_task.cancel()
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()

    def watch(self, lost: Callable[[str], None]) -> None:
        """Have it told when the connection is lost."""
        def told(future: asyncio.Future[None]) -> None:
            error = None if future.cancelled() else future.exception()
            self.drop()
            lost(self.told or (_said(error) if error is not None else "the other side closed the connection"))
        self._disconnected.add_done_callback(told)

    def send(self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None) -> int:
        """Publish; its number, 0 when it was not sent. Raises: ValueError for what cannot be sent."""
        info = self._client.publish(topic, payload, qos, retain, properties)
        return int(info.mid) if not info.rc else 0

    def acknowledge(self, number: int) -> None:
        self._client.ack(number, 1)

    async def _misc_loop(self) -> None:
        """paho's heartbeats; and a packet that it has read, in a hundred pieces, and overlooked the end of."""
        while self._client.loop_misc() == 0:
            packet = self._client._in_packet
            if packet["have_remaining"] and not packet["to_process"]:
                self._client.loop_read()
            await asyncio.sleep(1)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        maximum = getattr(properties, "ReceiveMaximum", None)
        if maximum:
            self.most = min(MOST_UNCONFIRMED, maximum)
        self.largest = getattr(properties, "MaximumPacketSize", 0)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        if flags.is_disconnect_packet_from_server:
            text = getattr(properties, "ReasonString", "")
            self.told = shortened(f"the other side disconnected: {reason_code}" + (f": {text}" if text else ""))
        elif "eep alive" in str(reason_code):
            self.told = "no answer to a ping: the other side is silent"
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        self.on_arrived(message)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        self.on_confirmed(mid, reason_code)


class RemoteMqtt(Adapter):
    """A connection to a broker of MQTT's, and those of the sources."""

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.numbers: dict[int, TargetMqtt] = {}  # who has sent what is not confirmed
        self.client: Client | None = None

    async def open(self) -> None:
        client = Client(self.place, self.options, self.options.name or fresh_name(), 0, 65535)
        client.on_confirmed = self._confirmed
        await client.connect()
        self.client = client
        client.watch(self.over)

    async def source(self, taken: From) -> SourceMqtt:
        if not taken.exchange and not taken.keys:
            raise Unsupported("a broker of MQTT's has no queues: take topics, by keys")
        return await self.opened(SourceMqtt(self, taken))

    async def target(self, sent: To) -> TargetMqtt:
        if self.client is None or self.lost.done():
            raise EndError("the connection is not open")
        return TargetMqtt(self, sent, self.client)

    async def close(self) -> None:
        self.closing = True
        for end in list(self.ends):
            await end.close()
        if self.client is not None:
            with contextlib.suppress(EndError):
                await within(self.client.leave(), self.goodbye, "to close")

    def _confirmed(self, number: int, reason: Any) -> None:
        target = self.numbers.pop(number, None)
        if target is not None:
            target.confirmed(number, reason)
            self.tell_ready()


class SourceMqtt(RemoteEnd, Source):
    """A session with subscriptions, on a connection of its own."""

    remote: RemoteMqtt

    dialect = MQTT

    def __init__(self, remote: RemoteMqtt, taken: From) -> None:
        self.client = Client(remote.place, remote.options, taken.queue or fresh_name(),
                             remote.options.session_expiry if taken.queue else 0, min(65535, max(1, taken.prefetch)))
        super().__init__(remote)
        self.taken = taken
        self._filters: list[str] = []
        self._arrived: Arrived | None = None
        self._early: list[Any] = []  # what came before there was anybody to tell
        self._again: set[asyncio.TimerHandle] = set()
        self._routes: dict[str, Address] = {}
        self.client.on_arrived = self._came

    async def open(self) -> None:
        self._filters = [filter_of(key) for key in self.taken.keys]
        await self.client.connect()
        self.client.watch(self.over)
        await self._subscribe(self._filters)

    def start(self, arrived: Arrived) -> None:
        self._arrived = arrived
        early, self._early = self._early, []
        for message in early:
            self._came(message)

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        if self.lost.done() or not delivery.handle or self.taken.settled:
            return
        if outcome.accepts or outcome.rejects:
            self.client.acknowledge(delivery.handle)
        else:
            self._repeat(Delivery(delivery.message, True, delivery.handle))

    async def bind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        filters = [filter_of(key) for key in keys]
        await self._subscribe(filters)
        self._filters += filters

    async def unbind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        filters = [filter_of(key) for key in keys]
        try:
            await self.client.unsubscribe(filters)
        except aiomqtt.MqttError as error:
            raise EndError(_said(error)) from None
        self._filters = [each for each in self._filters if each not in filters]

    def cut(self, why: str) -> None:
        """The connection of the link is not the one that this has."""

    def over(self, why: str) -> None:
        for handle in self._again:
            handle.cancel()
        self._again.clear()
        super().over(why)

    async def leave(self) -> None:
        await self.client.leave()

    async def _subscribe(self, filters: list[str]) -> None:
        """Raises: EndError."""
        qos = 0 if self.taken.settled else 1
        try:
            for each in filters:
                if self.client.version5:
                    codes = await self.client.subscribe(each, options=SubscribeOptions(
                        qos, retainAsPublished=True, retainHandling=1))
                else:
                    codes = await self.client.subscribe(each, qos)
                for code in codes:
                    if getattr(code, "value", code) >= 0x80:
                        raise EndError(f"the remote broker does not let us take {each}: {code}")
        except (aiomqtt.MqttError, ValueError) as error:
            raise EndError(_said(error)) from None

    def _came(self, found: Any) -> None:
        if self._arrived is None:
            self._early.append(found)
            return
        topic = found.topic
        number = found.mid if found.qos else 0
        if not any(fits(_unshared(each), topic) for each in self._filters):  # a subscription of former times
            if number:
                self.client.acknowledge(number)
            return
        if self.taken.settled and number:
            self.client.acknowledge(number)
        self._arrived(Delivery(self._message(topic, found), bool(found.dup), number))

    def _message(self, topic: str, found: Any) -> Message:
        properties = content.NO_PROPERTIES
        expiry = 0
        now = int(time.time() * 1000)
        given = found.properties
        if given is not None and not given.isEmpty():
            for name in ("SubscriptionIdentifier", "TopicAlias"):
                if hasattr(given, name):
                    delattr(given, name)
            properties = given.pack()
            if hasattr(given, "MessageExpiryInterval"):
                expiry = now + 1000 * given.MessageExpiryInterval
        flags = found.qos << 1 | (1 if found.retain else 0)
        native, body = content.make_native(flags, NOBODY, topic.encode(), properties, found.payload)
        return Message(self._address(topic), MQTT, native, body, len(found.payload), found.qos > 0, 4, expiry, now)

    def _address(self, topic: str) -> Address:
        address = self._routes.get(topic)
        if address is None:
            if len(self._routes) > ROUTES:
                self._routes.clear()
            try:
                address = address_of(EXCHANGE, key_of(topic))
            except ValueError:  # longer than a key can be: the topic still says all
                address = address_of(EXCHANGE, "")
            self._routes[topic] = address
        return address

    def _repeat(self, delivery: Delivery) -> None:
        def again() -> None:
            self._again.discard(handle)
            if self._arrived is not None:
                self._arrived(delivery)
        handle = self.remote.loop.call_later(AGAIN, again)
        self._again.add(handle)


class TargetMqtt(RemoteEnd, Target):
    """Publishes to topics, on the connection of the link."""

    remote: RemoteMqtt

    dialect = MQTT

    def __init__(self, remote: RemoteMqtt, sent: To, client: Client) -> None:
        super().__init__(remote)
        self.sent = sent
        self.client = client
        self._pending: dict[int, Done] = {}  # by packet id

    def send(self, message: Message, done: Done) -> None:
        if self.lost.done():
            done(self.lost.result(), TRY_AGAIN)
            return
        native = message.native
        at = content.properties_at(native)
        payload = b"".join(content.body_pieces(message))
        properties = Block(native[at:content.block_end(native, at)]) if self.client.version5 else None
        qos = 0 if self.sent.settled else max(1, content.qos(native))
        try:
            topic = self._topic(message)
            if self._is_too_large(topic, payload, properties):
                done(f"it is more than a packet of {self.client.largest} bytes, and the remote broker takes no more",
                     REFUSED)
                return
            number = self.client.send(topic, payload, qos, content.retained(native), properties)
        except ValueError as error:
            done(shortened(f"it cannot be sent over MQTT: {error}"), REFUSED)
            return
        if not number:
            done("the connection is not open", TRY_AGAIN)
        elif not qos:
            done()
        else:
            self._pending[number] = done
            self.remote.numbers[number] = self

    def _is_too_large(self, topic: str, payload: bytes, properties: Block | None) -> bool:
        size = _PACKET_HEAD + len(topic.encode()) + len(payload)
        return 0 < self.client.largest < size + (len(properties.block) if properties is not None else 1)

    def ready(self) -> bool:
        return not self.lost.done() and len(self.remote.numbers) < self.client.most

    def confirmed(self, number: int, reason: Any) -> None:
        done = self._pending.pop(number, None)
        if done is not None:
            if reason is None or not reason.is_failure:
                done()
            else:
                done(f"the remote broker did not take it: {reason}", _REASONS.get(reason.value, TRY_AGAIN))

    def forget(self) -> list[Done]:
        pending, self._pending = self._pending, {}
        for number in pending:
            self.remote.numbers.pop(number, None)
        return list(pending.values())

    async def leave(self) -> None:
        """The connection stays."""

    def _topic(self, message: Message) -> str:
        if self.sent.key is not None or self.sent.queue:
            return topic_of(self.sent.queue or self.sent.key or "")
        topic = content.topic(message.native)
        return topic.decode() if topic else topic_of(message.address.routing_key)


def filter_of(key: str) -> str:
    """The topic filter for a pattern of a topic exchange; one that begins with $share/ is one already.
    Raises: Unsupported."""
    if key.startswith("$share/"):
        return key
    words = key.split(".")
    if "#" in words[:-1]:
        raise Unsupported(f"MQTT has no pattern like {key}: # comes last")
    return "/".join("+" if word == "*" else word if word == "#" else topic_of(word) for word in words)


def _unshared(topic_filter: str) -> str:
    """The filter without the share's name."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


def _said(error: BaseException) -> str:
    """What went wrong, for operators."""
    cause = error.__cause__
    text = str(error) if cause is None else str(cause)
    for known, plain in (("refused", "connection refused"), ("Operation timed out", "no answer in time")):
        if known in text and "Connection refused:" not in text:
            return plain
    return shortened(text.partition("] ")[2] if text.startswith("[code:") else text or type(error).__name__)


