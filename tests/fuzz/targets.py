"""The parsers that are fuzzed: for each, what is done with an input, what may come of it, and where to begin.

`hunt.py` looks for inputs that break them, `test_findings.py` plays the ones that did. An input breaks a parser when it
raises anything but its own errors, or costs more than `cost.py` allows.
"""

from __future__ import annotations

import io
import json
import logging
import random
import ssl
import tempfile
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from broker.argument_values import load as load_arguments
from broker.branch import saved_branch
from broker.message import AMQP010, AMQP091, AMQP10, CONVERTERS, MQTT, Message, address_of
from broker.security.authenticator import Authenticator
from broker.security.identity import Identity, Peer
from broker.security.passwords import ScramVerifier, new_verifier
from broker.security.provider import Answer, Provider, Refusal
from broker.security.sasl import MECHANISMS, SaslServer
from broker.security.users import PasswordFile
from broker.selector import Selector, SelectorError
from broker.topic import TopicTrie
from broker.view import View
from dragoman.config import ConfigError, parse
from interop.amqp010.address import parse_url
from interop.amqp010.errors import AddressError
from interop.ends import EndError, Options
from interop.link import shown
from interop.migration.links import propose_shovel
from interop.migration.plan import Plan
from interop.migration.qpid_config import NotUnderstood, read_text
from interop.migration.rabbitmq import BadDefinitions, read_definitions
from interop.migration.user_files import NotUnderstood as UsersNotUnderstood
from interop.patterns import Pattern, PatternError, Template
from interop.remotes import place_of
from protocols import maps010, values10
from protocols.amqp010 import codec as codec010
from protocols.amqp010 import properties as properties010
from protocols.amqp010.frames import BY_CODE
from protocols.amqp091 import codec as codec091
from protocols.amqp091 import properties as properties091
from protocols.amqp091.frames import BODY, HEADER, V08, V09, V091, frame
from protocols.amqp10 import frames as frames10
from protocols.amqp10.sections import Scan
from protocols.detect import Unknown, protocol_header
from protocols.mqtt.errors import MqttError
from protocols.mqtt.frames import PACKETS, UnsupportedProtocol, check_filter, read, read_length
from protocols.mqtt.state import load_state
from protocols.qmf.agent import Agent
from protocols.qmf.objects import Facts
from protocols.topics import fits, key_of, pattern_of, topic_of
from store import records
from store.journal import StoreDamaged, StoreError
from store.transfer import import_
from tests import captures
from tests.fuzz import access_files, connections, credentials
from tests.fuzz.files import file_of
from tests.fuzz.session import Client, Session
from tests.fuzz.session10 import MESSAGES, Session10
from tests.fuzz.session_mqtt import ClientMqtt, SessionMqtt

Work = Callable[[bytes], object]


class Target:
    """run: does it. expected: what it may raise. seeds: inputs to begin with. share: of the time, beside 1."""

    def __init__(self, run: Work, expected: tuple[type[Exception], ...], seeds: Callable[[], Iterable[bytes]],
                 share: float = 1) -> None:
        self.run = run
        self.expected = expected
        self.seeds = seeds
        self.share = share

    def __call__(self, data: bytes) -> None:
        """Raises what it should not."""
        try:
            self.run(data)
        except self.expected:
            pass


# AMQP 0-9-1.


def _tables(data: bytes) -> None:
    codec091.check_table(data, 0, len(data))
    codec091.write_table(codec091.read_table(data, 0, len(data)))  # what was checked can be read


def _methods091(data: bytes) -> None:
    if len(data) >= 5:
        variant = (V091, V09, V08)[data[0] % 3]
        method = variant.by_number.get(int.from_bytes(data[1:5], "big"))
        if method is not None:
            method.decode(data, 5, len(data))


def _properties091(data: bytes) -> None:
    if len(data) >= 2:
        properties091.scan(data, 0, len(data))
        for bit, encoded in properties091.split(data, 0, len(data)).items():
            properties091.value(bit, encoded)


def _seeds_methods091() -> Iterable[bytes]:
    session = Session(1)
    client = Client(session.broker, V091, "seeds")
    return [b"\0" + frame[7:-1] for _ in range(200) if (frame := session.method(client))]


# AMQP 0-10.


def _methods010(data: bytes) -> None:
    if len(data) >= 2:
        method = BY_CODE.get(data[0] << 8 | data[1])
        if method is not None:
            method.decode(data, 2, len(data))


def _maps010(data: bytes) -> None:
    maps010.write_map(maps010.read_map(data))
    maps010.split_map(data)


def _seeds_methods010() -> Iterable[bytes]:
    return [line.data[12:] for name in captures.names() for line in captures.read(name) if len(line.data) > 12]


# AMQP 1.0.


def _values10(data: bytes) -> None:
    value = values10.decode(data)
    reader = values10.Reader(data, 0, len(data))
    reader.skip()
    values10.encode(value)


def _performatives(data: bytes) -> None:
    if len(data) > 1:
        each = list(frames10.PERFORMATIVES.values())[data[0] % len(frames10.PERFORMATIVES)]
        each.decode(values10.Reader(data, 1, len(data)))


def _sections(data: bytes) -> None:
    Scan(data, True)
    message = Message(address_of("", "q"), AMQP10, data, None, len(data), False, 4, 0, 0)
    message.translated(AMQP091)
    message.translated(AMQP010)
    message.translated(MQTT)


def _seeds10() -> Iterable[bytes]:
    session = Session10(1)
    return [frame for _ in range(200) if (frame := session.performative())]


# MQTT.


def _packets(data: bytes) -> None:
    if len(data) < 2:
        return
    level = 3 + data[0] % 3
    size, at = read_length(data, 2, len(data))
    packet = PACKETS.get(data[1] >> 4)
    if packet is not None and size >= 0 and at + size <= len(data):
        read(packet, level, data[1] & 15, data, at, at + size)


def _seeds_mqtt() -> Iterable[bytes]:
    session = SessionMqtt(1)
    found = []
    for number in range(200):
        client = ClientMqtt(session.broker, session.sessions, "seeds", 3 + number % 3)
        found.append(bytes([number % 3]) + (session.part(client) if number % 5 else session.login(client)))
    return found


# Logging in.


class _Everybody(Provider):
    """Answers for all mechanisms, and lets in whoever shows anything at all."""

    def mechanisms(self) -> set[str]:
        return set(MECHANISMS)

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        answer(Identity(name) if password == b"guest" else Refusal("wrong"))

    def scram(self, scheme: str, name: str, peer: Peer) -> tuple[ScramVerifier, Identity] | Refusal:
        return _verifier(scheme), Identity(name)

    def check_token(self, name: str, token: str, peer: Peer, answer: Answer) -> None:
        answer(Identity(name or "somebody"))

    def check_certificate(self, wanted: str, peer: Peer, answer: Answer) -> None:
        answer(Identity(wanted or "somebody"))


class _Bound(Peer):
    def channel_binding(self, kind: str) -> bytes:
        return b"binding"


@cache
def _verifier(scheme: str) -> ScramVerifier:
    found = new_verifier("guest", scheme)
    assert isinstance(found, ScramVerifier)
    return found


def _sasl(data: bytes) -> None:
    names = [*MECHANISMS, "none"]
    logins = Authenticator([_Everybody()], names, anonymous_user="anonymous")
    server = SaslServer(logins, _Bound(loopback=True, tls=True, certificate=b"certificate"))
    outcomes: list[object] = []
    first, *more = data[1:].split(b"\xff\xfe")
    server.start(names[data[0] % len(names)] if data else "", first, outcomes.append)
    for response in more:
        server.step(response, outcomes.append)
    assert len(outcomes) == 1 + len(more)


def _seeds_sasl() -> Iterable[bytes]:
    texts = (b"\0guest\0guest", b"\5LOGINS\0\0\0\5guest", b"guest", b"n,,n=guest,r=abc",
             b"p=tls-exporter,a=b,n=x,r=abc\xff\xfec=biws,r=abcdef,p=AAAA", b"n,a=u,\1auth=Bearer abc\1\1",
             b"user=u\1auth=Bearer abc\1\1")
    return [bytes([number]) + text for number in range(len(MECHANISMS)) for text in texts]


def _password_file(data: bytes) -> None:
    with file_of(data) as path:
        users = PasswordFile(path)
        users.load()
        users.names()


# Languages.


def _with_headers() -> Message:
    """A message with a few headers of all kinds, for selectors."""
    view = View()
    view.headers = {"a": 1, "b": "text", "c": 2.5, "d": True, "e": None, "f": "%_" * 50}
    return CONVERTERS[AMQP091].encode(view, Message(address_of("", "q"), AMQP091, b"", None, 0, False, 4, 0, 0))


def _selector(data: bytes) -> None:
    Selector(data.decode("utf-8", "surrogateescape")).matches(_with_headers())


def _topics(data: bytes) -> None:
    words = [word.decode("utf-8", "surrogateescape") for word in data.split(b"\n")]
    trie = TopicTrie()
    names = dict.fromkeys(words[1:])
    for name in names:
        trie.add(name, name, name)
    trie.match(words[0])
    for name in names:
        trie.remove(name, name)
    assert not trie.root.children and not trie.hashes


def _topic_filters(data: bytes) -> None:
    topic, _, wanted = data.decode("utf-8", "replace").partition("\n")
    check_filter(wanted)
    assert fits(wanted, topic) in (True, False)
    trie = TopicTrie()
    trie.add(pattern_of(wanted), "x", 1)
    trie.match(key_of(topic))
    topic_of(key_of(topic))


def _patterns(data: bytes) -> None:
    pattern, text, template = [*data.decode("utf-8", "replace").split("\n", 2), "", ""][:3]
    made = Pattern(pattern)
    found = made.match(text)
    if found is not None:
        Template(template, made).fill(found)


# Files.


def _config(data: bytes) -> None:
    parse(data.decode("utf-8", "replace"), "fuzz", "/nowhere")


def _definitions(data: bytes) -> None:
    read_definitions(json.loads(data))


def _qpid_config(data: bytes) -> None:
    read_text(data.decode("utf-8", "replace"))


def _records(data: bytes) -> None:
    key, _, value = data.partition(b"\xff\xff")
    for read_one in (lambda: records.split_entry_key(key), lambda: records.found_entry(key, value),
                     lambda: records.found_record(key), lambda: records.branch_number(key),
                     lambda: records.found_setting(key, value), lambda: records.number(value, 8, "a number")):
        try:
            read_one()
        except StoreError:
            pass
    try:
        saved_branch(1, value)
    except StoreDamaged:
        pass
    try:
        load_state(value)
    except (ValueError, KeyError, TypeError, IndexError, MqttError):
        pass
    load_arguments(value)


def _import(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        import_(Path(folder) / "store", io.StringIO(data.decode("utf-8", "replace")))


_EXPORTED = b"""{"dragoman_store":3,"store_format":3,"last_id":7,"revision":3}
{"setting":"queue\\u0000/\\u0000q","value":"e30=","revision":3}
{"branch":9,"record":"AAAA"}
{"session":11,"key":"AAAA","record":"AAAA"}
{"message":4,"stored":"AAAAAAAA"}
{"entry":3,"queue":1,"lane":0,"message":4,"size":5,"expiry":0,"deliveries":0,"flags":0}
{"end":true,"settings":1,"branches":1,"records":1,"messages":1,"entries":1,"problems":0}
"""

_DEFINITIONS = (
    {"rabbit_version": "3.10.8", "vhosts": [{"name": "/"}], "queues": [
        {"name": "q", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {"x-queue-type": "quorum"}}],
     "exchanges": [{"name": "e", "type": "topic", "durable": True, "internal": False, "arguments": {}}],
     "bindings": [{"source": "e", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "#"}]},
    {"users": [{"name": "u", "password_hash": "AAAAAAAA", "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "administrator"}],
     "permissions": [{"user": "u", "vhost": "/", "configure": ".*", "write": "^a", "read": ""}],
     "policies": [{"name": "p", "vhost": "/", "pattern": "^q", "apply-to": "all", "priority": 1,
                   "definition": {"max-length": 5, "dead-letter-exchange": "e"}}]},
    {"parameters": [{"component": "shovel", "vhost": "/", "name": "s", "value": {
        "src-uri": "amqp://u:p@h/v", "src-queue": "q", "dest-uri": ["amqp://"], "dest-exchange": "e"}},
        {"component": "federation-upstream", "vhost": "/", "name": "f", "value": {"uri": "amqp://h", "max-hops": 1}}]})

# Management and links.


class _Loud(logging.Handler):
    """What the agent logs as an error must not happen."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            raise AssertionError(record.getMessage())


logging.getLogger("protocols.qmf.agent").addHandler(_Loud())
_OPCODES = ("_method_request", "_query_request", "_agent_locate_request", "nonsense")


def _qmf(data: bytes) -> None:
    """A request with this map."""
    session = Session(0)
    Agent(session.host, Facts("0", uuid.UUID(int=1), 10, 0, ""))
    client = Client(session.broker, V091, "console")
    headers = codec091.write_table({"qmf.opcode": _OPCODES[data[0] % 4 if data else 0]})
    body = data[1:]
    header = b"\x00\x3c\x00\x00" + len(body).to_bytes(8, "big") + b"\xa2\x08\x08amqp/map" + headers + b"\x01q\x04qmf2"
    client.connection.receive(
        client.login() + V091.encode("queue.declare", 1, queue="q", exclusive=True)
        + V091.encode("basic.consume", 1, queue="q", no_ack=True)
        + V091.encode("basic.publish", 1, exchange="qmf.default.direct", routing_key="broker")
        + frame(HEADER, 1, header) + frame(BODY, 1, body))
    session.broker.chores.finish()
    session.scheduler.settle()
    client.flush()
    client.check_output()
    client.connection.lost()


def _qmf_call(method: str, **arguments: Any) -> bytes:
    return b"\0" + maps010.write_map({
        "_object_id": {"_object_name": "org.apache.qpid.broker:broker:amqp-broker"}, "_method_name": method,
        "_arguments": arguments})


def _seeds_qmf() -> Iterable[bytes]:
    return [_qmf_call("create", type="queue", name="a", properties={"durable": True}, strict=True),
            _qmf_call("delete", type="queue", name="a", options={}),
            _qmf_call("queueMoveMessages", srcQueue="a", destQueue="b", qty=1, filter={"filter_type": "f"}),
            _qmf_call("create", type="binding", name="amq.topic/q/k", properties={"x": 1}),
            _qmf_call("query", type="queue", name="q"), _qmf_call("create", type="link", name="l", properties={}),
            b"\1" + maps010.write_map({"_what": "OBJECT", "_schema_id": {"_class_name": "queue"}}),
            b"\1" + maps010.write_map({"_what": "OBJECT", "_object_id": {"_object_name": "x:queue:q"}})]


_TLS = ssl.create_default_context()


def _urls(data: bytes) -> None:
    url = data.decode("utf-8", "replace")
    shown(url)
    for read_one in (lambda: place_of(url, Options(tls=_TLS)), lambda: parse_url(url, _TLS)):
        try:
            read_one()
        except (EndError, AddressError):
            pass
    propose_shovel(Plan(), "s", {"src-uri": url, "dest-uri": url, "src-queue": "q", "dest-queue": "q"})


def _detect(data: bytes) -> None:
    protocol_header(data, {})


def _texts(*texts: str) -> Callable[[], Iterable[bytes]]:
    return lambda: [text.encode() for text in texts]


def _noise() -> Iterable[bytes]:
    return [random.Random(1).randbytes(size) for size in (1, 8, 40)]


TARGETS: dict[str, Target] = {
    "tables-0-9-1": Target(_tables, (codec091.Malformed,), lambda: [codec091.write_table(
        {"a": 1, "b": [True, None, {"c": b"d"}], "e": "text", "f": 2.5})[4:]]),
    "methods-0-9-1": Target(_methods091, (codec091.Malformed,), _seeds_methods091),
    "properties-0-9-1": Target(_properties091, (codec091.Malformed,), lambda: [
        b"\x10\x00\x02", b"\xff\xfc" + b"\x01a" * 2 + b"\0\0\0\x00" + b"\x01\x02" + b"\x01a" * 8]),
    "methods-0-10": Target(_methods010, (codec010.Malformed, ValueError), _seeds_methods010),
    "properties-0-10": Target(properties010.split, (properties010.Malformed,), _seeds_methods010),
    "maps-0-10": Target(_maps010, (ValueError,), lambda: [maps010.write_map(
        {"a": 1, "b": [True, None, {"c": b"d"}], "e": "text", "f": 2.5})]),
    "values-1-0": Target(_values10, (values10.Malformed,), lambda: [values10.encode(
        {"a": 1, "b": [True, None, {"c": b"d"}], "e": "text", "f": 2.5})]),
    "performatives-1-0": Target(_performatives, (values10.Malformed,), _seeds10),
    "messages-1-0": Target(_sections, (values10.Malformed,), lambda: MESSAGES),
    "packets-mqtt": Target(_packets, (MqttError, UnsupportedProtocol), _seeds_mqtt),
    "connection-0-9-1": Target(connections.connection091, (), connections.seeds_connection091, 3),
    "connection-0-10": Target(connections.connection010, (), connections.seeds_connection010, 3),
    "connection-1-0": Target(connections.connection10, (), connections.seeds_connection10, 3),
    "connection-mqtt": Target(connections.connection_mqtt, (), connections.seeds_connection_mqtt, 3),
    "detection": Target(_detect, (Unknown,), _texts("AMQP\0\0\x09\x01", "\x10", "AMQP\x03\x01\0\0"), 0.2),
    "sasl": Target(_sasl, (), _seeds_sasl),
    "tokens": Target(credentials.token, (ValueError,), credentials.seeds_token),
    "key-sets": Target(credentials.key_set, (ValueError, RecursionError), credentials.seeds_key_set),
    "certificates": Target(credentials.certificate, (), credentials.seeds_certificate),
    "revocation-lists": Target(credentials.revocation_list, (ValueError,), credentials.seeds_revocation_list, 0.5),
    "password-file": Target(_password_file, (ValueError,), _texts(
        "# comment\nguest:SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA\n",
        "a:$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$AAAA\n", "b:RABBITMQ-SHA256$AAAAAAAA\n")),
    "selector": Target(_selector, (SelectorError,), _texts(
        "a = 1 AND b LIKE '%e_t%' ESCAPE '!' OR NOT (c BETWEEN 1.5 AND 0x10)", "b IN ('x', 'y') AND d IS NOT NULL",
        "-a + 2 * 3 / 4 <> JMSPriority", "amqp.subject = 'x' or \"f\" like '%_%_%'")),
    "topic-patterns": Target(_topics, (), _texts("a.b.c\na.*.c\n#\n#.c\n*.#\na.#.#.c", "\n#\n\n*")),
    "topic-filters": Target(_topic_filters, (MqttError,), _texts("a/b/c\n+/b/#", "a.b\n$share/g/a/+", "$SYS/a\n#")),
    "patterns": Target(_patterns, (PatternError,), _texts("eu.{a}.{b}\neu.x.y\n{b}.{a}", "{{x}}\n{x}\n")),
    "configuration": Target(_config, (ConfigError,), lambda: [
        *(path.read_bytes() for path in Path("docs").glob("*.toml")),
        b'[[listeners]]\nport = 0\ntls = "detect"\n[limits]\nmemory = "24 MiB"\n[[link]]\nname="a"\nurl="amqp://h"\n'
        b'[[bridge]]\nname="b"\nlink="a"\nremote_queue="q"\nlocal_queue="q"\nrules=[{where="a = 1"}]']),
    "definitions": Target(_definitions, (BadDefinitions, ValueError), lambda: [
        json.dumps(each).encode() for each in _DEFINITIONS]),
    "qpid-config": Target(_qpid_config, (NotUnderstood,), lambda: [
        path.read_bytes() for path in Path("tests/unit/definitions").glob("*.txt")]),
    "records": Target(_records, (ValueError,), lambda: [
        b"\0" * 17 + b"\xff\xff" + b"\0" * 27, b'k\xff\xff{"!map": []}',
        b'k\xff\xff{"host": "/", "format": 1, "global": {"!bytes": "AA=="}, "branch": {"!bytes": "AA=="}, "state": 1, '
        b'"settled": {"!bytes": ""}, "copies": {}, "postponed": []}',
        b'k\xff\xff{"client": "c", "user": "u", "expiry": 5, "gone": 5}']),
    "import": Target(_import, (StoreError,), lambda: [_EXPORTED], 0.5),
    "qmf": Target(_qmf, (), _seeds_qmf, 2),
    "acl": Target(access_files.acl, (ValueError,), lambda: access_files.ACL),
    "permissions": Target(access_files.permissions, (ValueError,), _texts(
        "permission u / ^a .* ''\ntopic u / amq.topic ^a\\\\. .*\n# comment\n", "permission 'a b' / '(' x y\n")),
    "user-files": Target(access_files.users, (UsersNotUnderstood,), access_files.seeds_users),
    "urls": Target(_urls, (), _texts("amqps://user:p%40ss@host:5671/v%2Fhost?x=y#z", "mqtt://h", "amqp://[::1]:5/")),
}
"""By name, which is that of the folder of their inputs and of the files of findings."""
