"""The agent: it takes requests from the exchanges of QMF, and answers them where their `reply-to` says.

`qmf.default.direct`, key `broker`, is where its requests come; `qmf.default.topic` where it tells of events, sends
heartbeats and what has changed; consoles ask there who is present. `qpid.management` is for the old consoles' first
questions, which are in binary. There is an agent for each virtual host, and it shows nothing of the others.

Requests are dealt with one after the other, in small steps between which the broker goes on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

from broker.consumer import Consumer
from broker.entry import Entry
from broker.errors import AccessRefused, BrokerError
from broker.management import Event, ManagedConnection, Observer
from broker.message import AMQP10, CONVERTERS, Message, address_of
from broker.queue import Queue
from broker.queue_settings import QueueSettings
from broker.security.access import Access
from broker.values import UInt, ULong
from broker.view import BYTES, VALUE, View
from broker.virtualhost import VirtualHost
from protocols.nodes import find as find_node
from protocols.qmf import binary
from protocols.qmf.events import event_maps
from protocols.qmf.methods import MethodError, call
from protocols.qmf.objects import OBJECTS, Facts, Objects, find, kind_and_key
from protocols.qmf.schema import PACKAGE, package_of
from protocols.qmf.values import plain_text
from protocols.routes import ask_to_publish

logger = logging.getLogger(__name__)

DIRECT = "qmf.default.direct"
TOPIC = "qmf.default.topic"
OLD = "qpid.management"

VENDOR, PRODUCT = "apache.org", "qpidd"
"""Consoles know a broker's own agent by these."""

OBJECTS_A_MESSAGE = 50
"""Objects in one message of a reply, and objects that are made in one step."""

MOST_REQUESTS = 100
"""Requests that the agent takes ahead; the others wait in its queue."""

MOST_EVENTS = 10_000
"""Events that wait to be told; what comes then is not told."""

_SEVERITIES = ("emerg", "alert", "crit", "error", "warn", "note", "info", "debug")

EXCEPTION = 7
"""The status of an error that has no number of its own."""


class Request:
    """A message to the agent. actor: the connection it came by, None when the broker itself has published it."""

    __slots__ = ("message", "actor")

    def __init__(self, message: Message, actor: ManagedConnection | None) -> None:
        self.message = message
        self.actor = actor


class Inbox(Consumer):
    """Takes the messages of the agent's queue."""

    def __init__(self, agent: Agent, queue: Queue) -> None:
        super().__init__(queue, "agent", 0, True, False)
        self.agent = agent

    def ready(self) -> bool:
        return self.agent.waiting < MOST_REQUESTS

    def deliver(self, entry: Entry, message: Message) -> None:
        self.agent.take(message)

    def cancelled(self) -> None:
        pass


class Agent(Observer):
    """The agent of one virtual host."""

    def __init__(self, host: VirtualHost, facts: Facts) -> None:
        self.host = host
        self.facts = facts
        self.management = host.broker.management
        self.name = f"{VENDOR}:{PRODUCT}:{facts.uuid}"
        self._suffix = f"apache_org.{PRODUCT}.{facts.uuid}"  # of the keys of what it tells unasked
        self.waiting = 0  # requests in _todo
        self._todo: deque[Request | Event] = deque()
        self._busy = False
        self.direct = host.system_exchange(DIRECT, "direct")
        self.topic = host.system_exchange(TOPIC, "topic")
        self.old = host.system_exchange(OLD, "topic")
        queue = Queue(host, "the management agent's", host.broker.log.new_id(), False, True, False, {},
                      QueueSettings(), self)
        queue.hidden = True
        for exchange, key in ((self.direct, "broker"), (self.direct, self.name), (self.old, "broker"),
                              (self.topic, "console.request.agent_locate")):
            host.bind(exchange, queue, key, {})
        self._inbox = Inbox(self, queue)
        queue.add(self._inbox)
        self.management.observers.append(self)
        self._publish_later()

    # What comes.

    def take(self, message: Message) -> None:
        """A request; it is dealt with in a turn of its own."""
        self.waiting += 1
        self._do(Request(message, None if self.management.relaying else self.management.actor))

    def happened(self, event: Event) -> None:
        listened = len(self.topic.bindings) > 1  # one is the agent's
        if event.host in ("", self.host.name) and listened and len(self._todo) < MOST_EVENTS:
            self._do(event)

    def _do(self, what: Request | Event) -> None:
        self._todo.append(what)
        if not self._busy:
            self._busy = True
            self.host.broker.chores.add(self._work())

    def _work(self) -> Iterator[None]:
        while self._todo:
            what = self._todo.popleft()
            try:
                if isinstance(what, Event):
                    self._tell(what)
                else:
                    self.waiting -= 1
                    yield from self._answer(what)
            except Exception as error:  # must never happen; if it does, it is not to cost the others their answers
                logger.error("the management agent of vhost '%s' fails at something: %s: %s", self.host.name,
                             type(error).__name__, error)
            if self._inbox.parked and self.waiting < MOST_REQUESTS // 2:
                self._inbox.queue.wake(self._inbox)
            yield
        self._busy = False

    # Requests and replies.

    def _answer(self, request: Request) -> Iterator[None]:
        view = CONVERTERS[request.message.dialect].model(request.message)
        if view.reply_to is None:
            logger.debug("a request to the management agent of vhost '%s' has no reply-to", self.host.name)
            return
        access = self._access(request)
        if not self._may_hear(request, view.reply_to, access):
            return
        if view.app_id != "qmf2":
            if view.kind == BYTES:
                for reply in binary.answers(b"".join(view.body), self.facts.uuid):
                    self._reply_in_bytes(view, reply)
            return
        opcode = view.headers.get("qmf.opcode")
        try:
            if opcode == "_query_request":
                yield from self._query(view, access)
            elif opcode == "_method_request":
                self._call(view, request.actor, access)
            elif opcode == "_agent_locate_request":
                self._reply(view, "_agent_locate_response", {"_values": self._attributes()}, {})
            else:
                raise MethodError(EXCEPTION, f"'{opcode}' is no request that is known here")
        except MethodError as error:
            self._refuse(view, error.code, str(error))
        except BrokerError as refusal:
            self._refuse(view, 6 if isinstance(refusal, AccessRefused) else EXCEPTION, str(refusal))

    def _access(self, request: Request) -> Access:
        """What the client that has sent a request may do. One that did not come straight from a client (a dead letter,
        one that had to wait or came over a bridge) is as good as one of somebody without a name."""
        if request.actor is not None:
            return request.actor.access
        return self.host.broker.policy.access(ManagedConnection(), self.host.name)

    def _may_hear(self, request: Request, reply_to: str, access: Access) -> bool:
        """Whether answers may go where a request wants them: lest somebody have us send what he may not send himself.
        An exclusive queue of his own and the exchanges of QMF are for that."""
        node = find_node(self.host, reply_to, [])
        if node is None or node.exchange in (self.direct, self.topic):
            return True
        queue = node.queue
        if queue is not None and queue.owner is not None and request.actor is not None \
                and getattr(queue.owner, "connection", queue.owner) is request.actor:
            return True
        try:
            ask_to_publish(access, *node.leads_to())
        except AccessRefused as error:
            logger.warning("a request to the management agent of vhost '%s' is not answered at '%s': %s",
                           self.host.name, reply_to, error)
            return False
        return True

    def _query(self, view: View, access: Access) -> Iterator[None]:
        """Raises: MethodError, AccessRefused."""
        query = _map_of(view)
        what = query.get("_what")
        if what != "OBJECT":
            raise MethodError(EXCEPTION, "_what element missing in Query" if what is None else
                              f"Query for _what => '{what}' not supported")
        content = {"qmf.content": "_data"}
        identity = query.get("_object_id")
        schema = query.get("_schema_id")
        if isinstance(identity, dict):
            name = str(identity.get("_object_name"))
            kind, makes = kind_and_key(name)[0], find(self.host, self.facts, name)
        else:
            kind = str(schema.get("_class_name")).lower() if isinstance(schema, dict) else ""
            makes = self._objects(schema)
        access.manage("access", "query", kind, {"schemapackage": package_of(kind), "schemaclass": kind})
        objects: list[Any] = []
        for found in makes:
            if found is None:
                yield
                continue
            if len(objects) == OBJECTS_A_MESSAGE:
                self._reply(view, "_query_response", objects, {**content, "partial": None})
                objects = []
                yield
            objects.append(found.as_map(self.name))
        self._reply(view, "_query_response", objects, content)

    def _objects(self, schema: Any) -> Objects:
        """The objects of the class that a query names."""
        if isinstance(schema, dict):
            kind = str(schema.get("_class_name")).lower()
            makes = OBJECTS.get(kind)
            if makes is not None and schema.get("_package_name", package_of(kind)) == package_of(kind):
                return makes(self.host, self.facts)
        return iter(())

    def _call(self, view: View, actor: ManagedConnection | None, access: Access) -> None:
        """Raises: MethodError, BrokerError."""
        request = _map_of(view)
        identity, arguments = request.get("_object_id"), request.get("_arguments", {})
        if not isinstance(identity, dict) or not isinstance(arguments, dict) or "_method_name" not in request:
            raise MethodError(4, "a method request has _object_id, _method_name and _arguments")
        self.management.actor = actor
        try:
            done = call(self.host, self.facts, access, str(identity.get("_object_name")), str(request["_method_name"]),
                        arguments, lambda: self._reply(view, "_method_response", {"_arguments": {}}, {}))
        finally:
            self.management.actor = None
        if done is None:
            return
        results, wait = done
        if wait:
            self.host.broker.log.commit(lambda: self._reply(view, "_method_response", {"_arguments": results}, {}))
        else:
            self._reply(view, "_method_response", {"_arguments": results}, {})

    def _refuse(self, view: View, code: int, text: str) -> None:
        logger.debug("the management agent of vhost '%s' refuses: %s", self.host.name, text)
        self._reply(view, "_exception", {"_values": {"error_code": UInt(code), "error_text": plain_text(text)}}, {})

    def _reply(self, request: View, opcode: str, content: Any, headers: dict[str, Any]) -> None:
        reply = self._view(opcode, content, headers)
        reply.headers["method"] = "response"
        self._send_to(request, reply)

    def _reply_in_bytes(self, request: View, content: bytes) -> None:
        reply = View()
        reply.body = [content]
        reply.headers = {"qmf.agent": self.name}
        self._send_to(request, reply)

    def _view(self, opcode: str, content: Any, headers: dict[str, Any]) -> View:
        view = View()
        view.app_id = "qmf2"
        view.kind, view.value = VALUE, content
        view.headers = {"qmf.opcode": opcode, "qmf.agent": self.name, **headers}
        return view

    def _send_to(self, request: View, reply: View) -> None:
        """Send a reply where the request wants it."""
        reply.correlation_id = request.correlation_id
        assert request.reply_to is not None
        node = find_node(self.host, request.reply_to, [])
        if node is None:
            logger.debug("a reply of the management agent has nowhere to go: there is no '%s' in vhost '%s'",
                         request.reply_to, self.host.name)
        else:
            self._send(*node.leads_to(), reply)

    def _send(self, exchange: str, key: str, view: View) -> None:
        host = self.host
        address = address_of(exchange, key)
        try:
            route = host.routes.get(address.short_strings) or host.route(address.short_strings, exchange, key)
        except BrokerError as error:
            logger.debug("a message of the management agent cannot go its way: %s", error)
            return
        now = host.broker.clock.now
        expiry = 0 if view.ttl is None else now + view.ttl
        like = Message(route.address, AMQP10, b"", None, 0, False, 4, expiry, now)
        host.publish(route, CONVERTERS[AMQP10].encode(view, like), None)

    # What it tells unasked.

    def _attributes(self) -> dict[str, Any]:
        return {"_vendor": VENDOR, "_product": PRODUCT, "_instance": str(self.facts.uuid), "_name": self.name,
                "_timestamp": ULong(self.host.broker.clock.now * 1_000_000), "_epoch": UInt(1),
                "_heartbeat_interval": UInt(self.facts.interval)}

    def _wanted(self, key: str) -> bool:
        """Whether somebody listens for messages with this key."""
        return bool(self.topic.match(key, None))

    def _indicate(self, key: str, view: View) -> None:
        view.headers["method"] = "indication"
        view.subject = key
        self._send(TOPIC, key, view)

    def _tell(self, event: Event) -> None:
        for told in event_maps(event, self.host.broker.clock.now):
            name, severity = told["_schema_id"]["_class_name"], _SEVERITIES[told["_severity"]]
            key = f"agent.ind.event.{PACKAGE.replace('.', '_')}.{name}.{severity}.{self._suffix}"
            if self._wanted(key):
                self._indicate(key, self._view("_data_indication", [told], {"qmf.content": "_event"}))

    def _publish_later(self) -> None:
        self.host.broker.timers.after(self.facts.interval * 1000, self._publish)

    def _publish(self) -> None:
        """A heartbeat, and what there is of each class that somebody listens for."""
        self._publish_later()
        key = f"agent.ind.heartbeat.{self._suffix}"
        if self._wanted(key):
            view = self._view("_agent_heartbeat_indication", {"_values": self._attributes()}, {})
            view.ttl = self.facts.interval * 2000
            self._indicate(key, view)
        kinds = [kind for kind in OBJECTS if self._wanted(self._data_key(kind))]
        if kinds:
            self.host.broker.chores.add(self._publish_objects(kinds))

    def _data_key(self, kind: str) -> str:
        return f"agent.ind.data.{package_of(kind).replace('.', '_')}.{kind}.{self._suffix}"

    def _publish_objects(self, kinds: list[str]) -> Iterator[None]:
        for kind in kinds:
            objects: list[Any] = []
            for found in OBJECTS[kind](self.host, self.facts):
                if found is None:
                    yield
                    continue
                if len(objects) == OBJECTS_A_MESSAGE:
                    self._indicate(self._data_key(kind), self._view("_data_indication", objects,
                                                                    {"qmf.content": "_data"}))
                    objects = []
                    yield
                objects.append(found.as_map(self.name))
            if objects:
                self._indicate(self._data_key(kind), self._view("_data_indication", objects,
                                                                {"qmf.content": "_data"}))


def _map_of(view: View) -> dict[str, Any]:
    """The map that a request's body is. Raises: MethodError."""
    if view.kind != VALUE or not isinstance(view.value, dict):
        raise MethodError(EXCEPTION, "the request's body is no map")
    return view.value
