"""Federation among Dragomans: bindings reach through chains of brokers, and in a circle they come to an end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pika
import pytest

from dragoman import testing
from tests.peers import free_ports
from tests.wire import eventually

pytestmark = [pytest.mark.dragoman_only("it is our side that is tested here"), pytest.mark.slow]
PASSWORD = {"PEER_PASSWORD": "guest"}
DIALECTS = pytest.mark.parametrize("dialect", ["0-9-1", "0-10"])


class Site:
    """A broker, and a client of it."""

    def __init__(self, broker: testing.Broker) -> None:
        self.broker = broker
        self.connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        self.channel = self.connection.channel()

    def listen(self, queue: str, key: str) -> None:
        self.channel.queue_declare(queue)
        self.channel.queue_bind(queue, "amq.topic", key)

    def publish(self, key: str, body: bytes) -> None:
        self.channel.basic_publish("amq.topic", key, body)

    def is_wanted(self, key: str) -> bool:
        """Whether a message that is published here goes anywhere."""
        channel = self.connection.channel()
        channel.confirm_delivery()
        try:
            channel.basic_publish("amq.topic", key, b"probe", mandatory=True)
        except pika.exceptions.UnroutableError:
            return False
        finally:
            channel.close()
        return True

    def bodies(self, queue: str) -> list[bytes]:
        """What has come to a queue, without probes."""
        found = []
        while True:
            method, _, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return found
            if body != b"probe":
                found.append(body)


@contextmanager
def sites(dialect: str, pulls: dict[str, str]) -> Iterator[dict[str, Site]]:
    """Brokers by name, each of which takes from the one that `pulls` says, if it says so."""
    ports = dict(zip(pulls, free_ports(len(pulls)), strict=True))
    with ExitStack() as stack:
        made = {}
        for name, upstream in pulls.items():
            config = f'[[listeners]]\nhost = "127.0.0.1"\nport = {ports[name]}\n'
            if upstream:
                config += (f'[[link]]\nname = "up"\nurl = "amqp://127.0.0.1:{ports[upstream]}/"\nuser = "guest"\n'
                           f'password_env = "PEER_PASSWORD"\ndialect = "{dialect}"\nreconnect_max = 1\n'
                           '[[bridge]]\nname = "news"\nlink = "up"\ndirection = "pull"\nremote_exchange = "amq.topic"\n'
                           f'remote_queue = "for-{name}"\nlocal_exchange = "amq.topic"\nfederation = true\n')
            broker = stack.enter_context(testing.broker(config, env=PASSWORD))
            made[name] = Site(broker)
            stack.callback(made[name].connection.close)
        yield made


@DIALECTS
def test_bindings_reach_through_a_chain_and_go_again(dialect: str) -> None:
    with sites(dialect, {"a": "", "b": "a", "c": "b"}) as made:
        a, b, c = made["a"], made["b"], made["c"]
        c.listen("q", "far.#")
        eventually(lambda: a.is_wanted("far.x"))
        assert not a.is_wanted("near.x")
        a.publish("far.x", b"through")
        found: list[bytes] = []
        eventually(lambda: found.extend(c.bodies("q")) or found)
        assert found == [b"through"]
        b.listen("q", "far.#")  # now b wants it itself: a is told of the shorter way, and nothing comes twice
        a.publish("far.x", b"again")
        eventually(lambda: found.extend(c.bodies("q")) or len(found) > 1)
        assert found == [b"through", b"again"]
        c.channel.queue_delete("q")
        eventually(lambda: b.bodies("q") == [b"again"])
        assert a.is_wanted("far.x")
        b.channel.queue_delete("q")
        eventually(lambda: not a.is_wanted("far.x"))


@DIALECTS
def test_in_a_ring_bindings_come_to_an_end_and_messages_come_once(dialect: str) -> None:
    with sites(dialect, {"a": "c", "b": "a", "c": "b"}) as made:
        a, b, c = made["a"], made["b"], made["c"]
        c.listen("q", "k")
        eventually(lambda: a.is_wanted("k") and b.is_wanted("k"))
        for site, body in ((a, b"from a"), (b, b"from b"), (c, b"from c")):
            site.publish("k", body)
        found: list[bytes] = []
        eventually(lambda: bool(found.extend(c.bodies("q")) or len(found) >= 3))
        c.publish("k", b"last")
        eventually(lambda: bool(found.extend(c.bodies("q")) or b"last" in found))
        assert sorted(found) == [b"from a", b"from b", b"from c", b"last"]
        c.channel.queue_delete("q")
        eventually(lambda: not any(site.is_wanted("k") for site in (a, b, c)))
