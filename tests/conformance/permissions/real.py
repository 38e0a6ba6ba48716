"""The same users, permissions and operations at a real RabbitMQ and here: the same verdicts, in the same words.

What RabbitMQ exports is imported here by `dragoman import rabbitmq`, so the way of the permissions is part of the test.
Run by `python tests/conformance/run_interop.py permissions`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

HERE = Path(__file__).resolve().parent
ROOT = next(folder for folder in HERE.parents if (folder / "setup.cfg").exists())
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import peers  # noqa: E402 - only now it can be found

from dragoman import testing  # noqa: E402

MINE = "^(mine|amq\\.gen)"
USERS = {
    # configure, write, read
    "all": (".*", ".*", ".*"), "mine": (MINE, MINE, MINE), "reader": ("", "", ".*"), "writer": ("", ".*", ""),
    "maker": (".*", "", ""), "nothing": ("", "", ""), "default": ("^$", "^amq\\.default$", "^mine"),
    "bound": (".*", "^mine\\.q$", "^other\\.x$"), "topical": (".*", ".*", ".*"), "apart": ("^(?!other)", ".*", ".*"),
}
TOPICS = {"topical": ("^{username}\\.", "^open\\.")}  # for the exchange mine.x: write, read

Act = Callable[[Any], Any]


def publish(exchange: str, key: str, **properties: Any) -> Act:
    def act(channel: Any) -> None:
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, b"x", pika.BasicProperties(**properties))
    return act


def call(method: str, *arguments: Any, **named: Any) -> Act:
    return lambda channel: getattr(channel, method)(*arguments, **named)


def consume(channel: Any, queue: str) -> None:
    channel.basic_consume(queue, lambda *_: None, auto_ack=False)


ACTS: dict[str, Act] = {
    "declare own queue": call("queue_declare", "mine.q", durable=True),
    "declare other queue": call("queue_declare", "other.q", durable=True),
    "declare passively": call("queue_declare", "other.q", passive=True),
    "declare nothing passively": call("queue_declare", "none.q", passive=True),
    "declare generated": call("queue_declare", "", exclusive=True),
    "declare with own dead letters": call("queue_declare", "mine.d", exclusive=True, arguments={
        "x-dead-letter-exchange": "mine.x"}),
    "declare with other's dead letters": call("queue_declare", "mine.e", exclusive=True, arguments={
        "x-dead-letter-exchange": "other.x"}),
    "delete own queue": call("queue_delete", "mine.none"), "delete other queue": call("queue_delete", "other.none"),
    "purge own": call("queue_purge", "mine.q"), "purge other": call("queue_purge", "other.q"),
    "purge none": call("queue_purge", "none.q"),
    "declare own exchange": call("exchange_declare", "mine.x", "topic", durable=True),
    "declare other exchange": call("exchange_declare", "other.x", "direct", durable=True),
    "declare exchange passively": call("exchange_declare", "other.x", passive=True),
    "declare with alternate": call("exchange_declare", "mine.a", "fanout", auto_delete=True, arguments={
        "alternate-exchange": "other.x"}),
    "delete own exchange": call("exchange_delete", "mine.none"),
    "delete other exchange": call("exchange_delete", "other.none"),
    "bind own to own": call("queue_bind", "mine.q", "mine.x", "k"),
    "bind own to own, open": call("queue_bind", "mine.q", "mine.x", "open.a"),
    "bind own to other": call("queue_bind", "mine.q", "other.x", "k"),
    "bind other to own": call("queue_bind", "other.q", "mine.x", "open.k"),
    "bind none": call("queue_bind", "mine.none", "other.x", "k"),
    "unbind own from other": call("queue_unbind", "mine.q", "other.x", "nothing"),
    "unbind own from own": call("queue_unbind", "mine.q", "mine.x", "nothing"),
    "bind exchanges": call("exchange_bind", "mine.x", "other.x", "k"),
    "bind exchanges, other way": call("exchange_bind", "other.x", "mine.x", "open.k"),
    "unbind exchanges": call("exchange_unbind", "mine.x", "other.x", "nothing"),
    "publish to own": publish("mine.x", "k"), "publish to other": publish("other.x", "k"),
    "publish to own by name": publish("mine.x", "topical.k"), "publish to default": publish("", "mine.q"),
    "publish to none": publish("none.x", "k"), "publish to amq.topic": publish("amq.topic", "k"),
    "publish as somebody else": publish("mine.x", "k", user_id="eve"),
    "get own": call("basic_get", "mine.q", auto_ack=True), "get other": call("basic_get", "other.q", auto_ack=True),
    "get none": call("basic_get", "none.q"),
    "consume own": lambda channel: consume(channel, "mine.q"),
    "consume other": lambda channel: consume(channel, "other.q"),
}


def verdict(url: str, act: Act) -> tuple[int, str]:
    """The code and the text of a refusal; (0, "") when it was done."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        act(connection.channel())
        return 0, ""
    except pika.exceptions.ChannelClosed as error:
        return error.reply_code, re.sub(r"amq\.gen-[\w-]+", "amq.gen-*", error.reply_text)
    finally:
        if connection.is_open:
            connection.close()


def prepare(url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.exchange_declare("mine.x", "topic", durable=True)
    channel.exchange_declare("other.x", "direct", durable=True)
    for name in ("mine.q", "other.q"):
        channel.queue_declare(name, durable=True)
    connection.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URLs of a RabbitMQ and of a broker of ours with what it has exported, with {} for a user."""
    folder = tmp_path_factory.mktemp("both")
    try:
        peer_context = peers.rabbitmq(folder)
        peer = peer_context.__enter__()
    except peers.PeerMissing as error:
        pytest.skip(str(error))
    try:
        for user, patterns in USERS.items():
            peer.control("add_user", user, "secret")
            peer.control("set_permissions", user, *patterns)
        for user, topics in TOPICS.items():
            peer.control("set_topic_permissions", user, "mine.x", *topics)
        peer.control("add_user", "stranger", "secret")
        prepare(f"amqp://guest:guest@{peer.host}:{peer.port}/%2F")
        peer.control("export_definitions", str(folder / "definitions.json"))
        config = (f'[authentication]\nusers_file = "{folder}/users"\n'
                  f'[access]\npermissions_file = "{folder}/permissions"\n')
        (folder / "users").write_text("")
        (folder / "permissions").write_text("permission guest / .* .* .*\n")
        (folder / "d.toml").write_text(config)
        with testing.broker() as first:  # where nobody is refused anything: it writes the files
            done = subprocess.run([sys.executable, "-m", "dragoman", "import", "rabbitmq", "-c", str(folder / "d.toml"),
                                   str(folder / "definitions.json")], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                                  env={**os.environ, "DRAGOMAN_URL": first.url}, stderr=subprocess.STDOUT, timeout=120)
            assert done.returncode == 0, done.stdout
        with testing.broker(config) as ours:
            prepare(ours.url)
            yield (f"amqp://{{}}:secret@{peer.host}:{peer.port}/%2F",
                   f"amqp://{{}}:secret@{ours.host}:{ours.port}/%2F")
    finally:
        peer_context.__exit__(None, None, None)


@pytest.mark.parametrize("user", USERS)
def test_the_same_verdicts_in_the_same_words(both: tuple[str, str], user: str) -> None:
    found = {}
    for name, act in ACTS.items():
        theirs, ours = (verdict(url.format(user), act) for url in both)
        if theirs != ours:
            found[name] = (theirs, ours)
    assert found == {}


def test_who_has_no_permission_does_not_get_in(both: tuple[str, str]) -> None:
    texts = []
    for url in both:
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError) as refused:
            pika.BlockingConnection(pika.URLParameters(url.format("stranger")))
        texts.append(re.search(r"access to vhost '.*' refused for user '\w+'", str(refused.value)))
    assert texts[0] is not None and texts[1] is not None and texts[0][0] == texts[1][0]
