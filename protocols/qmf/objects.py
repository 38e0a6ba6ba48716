"""The objects that the agent shows: the core's entities under the names that qpidd gives them.

Each function gives the objects of one class, one by one: there may be very many.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

from broker.exchange import Exchange
from broker.management import ManagedConnection, ManagedPart
from broker.queue import Queue
from broker.totals import Totals
from broker.values import ULong
from broker.virtualhost import VirtualHost
from protocols.qmf.schema import CLASSES, package_of
from protocols.qmf.values import model_map, plain_text, shown_arguments

BROKER_KEY = "amqp-broker"

PAUSE = 100
"""Queues that are looked at in one go."""

_NS = 1_000_000
"""Nanoseconds in a millisecond."""


class ManagedObject:
    """One object at one moment. Times in ms since the epoch."""

    __slots__ = ("kind", "key", "values", "created", "updated")

    def __init__(self, kind: str, key: str, values: dict[str, Any], created: int, updated: int) -> None:
        self.kind = kind
        self.key = key
        self.values = values
        self.created = created
        self.updated = updated

    def as_map(self, agent_name: str) -> dict[str, Any]:
        """As a message has it."""
        schema = CLASSES[self.kind]
        values = schema.typed(self.values)
        for name, value in values.items():
            if schema.types[name] == "objId":  # consoles compare it with the whole _object_id of what it refers to
                values[name] = {**value, "_agent_name": agent_name}
        return {"_values": values, "_schema_id": schema.identity(),
                "_object_id": {"_object_name": object_name(self.kind, self.key), "_agent_name": agent_name},
                "_create_ts": ULong(self.created * _NS), "_update_ts": ULong(self.updated * _NS),
                "_delete_ts": ULong(0)}


Objects = Iterator[ManagedObject | None]
"""None is no object: there, whoever asks may do something else for a while."""


def object_name(kind: str, key: str) -> str:
    return f"{package_of(kind)}:{kind}:{key}"


ACL_KEY = object_name("broker", BROKER_KEY)


def reference(kind: str, key: str) -> dict[str, Any]:
    """What an objId is in a map."""
    return {"_object_name": object_name(kind, key)}


class Facts:
    """What the agent knows of the broker that the virtual host does not. uuid: of the system."""

    __slots__ = ("version", "uuid", "interval", "port", "data_folder")

    def __init__(self, version: str, uuid: Any, interval: int, port: int, data_folder: str) -> None:
        self.version = version
        self.uuid = uuid
        self.interval = interval  # of publishing, s
        self.port = port
        self.data_folder = data_folder


def _systems(host: VirtualHost, facts: Facts) -> Objects:
    name = os.uname()
    yield _lasting(host, "system", str(facts.uuid), {
        "systemId": facts.uuid, "osName": name.sysname, "nodeName": name.nodename, "release": name.release,
        "version": name.version, "machine": name.machine})


def _memories(host: VirtualHost, facts: Facts) -> Objects:
    """Of the C library's numbers that qpidd has, those that this process can know: what it has, and what of that
    messages take."""
    memory = host.broker.memory
    arena = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield _lasting(host, "memory", BROKER_KEY, {"name": BROKER_KEY, "malloc_arena": arena,
                                                "malloc_uordblks": memory.used})


def _limits(host: VirtualHost, facts: Facts) -> Objects:
    """What is limited by count, and taken by anybody; Dragoman's own class."""
    for number, (limit, measure, tally) in enumerate(list(host.broker.quotas.use())):
        subject = plain_text(tally.subject)
        name = f"{measure} of {subject} ({host.broker.quotas.limits.index(limit)})"
        yield _lasting(host, "limit", name, {"name": name, "subject": subject, "measure": measure,
                                             "most": tally.most, "used": tally.used, "refused": limit.refused})
        if number % PAUSE == PAUSE - 1:
            yield None


def _brokers(host: VirtualHost, facts: Facts) -> Objects:
    broker = host.broker
    totals = host.totals.copy()
    for number, queue in enumerate(list(host.queues.values())):
        totals.add(queue)
        if number % PAUSE == PAUSE - 1:
            yield None
    now = broker.clock.now
    yield ManagedObject("broker", BROKER_KEY, {
        "name": BROKER_KEY, "systemRef": reference("system", str(facts.uuid)), "port": facts.port, "workerThreads": 1,
        "maxConns": 65535, "connBacklog": 100, "stagingThreshold": 0, "mgmtPublish": True,
        "mgmtPubInterval": facts.interval, "version": facts.version, "dataDir": facts.data_folder,
        "uptime": (now - broker.management.started) * _NS, "queueCount": len(host.queues), **_counters(totals),
        "discardsNoRoute": sum(exchange.dropped for exchange in host.exchanges.values()),
        "abandoned": totals.abandoned, "abandonedViaAlt": 0}, broker.management.started, now)


def _hosts(host: VirtualHost, facts: Facts) -> Objects:
    yield _lasting(host, "vhost", _host_key(host), {"brokerRef": reference("broker", BROKER_KEY), "name": host.name,
                                                    "federationTag": host.broker.identity})


def _queues(host: VirtualHost, facts: Facts) -> Objects:
    for queue in list(host.queues.values()):
        yield queue_object(queue)


def queue_object(queue: Queue) -> ManagedObject:
    host = queue.host
    alternate = queue.settings.alternate
    limits, peer = queue.limits, queue.peer
    totals = Totals()
    totals.add(queue)
    values: dict[str, Any] = {
        "vhostRef": reference("vhost", _host_key(host)), "name": plain_text(queue.name), "durable": queue.durable,
        "autoDelete": queue.auto_delete or queue.goes_with_owner,
        "exclusive": queue.exclusive or queue.owner is not None,
        "arguments": shown_arguments(queue.arguments), **_counters(totals), "consumerCount": len(queue.consumers),
        "bindingCount": len(host.bound_to.get(queue, ())) + 1,
        "unackedMessages": queue.unsettled, "flowStopped": limits is not None and limits.stopped,
        "redirectPeer": "" if peer is None else plain_text(peer.name), "redirectSource": queue.redirects}
    if alternate is not None:
        values["altExchange"] = reference("exchange", plain_text(alternate))
    return ManagedObject("queue", plain_text(queue.name), values, queue.created, host.broker.clock.now)


def _counters(totals: Totals) -> dict[str, int]:
    """Counters that queues and brokers both have."""
    gone = totals.enqueued - totals.depth
    discards = totals.discards
    expired, ring = discards.get("expired", 0), discards.get("maxlen", 0)
    purged, replaced, moved = discards.get("purged", 0), discards.get("replaced", 0), discards.get("moved", 0)
    unread = expired + ring + purged + replaced + moved + totals.abandoned
    return {
        **dict.fromkeys(_DEPRECATED, 0), "msgTotalEnqueues": totals.enqueued, "msgTotalDequeues": gone,
        "byteTotalEnqueues": totals.enqueued_bytes, "byteTotalDequeues": totals.enqueued_bytes - totals.depth_bytes,
        "msgDepth": totals.depth, "byteDepth": totals.depth_bytes, "msgPersistEnqueues": totals.persisted,
        "msgPersistDequeues": totals.unpersisted, "bytePersistEnqueues": totals.persisted_bytes,
        "bytePersistDequeues": totals.unpersisted_bytes, "msgTxnEnqueues": totals.transacted,
        "byteTxnEnqueues": totals.transacted_bytes, "msgTxnDequeues": totals.settled,
        "byteTxnDequeues": totals.settled_bytes, "releases": totals.releases,
        # What was taken is what has gone by a consumer's hand, was given back or is still taken.
        "acquires": gone - unread + totals.releases + totals.unsettled, "discardsTtl": expired, "discardsRing": ring,
        "discardsLvq": replaced, "discardsOverflow": totals.overflows,
        "discardsSubscriber": discards.get("rejected", 0) + discards.get("delivery_limit", 0),
        "discardsPurge": purged, "reroutes": moved}


_DEPRECATED = ("msgFtdEnqueues", "msgFtdDequeues", "byteFtdEnqueues", "byteFtdDequeues", "msgFtdDepth", "byteFtdDepth")


def _exchanges(host: VirtualHost, facts: Facts) -> Objects:
    for exchange in list(host.exchanges.values()):
        yield exchange_object(host, exchange)


def exchange_object(host: VirtualHost, exchange: Exchange) -> ManagedObject:
    bound = sum(1 for each in exchange.bindings.values() if each.queue is None or not each.queue.hidden)
    if not exchange.name:
        bound = len(host.queues)
    values: dict[str, Any] = {
        "vhostRef": reference("vhost", _host_key(host)), "name": plain_text(exchange.name), "type": exchange.kind,
        "durable": exchange.durable, "autoDelete": exchange.auto_delete,
        "arguments": shown_arguments(exchange.arguments), "producerCount": 0, "bindingCount": bound,
        "msgReceives": exchange.received, "msgDrops": exchange.dropped,
        "msgRoutes": exchange.received - exchange.dropped + exchange.copies, "byteReceives": exchange.received_bytes,
        "byteDrops": exchange.dropped_bytes,
        "byteRoutes": exchange.received_bytes - exchange.dropped_bytes + exchange.copies_bytes}
    if exchange.alternate is not None:
        values["altExchange"] = reference("exchange", plain_text(exchange.alternate))
    return _lasting(host, "exchange", plain_text(exchange.name), values)


def _bindings(host: VirtualHost, facts: Facts) -> Objects:
    for queue in list(host.queues.values()):
        yield _binding(host, "", queue.name, queue.name, {})
    for binding in host.broker.management.bindings(host):
        if binding.queue is not None:
            yield _binding(host, binding.source.name, binding.queue.name, binding.routing_key, binding.arguments)


def _binding(host: VirtualHost, source: str, queue: str, key: str, arguments: dict[str, Any]) -> ManagedObject:
    source, queue, key = plain_text(source), plain_text(queue), plain_text(key)
    return _lasting(host, "binding", f"{object_name('exchange', source)},{object_name('queue', queue)},{key}", {
        "exchangeRef": reference("exchange", source), "queueRef": reference("queue", queue), "bindingKey": key,
        "arguments": model_map(arguments)})


def _exchange_bindings(host: VirtualHost, facts: Facts) -> Objects:
    for binding in host.broker.management.bindings(host):
        if binding.exchange is not None:
            source, target = plain_text(binding.source.name), plain_text(binding.exchange.name)
            key = plain_text(binding.routing_key)
            yield _lasting(host, "exchangebinding",
                           f"{object_name('exchange', source)},{object_name('exchange', target)},{key}", {
                               "exchangeRef": reference("exchange", source),
                               "destinationRef": reference("exchange", target), "bindingKey": key,
                               "arguments": model_map(binding.arguments)})


def _connections(host: VirtualHost, facts: Facts) -> Objects:
    for connection in host.broker.management.connections_of(host):
        properties = connection.properties
        values: dict[str, Any] = {
            "vhostRef": reference("vhost", _host_key(host)), "address": connection_key(connection), "incoming": True,
            "SystemConnection": False, "userProxyAuth": False, "federationLink": False,
            "authIdentity": connection.user, "shadow": False, "saslMechanism": connection.mechanism, "saslSsf": 0,
            "remoteProperties": model_map(properties), "protocol": connection.dialect, "closing": False,
            "bytesFromClient": connection.bytes_in, "bytesToClient": connection.bytes_out,
            "msgsFromClient": connection.messages_in, "msgsToClient": connection.messages_out,
            "remotePid": _number(properties, "qpid.client_pid", "process-id", "pid"),
            "remoteParentPid": _number(properties, "qpid.client_ppid")}
        name = _text(properties, "qpid.client_process", "process-name", "connection_name", "product")
        if name:
            values["remoteProcessName"] = name
        yield ManagedObject("connection", connection_key(connection), values, connection.opened_at,
                            connection.last_input)


def connection_key(connection: ManagedConnection) -> str:
    return connection.peer


def _sessions(host: VirtualHost, facts: Facts) -> Objects:
    for connection in host.broker.management.connections_of(host):
        for session in connection.managed_sessions():
            yield ManagedObject("session", session.name, {
                "vhostRef": reference("vhost", _host_key(host)), "name": session.name, "fullName": session.name,
                "channelId": session.channel, "connectionRef": reference("connection", connection_key(connection)),
                "detachedLifespan": 0, "attached": True, "unackedMessages": session.unsettled},
                connection.opened_at, connection.last_input)


def _subscriptions(host: VirtualHost, facts: Facts) -> Objects:
    for connection in host.broker.management.connections_of(host):
        for session in connection.managed_sessions():
            for consumer in session.consumers:
                tag, queue = plain_text(consumer.tag), plain_text(consumer.queue.name)
                key = f"{object_name('session', session.name)},{object_name('queue', queue)},{tag}"
                yield ManagedObject("subscription", key, {
                    "sessionRef": reference("session", session.name), "queueRef": reference("queue", queue),
                    "name": tag, "browsing": consumer.browses, "acknowledged": consumer.settles,
                    "exclusive": consumer.exclusive, "creditMode": "WINDOW", "arguments": {},
                    "delivered": consumer.delivered}, connection.opened_at, connection.last_input)


def _links(host: VirtualHost, facts: Facts) -> Objects:
    for part in gateway_parts(host, "link"):
        yield _part(host, part, {"vhostRef": reference("vhost", _host_key(host))})


def _bridges(host: VirtualHost, facts: Facts) -> Objects:
    for part in gateway_parts(host, "bridge"):
        yield _part(host, part, {"linkRef": reference("link", plain_text(part.values["link"]))})


def gateway_parts(host: VirtualHost, kind: str) -> list[ManagedPart]:
    """The links, or the bridges of a virtual host."""
    gateway = host.broker.management.gateway
    return [] if gateway is None else [part for part in gateway.parts(kind) if part.host_name in ("", host.name)]


def _part(host: VirtualHost, part: ManagedPart, references: dict[str, Any]) -> ManagedObject:
    values = {name: plain_text(value) if isinstance(value, str) else value
              for name, value in part.values.items() if name != "link"}
    values["since"] *= _NS
    return ManagedObject(part.kind, plain_text(part.name), {**references, "name": plain_text(part.name), **values},
                         part.created, host.broker.clock.now)


def _acls(host: VirtualHost, facts: Facts) -> Objects:
    """The access rules, if there are any."""
    files, read_at, denied = host.broker.policy.rules()
    if files:
        yield _lasting(host, "acl", ACL_KEY, {
            "brokerRef": reference("broker", BROKER_KEY), "policyFile": files, "enforcingAcl": True,
            "transferAcl": True, "lastAclLoad": read_at * _NS, "aclDenyCount": denied})


OBJECTS: dict[str, Callable[[VirtualHost, Facts], Objects]] = {
    "system": _systems, "memory": _memories, "limit": _limits, "broker": _brokers, "vhost": _hosts, "queue": _queues,
    "exchange": _exchanges, "binding": _bindings, "exchangebinding": _exchange_bindings,
    "subscription": _subscriptions, "connection": _connections,
    "session": _sessions, "link": _links, "bridge": _bridges, "acl": _acls}
"""The objects of each class of the schema."""


def find(host: VirtualHost, facts: Facts, name: str) -> Objects:
    """The object with this full name, if there is one."""
    kind, key = kind_and_key(name)
    if kind == "queue":
        if key in host.queues:
            yield queue_object(host.queues[key])
    elif kind == "exchange":
        if key in host.exchanges:
            yield exchange_object(host, host.exchanges[key])
    elif kind in OBJECTS:
        for number, found in enumerate(OBJECTS[kind](host, facts)):
            if found is not None and found.key == key:
                yield found
                return
            if found is None or number % PAUSE == PAUSE - 1:
                yield None


def kind_and_key(name: str) -> tuple[str, str]:
    """The parts of an object's full name; "" for a name of another package."""
    package, _, rest = name.partition(":")
    kind, _, key = rest.partition(":")
    return (kind, key) if package == package_of(kind) else ("", "")


def _lasting(host: VirtualHost, kind: str, key: str, values: dict[str, Any]) -> ManagedObject:
    """An object that is as old as the broker, as far as one knows."""
    return ManagedObject(kind, key, values, host.broker.management.started, host.broker.clock.now)


def _host_key(host: VirtualHost) -> str:
    return f"{object_name('broker', BROKER_KEY)},{host.name}"


def _text(properties: dict[str, Any], *names: str) -> str:
    for name in names:
        value = properties.get(name)
        if isinstance(value, str) and value:
            return plain_text(value)
    return ""


def _number(properties: dict[str, Any], *names: str) -> int:
    for name in names:
        value = properties.get(name)
        if isinstance(value, int) and 0 <= value < 1 << 32:
            return int(value)
    return 0
