"""What publishes, reads and cuts connections off while the gateway works: threads, so that a test reads as a story."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pika
from pika.exceptions import AMQPError, MethodNotImplemented

from tests.remote_kit import Proxy
from tests.wire import Hangup, Peer
from tests.wire_mqtt import MqttClient

SILENCE = 3.0
"""Seconds without a message after which all has come that will come."""


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until it is so. Raises: TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


class Cutter:
    """A proxy before a broker, on a loop of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._proxy = Proxy(host, port)
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def port(self) -> int:
        return self._proxy.port

    def cut(self) -> None:
        self._call(self._proxy.cut)

    def freeze(self) -> None:
        """Pass nothing more on, of connections that there are and those that come."""
        self._call(self._proxy.freeze)

    def thaw(self) -> None:
        self._call(self._proxy.thaw)

    def __enter__(self) -> Cutter:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, what: Callable[[], None]) -> None:
        async def call() -> None:
            what()
        asyncio.run_coroutine_threadsafe(call(), self._loop).result()


class Publisher(threading.Thread):
    """Publishes numbers to a queue, in order, each until it is confirmed. A rate of 0: as fast as it can."""

    def __init__(self, url: str, queue: str, count: int, rate: int, durable: bool = True) -> None:
        super().__init__()
        self.delivery_mode = 2 if durable else 1
        self.url = url
        self.queue = queue
        self.count = count
        self.rate = rate
        self.confirmed: set[int] = set()
        self.again = 0  # messages that were sent again: it is not known whether the first one has come

    def run(self) -> None:
        number = 0
        began = time.monotonic()
        while number < self.count:
            with suppress(AMQPError, OSError):
                parameters = pika.URLParameters(self.url)
                parameters.socket_timeout = parameters.blocked_connection_timeout = 10
                with pika.BlockingConnection(parameters) as connection:
                    channel = connection.channel()
                    try:
                        channel.confirm_delivery()
                        commit: Callable[[], object] = int
                    except MethodNotImplemented:  # Broker-J does not say that it can
                        channel.tx_select()
                        commit = channel.tx_commit
                    while number < self.count:
                        self.again += 1
                        properties = pika.BasicProperties(delivery_mode=self.delivery_mode, message_id=str(number))
                        channel.basic_publish("", self.queue, b"%d" % number, properties, mandatory=True)
                        commit()
                        self.again -= 1
                        self.confirmed.add(number)
                        number += 1
                        if self.rate:
                            time.sleep(max(0.0, began + number / self.rate - time.monotonic()))
            if number < self.count:
                time.sleep(0.2)


class Devices(threading.Thread):
    """Publishes numbers with QoS 1 to topics below `prefix`, in order, each until it is confirmed."""

    def __init__(self, port: int, prefix: str, count: int, rate: int) -> None:
        super().__init__()
        self.peer = Peer("127.0.0.1", port)
        self.prefix = prefix
        self.count = count
        self.rate = rate
        self.confirmed: dict[int, float] = {}  # number, and when that was
        self.again = 0  # messages that were sent again: it is not known whether the first one has come

    def run(self) -> None:
        number = 0
        began = time.monotonic()
        while number < self.count:
            with suppress(OSError, AssertionError, Hangup), ExitStack() as stack:
                client = MqttClient(self.peer)
                stack.callback(client.drop)
                client.connect(f"device-{self.prefix}")
                while number < self.count:
                    self.again += 1
                    client.send_whole(f"{self.prefix}/{number % 7}", b"%d" % number, 1)
                    self.again -= 1
                    self.confirmed[number] = time.monotonic()
                    number += 1
                    time.sleep(max(0.0, began + number / self.rate - time.monotonic()))
            if number < self.count:
                time.sleep(0.1)


def read_all(url: str, queue: str, wanted: set[int], seconds: float = 90.0) -> list[int]:
    """The numbers that come to a queue, in order: until all that are wanted have come, and then nothing more."""
    received: list[int] = []
    end = time.monotonic() + seconds
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for _, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=SILENCE):
            if body is not None:
                received.append(int(body))
            elif wanted <= set(received) or time.monotonic() > end:
                break
        channel.cancel()
    return received
