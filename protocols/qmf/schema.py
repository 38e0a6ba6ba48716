"""The classes of `org.apache.qpid.broker` and `org.apache.qpid.acl` as data: what they are called, what they have, of
which types.

Names and types are those that qpidd gives them, for its tools ask by them. Left out is what this broker has nothing to
say about: high and low water marks, latencies, clusters. Links and bridges have
more than there: what the gateway counts.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from broker.values import UInt, ULong, UShort

PACKAGE = "org.apache.qpid.broker"
ACL_PACKAGE = "org.apache.qpid.acl"

TYPE_CODES = {"uint8": 1, "uint16": 2, "uint32": 3, "uint64": 4, "sstr": 6, "lstr": 7, "absTime": 8, "deltaTime": 9,
              "objId": 10, "bool": 11, "uuid": 14, "map": 15, "count32": 3, "count64": 4, "hilo32": 3}
"""The numbers of types in the binary form of a schema."""

_INTEGERS: dict[str, Any] = {"uint16": UShort, "uint32": UInt, "count32": UInt, "hilo32": UInt, "uint64": ULong,
                             "count64": ULong, "absTime": ULong, "deltaTime": ULong}

READ_CREATE, READ_WRITE, READ_ONLY = 1, 2, 3
"""Who sets a property, and when."""


class Property:
    """A property, a statistic (`access` is 0 then) or an argument of a method or an event."""

    __slots__ = ("name", "kind", "access", "index", "optional", "refers_to", "unit", "direction")

    def __init__(self, name: str, kind: str, access: int = 0, index: bool = False, optional: bool = False,
                 refers_to: str = "", unit: str = "", direction: str = "") -> None:
        self.name = name
        self.kind = kind
        self.access = access
        self.index = index
        self.optional = optional
        self.refers_to = refers_to  # the class of an objId
        self.unit = unit
        self.direction = direction  # of a method's argument: I, O or IO


class SchemaClass:
    """A class of objects, or a kind of event, whose arguments are then its properties."""

    __slots__ = ("name", "package", "is_event", "properties", "statistics", "methods", "types", "hash")

    def __init__(self, name: str, is_event: bool, properties: list[Property], statistics: list[Property],
                 methods: dict[str, list[Property]], package: str = PACKAGE) -> None:
        self.name = name
        self.package = package
        self.is_event = is_event
        self.properties = properties
        self.statistics = statistics
        self.methods = methods
        self.types = {each.name: each.kind for each in (*properties, *statistics)}
        what = [name, *(f"{each.name}:{each.kind}" for each in (*properties, *statistics)), *methods]
        self.hash = uuid.UUID(bytes=hashlib.md5(" ".join(what).encode(), usedforsecurity=False).digest())

    def identity(self) -> dict[str, Any]:
        """What `_schema_id` says of it."""
        return {"_package_name": self.package, "_class_name": self.name,
                "_type": "_event" if self.is_event else "_data", "_hash": self.hash}

    def typed(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values of its properties and statistics in the types that they have here; unknown ones raise KeyError."""
        found: dict[str, Any] = {}
        for name, value in values.items():
            integer = _INTEGERS.get(self.types[name])
            found[name] = value if integer is None else integer(max(0, value))
        return found


def _statistics(kind: str, names: str) -> list[Property]:
    units = {"msg": "message", "byt": "octet"}
    return [Property(name, kind, unit=units.get(name[:3], "")) for name in names.split()]


def _arguments(text: str) -> list[Property]:
    """`name:type:direction` of each."""
    return [Property(name, kind, direction=direction)
            for name, kind, direction in (each.split(":") for each in text.split())]


def _methods(**methods: str) -> dict[str, list[Property]]:
    return {name: _arguments(text) for name, text in methods.items()}


_TOTALS = ("msgTotalEnqueues msgTotalDequeues byteTotalEnqueues byteTotalDequeues msgDepth byteDepth "
           "msgPersistEnqueues msgPersistDequeues bytePersistEnqueues bytePersistDequeues "
           "msgTxnEnqueues msgTxnDequeues byteTxnEnqueues byteTxnDequeues "
           "msgFtdEnqueues msgFtdDequeues byteFtdEnqueues byteFtdDequeues msgFtdDepth byteFtdDepth")
_DISCARDS = "discardsTtl discardsRing discardsLvq discardsOverflow discardsSubscriber discardsPurge reroutes"

_VHOST = Property("vhostRef", "objId", READ_CREATE, True, refers_to="Vhost")

_CLASSES = [
    SchemaClass("system", False, [
        Property("systemId", "uuid", READ_CREATE, True), Property("osName", "sstr", READ_ONLY),
        Property("nodeName", "sstr", READ_ONLY), Property("release", "sstr", READ_ONLY),
        Property("version", "sstr", READ_ONLY), Property("machine", "sstr", READ_ONLY)], [], {}),
    SchemaClass("memory", False, [
        Property("name", "sstr", READ_CREATE, True), *(Property(name, "uint64", READ_ONLY, optional=True) for name in (
            "malloc_arena", "malloc_ordblks", "malloc_hblks", "malloc_hblkhd", "malloc_uordblks", "malloc_fordblks",
            "malloc_keepcost"))], [], {}),
    SchemaClass("limit", False, [
        Property("name", "lstr", READ_CREATE, True), Property("subject", "lstr", READ_ONLY),
        Property("measure", "sstr", READ_ONLY), Property("most", "count32", READ_ONLY)],
        [Property("used", "count32"), Property("refused", "count64")], {}),
    SchemaClass("broker", False, [
        Property("name", "sstr", READ_CREATE, True), Property("systemRef", "objId", READ_ONLY, refers_to="System"),
        Property("port", "uint16", READ_ONLY), Property("workerThreads", "uint16", READ_ONLY),
        Property("maxConns", "uint16", READ_ONLY), Property("connBacklog", "uint16", READ_ONLY),
        Property("stagingThreshold", "uint32", READ_ONLY), Property("mgmtPublish", "bool", READ_ONLY),
        Property("mgmtPubInterval", "uint16", READ_WRITE, unit="second"), Property("version", "sstr", READ_ONLY),
        Property("dataDir", "lstr", READ_ONLY, optional=True)], [
        Property("uptime", "deltaTime"), Property("queueCount", "count64", unit="queue"),
        *_statistics("count64", f"{_TOTALS} releases acquires discardsNoRoute {_DISCARDS} abandoned abandonedViaAlt")],
        _methods(
            echo="sequence:uint32:IO body:lstr:IO", setLogLevel="level:sstr:I", getLogLevel="level:sstr:O",
            queueMoveMessages="srcQueue:sstr:I destQueue:sstr:I qty:uint32:I filter:map:I",
            queueCopyMessages="srcQueue:sstr:I destQueue:sstr:I qty:uint32:I filter:map:I",
            getTimestampConfig="receive:bool:O", setTimestampConfig="receive:bool:I",
            create="type:sstr:I name:sstr:I properties:map:I strict:bool:I",
            delete="type:sstr:I name:sstr:I options:map:I", query="type:sstr:I name:sstr:I results:map:O",
            getLogHiresTimestamp="logHires:bool:O", setLogHiresTimestamp="logHires:bool:I",
            queueRedirect="sourceQueue:sstr:I targetQueue:sstr:I",
            connect="host:sstr:I port:uint32:I durable:bool:I authMechanism:sstr:I username:sstr:I password:sstr:I "
                    "transport:sstr:I")),
    SchemaClass("vhost", False, [
        Property("brokerRef", "objId", READ_CREATE, True, refers_to="Broker"),
        Property("name", "sstr", READ_CREATE, True), Property("federationTag", "sstr", READ_ONLY)], [], {}),
    SchemaClass("queue", False, [
        _VHOST, Property("name", "sstr", READ_CREATE, True), Property("durable", "bool", READ_CREATE),
        Property("autoDelete", "bool", READ_CREATE), Property("exclusive", "bool", READ_ONLY),
        Property("arguments", "map", READ_ONLY),
        Property("altExchange", "objId", READ_ONLY, optional=True, refers_to="Exchange")], [
        *_statistics("count64", f"{_TOTALS} releases acquires {_DISCARDS}"),
        *_statistics("hilo32", "consumerCount bindingCount unackedMessages"), Property("flowStopped", "bool"),
        Property("flowStoppedCount", "count32"), Property("redirectPeer", "sstr"), Property("redirectSource", "bool")],
        _methods(purge="request:uint32:I filter:map:I",
                 reroute="request:uint32:I useAltExchange:bool:I exchange:sstr:I filter:map:I")),
    SchemaClass("exchange", False, [
        _VHOST, Property("name", "sstr", READ_CREATE, True), Property("type", "sstr", READ_ONLY),
        Property("durable", "bool", READ_ONLY), Property("autoDelete", "bool", READ_ONLY),
        Property("altExchange", "objId", READ_ONLY, optional=True, refers_to="Exchange"),
        Property("arguments", "map", READ_ONLY)], [
        *_statistics("hilo32", "producerCount bindingCount"),
        *_statistics("count64", "msgReceives msgDrops msgRoutes byteReceives byteDrops byteRoutes")], {}),
    SchemaClass("binding", False, [
        Property("exchangeRef", "objId", READ_CREATE, True, refers_to="Exchange"),
        Property("queueRef", "objId", READ_CREATE, True, refers_to="Queue"),
        Property("bindingKey", "lstr", READ_CREATE, True), Property("arguments", "map", READ_CREATE),
        Property("origin", "sstr", READ_ONLY, optional=True)], [], {}),
    SchemaClass("exchangebinding", False, [  # ours: qpidd has none from exchange to exchange
        Property("exchangeRef", "objId", READ_CREATE, True, refers_to="Exchange"),
        Property("destinationRef", "objId", READ_CREATE, True, refers_to="Exchange"),
        Property("bindingKey", "lstr", READ_CREATE, True), Property("arguments", "map", READ_CREATE)], [], {}),
    SchemaClass("subscription", False, [
        Property("sessionRef", "objId", READ_CREATE, True, refers_to="Session"),
        Property("queueRef", "objId", READ_CREATE, True, refers_to="Queue"),
        Property("name", "sstr", READ_CREATE, True), Property("browsing", "bool", READ_CREATE),
        Property("acknowledged", "bool", READ_CREATE), Property("exclusive", "bool", READ_CREATE),
        Property("creditMode", "sstr", READ_ONLY), Property("arguments", "map", READ_CREATE)],
        _statistics("count64", "delivered"), {}),
    SchemaClass("connection", False, [
        _VHOST, Property("address", "sstr", READ_CREATE, True), Property("incoming", "bool", READ_CREATE),
        Property("SystemConnection", "bool", READ_CREATE), Property("userProxyAuth", "bool", READ_ONLY),
        Property("federationLink", "bool", READ_ONLY), Property("authIdentity", "sstr", READ_ONLY),
        Property("remoteProcessName", "lstr", READ_ONLY, optional=True),
        Property("remotePid", "uint32", READ_ONLY, optional=True),
        Property("remoteParentPid", "uint32", READ_ONLY, optional=True), Property("shadow", "bool", READ_ONLY),
        Property("saslMechanism", "sstr", READ_ONLY), Property("saslSsf", "uint16", READ_ONLY),
        Property("remoteProperties", "map", READ_ONLY), Property("protocol", "sstr", READ_CREATE)], [
        Property("closing", "bool"),
        *_statistics("count64", "bytesFromClient bytesToClient msgsFromClient msgsToClient")], _methods(close="")),
    SchemaClass("session", False, [
        _VHOST, Property("name", "sstr", READ_CREATE, True), Property("fullName", "lstr", READ_ONLY, optional=True),
        Property("channelId", "uint16", READ_ONLY),
        Property("connectionRef", "objId", READ_ONLY, refers_to="Connection"),
        Property("detachedLifespan", "uint32", READ_ONLY, unit="second"), Property("attached", "bool", READ_ONLY)],
        _statistics("uint64", "unackedMessages"), _methods(solicitAck="", detach="", resetLifespan="", close="")),
    SchemaClass("link", False, [
        _VHOST, Property("name", "sstr", READ_CREATE, True), Property("host", "sstr", READ_ONLY),
        Property("port", "uint16", READ_ONLY), Property("transport", "sstr", READ_ONLY),
        Property("durable", "bool", READ_CREATE), Property("dialect", "sstr", READ_ONLY),
        Property("url", "lstr", READ_ONLY)], [
        Property("state", "sstr"), Property("lastError", "lstr"), Property("since", "absTime"),
        Property("connects", "count64")], _methods(
            close="", bridge="durable:bool:I src:sstr:I dest:sstr:I key:lstr:I tag:sstr:I excludes:sstr:I "
                             "srcIsQueue:bool:I srcIsLocal:bool:I dynamic:bool:I sync:uint16:I credit:uint32:I")),
    SchemaClass("bridge", False, [
        Property("linkRef", "objId", READ_CREATE, True, refers_to="Link"),
        Property("name", "sstr", READ_CREATE, True), Property("durable", "bool", READ_CREATE),
        Property("src", "sstr", READ_ONLY), Property("dest", "sstr", READ_ONLY), Property("key", "lstr", READ_ONLY),
        Property("srcIsQueue", "bool", READ_ONLY), Property("srcIsLocal", "bool", READ_ONLY),
        Property("dynamic", "bool", READ_ONLY), Property("acknowledge", "sstr", READ_ONLY)], [
        Property("state", "sstr"), Property("lastError", "lstr"), Property("since", "absTime"),
        *_statistics("count64", "msgReceived msgMoved byteMoved msgRejected msgRetried msgLooped msgDuplicates "
                     "msgUnwanted msgLost msgLag delay msgReceivedRate msgMovedRate")],
        _methods(close="", pause="", resume="")),
    SchemaClass("acl", False, [
        Property("brokerRef", "objId", READ_CREATE, True, refers_to="Broker"),
        Property("policyFile", "lstr", READ_ONLY), Property("enforcingAcl", "bool", READ_ONLY),
        Property("transferAcl", "bool", READ_ONLY), Property("lastAclLoad", "absTime", READ_ONLY)],
        _statistics("count64", "aclDenyCount"), _methods(reloadACLFile=""), ACL_PACKAGE),
]

CLASSES = {each.name: each for each in _CLASSES}


def package_of(kind: str) -> str:
    """The package of a class of objects, as far as it is known."""
    schema = CLASSES.get(kind)
    return PACKAGE if schema is None else schema.package


_ARGUMENT_TYPES = {"args": "map", "properties": "map", "durable": "bool", "excl": "bool", "autoDel": "bool",
                   "key": "lstr", "reason": "lstr", "msgDepth": "count64", "byteDepth": "count64"}


def _event(name: str, arguments: str) -> SchemaClass:
    return SchemaClass(name, True, [Property(each, _ARGUMENT_TYPES.get(each, "sstr")) for each in arguments.split()],
                       [], {})


_EVENTS = [
    _event("clientConnect", "rhost user properties"), _event("clientConnectFail", "rhost user reason properties"),
    _event("clientDisconnect", "rhost user properties"),
    _event("queueDeclare", "rhost user qName durable excl autoDel altEx args disp"),
    _event("queueDelete", "rhost user qName"),
    _event("exchangeDeclare", "rhost user exName exType altEx durable autoDel args disp"),
    _event("exchangeDelete", "rhost user exName"), _event("bind", "rhost user exName qName key args"),
    _event("unbind", "rhost user exName qName key"), _event("subscribe", "rhost user qName dest excl args"),
    _event("unsubscribe", "rhost user dest"), _event("queueThresholdCrossedUpward", "qName msgDepth byteDepth"),
    _event("queueThresholdCrossedDownward", "qName msgDepth byteDepth"),
    _event("queueThresholdExceeded", "qName msgDepth byteDepth"), _event("queueRedirect", "qName qTarget"),
    _event("queueRedirectCancelled", "qName qTarget"),
]

EVENTS = {each.name: each for each in _EVENTS}
