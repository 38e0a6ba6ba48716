"""The pages of docs/gateway/, done as they say: their configurations, commands and programs, with addresses replaced.

Each use case is a function that is given an `Estate` and the brokers that the page is about (`Place`): real ones in
`make interop` (tests/conformance/gateway_docs), Dragomans in their place in `make test`
(tests/unit/test_gateway_docs.py).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika

from broker.security.users import PasswordFile
from dragoman import testing
from interop.amqp010 import blocking
from interop.amqp010 import commands as commands010
from interop.amqp010.errors import Empty

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "gateway"
WAIT = 60.0
USER, PASSWORD = "gateway", "secret"
ENVIRONMENT = {f"{name}_PASSWORD": PASSWORD for name in (
    "RABBIT", "QPID", "BACKEND", "NORTH", "SOUTH", "MOSQUITTO", "HQ")}
PERSISTENT = pika.BasicProperties(delivery_mode=2, headers={"colour": "red"}, message_id="m")


@dataclass
class Place:
    """A broker that a page calls by an example's name."""

    port: int
    stop: Callable[[], object] = lambda: None
    start: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}"


def users_file(folder: Path) -> str:
    """A password file with the user of the pages."""
    file = PasswordFile(str(folder / "users"))
    if not (folder / "users").exists():
        file.set(USER, PASSWORD)
        file.save()
    return file.path


@contextmanager
def stand_in(folder: Path, config: str = "") -> Iterator[Place]:
    """A Dragoman in another broker's place."""
    with testing.broker(f'{config}\n[authentication]\nusers_file = "{users_file(folder)}"\n',
                        store=folder / "stand-in") as broker:
        yield Place(broker.port, broker.stop, broker.start)


class Estate:
    """Somebody who does what a page says."""

    def __init__(self, folder: Path, page: str, places: dict[str, Place]) -> None:
        self.folder = folder
        self.replacing = {name: f"127.0.0.1:{place.port}" for name, place in places.items()}
        text = (PAGES / page).read_text(encoding="utf-8")
        self.blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        self.stack = ExitStack()
        self.brokers: list[testing.Broker] = []

    def __enter__(self) -> Estate:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is not None:
            for broker in self.brokers:
                print(broker.log())
        self.stack.close()

    def replaced(self, text: str) -> str:
        """With the addresses of this run, and nothing else changed."""
        for name, address in self.replacing.items():
            text = re.sub(rf"{re.escape(name)}(:\d+)?", address, text)
        return text.replace('host = "0.0.0.0"\nport = 5672', 'host = "127.0.0.1"\nport = 0')

    def named(self, name: str) -> str:
        """The block that begins with this file name."""
        return self.replaced(next(text for _, text in self.blocks if text.startswith(f"# {name}\n")))

    def dragoman(self, name: str = "dragoman.toml", store: str = "store") -> testing.Broker:
        """Started with a configuration of the page."""
        return self.start(self.named(name), self.folder / store)

    def start(self, config: str, store: Path) -> testing.Broker:
        self.brokers.append(self.stack.enter_context(testing.broker(config, store, ENVIRONMENT)))
        return self.brokers[-1]

    def commands(self) -> list[str]:
        """The blocks that are run in a shell."""
        return [self.replaced(text) for kind, text in self.blocks if kind == "sh"]

    def run(self, script: str, broker: testing.Broker) -> str:
        """Run commands of the page with a broker of ours as the default one; gives what they print."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "dragoman").write_text(f'#!/bin/sh\nexec {sys.executable} -m dragoman "$@"\n')
        (programs / "dragoman").chmod(0o755)
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
                       "DRAGOMAN_URL": broker.url}
        done = subprocess.run(["bash", "-e", "-c", script], cwd=self.folder, env=environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WAIT)
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def program(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a program of the page."""
        (self.folder / name).write_text(self.named(name))
        return subprocess.Popen([sys.executable, name, *arguments], cwd=self.folder, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def channel(self, url: str) -> Any:
        """A channel of 0-9-1 with confirms."""
        connection = pika.BlockingConnection(pika.URLParameters(url))
        self.stack.callback(lambda: connection.is_open and connection.close())
        channel = connection.channel()
        channel.confirm_delivery()
        return channel

    def session(self, place: Place) -> Any:
        """A session of 0-10."""
        connection = self.stack.enter_context(blocking.connect(place.url))
        return connection.session()


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until it is so, and give what it is."""
    end = time.monotonic() + WAIT
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


def count(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def take(channel: Any, queue: str, number: int) -> list[tuple[Any, Any, bytes]]:
    """So many messages of a queue, acknowledged."""
    found: list[tuple[Any, Any, bytes]] = []

    def more() -> bool:
        while len(found) < number:
            message = channel.basic_get(queue, auto_ack=True)
            if message[0] is None:
                return False
            found.append(message)
        return True
    until(more, f"{number} messages in {queue}; there were {len(found)}")
    return found


# The use cases.


def mirror(folder: Path, rabbit: Place, qpid: Place) -> None:
    with Estate(folder, "mirror.md", {"rabbit.example": rabbit, "qpid.example": qpid}) as estate:
        source, sink = estate.channel(rabbit.url), estate.session(qpid)
        source.exchange_declare("market", "topic", durable=True)
        sink.call(commands010.exchange_declare("market", "topic", durable=True))
        for queue, pattern in (("all", "#"), ("europe", "quotes.eu.*")):
            sink.call(commands010.queue_declare(queue, durable=True))
            sink.call(commands010.exchange_bind(queue, "market", pattern))
        ours = estate.dragoman()
        estate.run(estate.commands()[0], ours)
        local = estate.channel(ours.url)
        until(lambda: has_queue(source, "dragoman.market") and has_queue(local, "market.to-qpid"), "both bridges")
        for number in range(100):
            source.basic_publish("market", f"quotes.{('eu', 'us')[number % 2]}.x", b"%d" % number, PERSISTENT)
            source.basic_publish("market", "trades.eu.x", b"unwanted", PERSISTENT)
        receiver = sink.receiver("all")
        found = [receiver.fetch(WAIT) for _ in range(100)]
        sink.acknowledge()
        assert [bytes(each.content) for each in found] == [b"%d" % number for number in range(100)]
        assert {each.routing_key for each in found} == {"quotes.eu.x", "quotes.us.x"}
        assert found[0].properties["colour"] == "red" and found[0].durable
        europe = sink.receiver("europe")
        assert [bytes(europe.fetch(WAIT).content) for _ in range(50)] == [b"%d" % number for number in range(0, 100, 2)]
        assert_empty(receiver)


def has_queue(channel: Any, name: str) -> bool:
    """Asked on a channel of its own, which finding nothing closes."""
    asking = channel.connection.channel()
    try:
        asking.queue_declare(name, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    asking.close()
    return True


def assert_empty(receiver: Any) -> None:
    try:
        raise AssertionError(f"one too many: {receiver.fetch(0.5)}")
    except Empty:
        pass


def drain(folder: Path, qpid: Place, has_qmf: bool) -> None:
    with Estate(folder, "drain.md", {"qpid.example": qpid}) as estate:
        old = estate.session(qpid)
        old.call(commands010.exchange_declare("events", "topic", durable=True))
        for queue in ("orders", "invoices"):
            old.call(commands010.queue_declare(queue, durable=True))
        old.call(commands010.exchange_bind("orders", "events", "order.#"))
        senders = {queue: old.sender(queue) for queue in ("orders", "invoices")}
        for number in range(50):
            for sender in senders.values():
                sender.send(blocking.Message(b"%d" % number, durable=True), sync=False)
        old.sync()
        ours = estate.dragoman()
        topology, rest, without_qmf = estate.commands()
        printed = estate.run(topology if has_qmf else without_qmf, ours)
        channel = estate.channel(ours.url)
        if has_qmf:
            assert "1 exchanges, 2 queues, 1 bindings" in printed
            until(lambda: count(channel, "orders") == 50, "the bridge has moved what was there")
            assert count(channel, "invoices") == 0
            old.sender("events/order.new").send(blocking.Message(b"50", durable=True))  # a publisher that is left
            assert [body for _, _, body in take(channel, "orders", 51)] == [b"%d" % number for number in range(51)]
            printed = estate.run(rest, ours)
            assert "invoices: 50 messages moved" in printed and "orders: 0 messages moved" in printed
            channel.basic_publish("events", "order.newer", b"51", mandatory=True)  # a publisher that is switched
            assert [body for _, _, body in take(channel, "invoices", 50)] == [b"%d" % number for number in range(50)]
        else:
            found = sorted(int(body) for _, _, body in take(channel, "orders", 50))
            assert found == list(range(50))  # by the bridge or by the command: both take from the queue
            receiver = old.receiver("orders")
            assert_empty(receiver)


def requests(folder: Path, backend: Place, declare: Callable[[Estate, list[str]], None]) -> None:
    """declare: makes queues at the backend."""
    with Estate(folder, "requests.md", {"backend.example": backend}) as estate:
        declare(estate, ["prices", "prices.answers"])
        ours = estate.dragoman()
        estate.run(estate.commands()[0], ours)
        with estate.program("service.py", f"127.0.0.1:{backend.port}", USER, PASSWORD) as service, \
                estate.program("shop.py", ours.url) as shop:
            printed, _ = shop.communicate(timeout=WAIT)
            assert (shop.returncode, printed) == (0, "apples cost 3\n"), printed
            printed, _ = service.communicate(timeout=WAIT)
            assert (service.returncode, printed) == (0, ""), printed


def federation(folder: Path, qpid: Place, ports: list[int]) -> None:
    """ports: two free ones, for the Dragomans, which must know each other's."""
    north, south = (Place(port) for port in ports)
    with Estate(folder, "federation.md", {"north.example": north, "south.example": south,
                                          "qpid.example": qpid}) as estate:
        old = estate.session(qpid)
        old.call(commands010.exchange_declare("news", "topic", durable=True))
        users = f'\n[authentication]\nusers_file = "{users_file(folder)}"\n'
        brokers = []
        for name, place in (("north", north), ("south", south)):
            text = estate.named(f"{name}.toml").replace("port = 0", f"port = {place.port}") + users
            brokers.append(estate.start(text, folder / name))
            estate.run(estate.commands()[0], brokers[-1])
        channels = [estate.channel(broker.url) for broker in brokers]
        readers = []
        for channel in channels:
            queue = channel.queue_declare("readers", durable=True).method.queue
            channel.queue_bind(queue, "news", "sport.#")
            readers.append(queue)
        until(lambda: arrives(channels[1], b"probe of the south", channels[0]), "the bindings of the north")
        until(lambda: arrives(channels[0], b"probe of the north", channels[1]), "the bindings of the south")
        qpid_sender = old.sender("news")
        until(lambda: qpid_sender.send(blocking.Message(b"old probe", subject="sport.probe"))
              or b"old probe" in drained(channels[1], "readers"), "bindings of the south are in the old broker")
        channels[0].basic_publish("news", "sport.ski", b"from the north", PERSISTENT)
        channels[0].basic_publish("news", "weather", b"nobody wants it", PERSISTENT)
        until(lambda: b"from the north" in drained(channels[1], "readers"), "news from the north in the south")
        until(lambda: b"from the north" in drained(channels[0], "readers"), "and at home")
        channels[1].queue_unbind("readers", "news", "sport.#")
        bindings = f"dragoman binding list --url {brokers[0].url}"
        until(lambda: "news.to-south" not in estate.run(bindings, brokers[0]), "the binding is taken back")


def arrives(source: Any, body: bytes, target: Any) -> bool:
    """Whether something that is published at one broker is in the readers' queue of the other."""
    source.basic_publish("news", "sport.probe", body, PERSISTENT)
    return body in drained(target, "readers")


def drained(channel: Any, queue: str) -> list[bytes]:
    found = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        found.append(body)


def devices(folder: Path, mosquitto: Place) -> None:
    import paho.mqtt.client as mqtt

    with Estate(folder, "devices.md", {"mosquitto.example": mosquitto}) as estate:
        ours = estate.dragoman()
        estate.run(estate.commands()[0], ours)
        channel = estate.channel(ours.url)
        got: list[tuple[str, bytes]] = []
        device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "device", protocol=mqtt.MQTTv5)
        device.username_pw_set(USER, PASSWORD)
        device.on_message = lambda client, data, message: got.append((message.topic, message.payload))
        subscribed: list[int] = []
        device.on_subscribe = lambda *arguments: subscribed.append(1)
        device.connect("127.0.0.1", mosquitto.port)
        device.loop_start()
        try:
            until(device.is_connected, "the device is connected")
            device.subscribe("commands/cellar/#", qos=1)
            until(lambda: subscribed, "the device has subscribed")

            def reading() -> bool:  # the bridge may not be there yet
                device.publish("readings/temperature/probe", b"probe", qos=1).wait_for_publish(WAIT)
                return count(channel, "temperatures") > 0
            until(reading, "readings come over")
            channel.queue_purge("temperatures")
            for number in range(50):
                device.publish("readings/temperature/cellar", b"%d" % number, qos=1)
            device.publish("readings/smoke/alarm", b"fire", qos=2).wait_for_publish(WAIT)
            method, _, body = take(channel, "alarms", 1)[0]
            assert (method.routing_key, body) == ("readings.smoke.alarm", b"fire")
            found = [body for method, _, body in take(channel, "temperatures", 50)
                     if method.routing_key == "readings.temperature.cellar"]
            found += [body for body in drained(channel, "temperatures") if body != b"probe"]
            assert found == [b"%d" % number for number in range(50)]
            until(lambda: channel.basic_publish("commands", "commands.cellar.light", b"on", PERSISTENT)
                  or ("commands/cellar/light", b"on") in got, "a command reaches the device")
        finally:
            device.disconnect()
            device.loop_stop()


def store_and_forward(folder: Path, hq: Place) -> None:
    """Headquarters is away, comes, goes in the middle of it, and the ship is restarted in between."""
    with Estate(folder, "store-and-forward.md", {"hq.example": hq}) as estate:
        with pika.BlockingConnection(pika.URLParameters(hq.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for queue in ("reports", "orders.ship-7"):
                channel.queue_declare(queue, durable=True)
            channel.basic_publish("", "orders.ship-7", b"come home", PERSISTENT)
        hq.stop()
        ours = estate.dragoman()
        estate.run(estate.commands()[0], ours)
        ship = estate.channel(ours.url)
        for number in range(400):
            ship.basic_publish("", "reports", b"%d" % number, PERSISTENT)
        assert count(ship, "reports") == 400
        ship.connection.close()
        ours.restart()
        hq.start()
        until(lambda: at(hq, "reports") > 50, "reports arrive")
        hq.stop()  # the hour is over
        hq.start()
        until(lambda: at(hq, "reports") >= 400, "all reports arrive")
        ship = estate.channel(ours.url)
        assert take(ship, "orders", 1)[0][2] == b"come home"
        until(lambda: count(ship, "reports") == 0, "nothing is left on board")
        with pika.BlockingConnection(pika.URLParameters(hq.url)) as connection:
            found = [int(body) for body in drained(connection.channel(), "reports")]
        assert set(found) == set(range(400)) and len(found) <= 400 + 500
        assert list(dict.fromkeys(found)) == list(range(400))  # in order, when what came twice is left out


def at(place: Place, queue: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(place.url)) as connection:
        return count(connection.channel(), queue)
