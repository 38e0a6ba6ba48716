"""The doors of a broker that has access rules: each asks the engine of rules.py, and refuses in RabbitMQ's words.

`Rules` is the broker's policy and gives each connection its `Guarded` access. When rules or groups change, `Rules`
counts up its generation, and each guard forgets what it has remembered when it is next asked something.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from mypy_extensions import mypyc_attr

from broker.arguments import QUEUE_NAMES, given
from broker.errors import Forbidden, PreconditionFailed
from broker.security.access import Access, Policy
from broker.security.identity import Identity
from broker.security.rules import NAMELESS, Decision, Question, RuleSet, Subject, judge

if TYPE_CHECKING:
    from broker.broker import Broker
    from broker.exchange import Exchange
    from broker.management import ManagedConnection
    from broker.virtualhost import VirtualHost

logger = logging.getLogger(__name__)

REMEMBERED: Final = 1024
"""Decisions about addresses to publish to, and about exchanges, that a connection keeps of each."""

LINES: Final = 20
QUIET: Final = 10_000
"""At most so many lines in so many ms are logged of what one connection is refused."""

GENERATED: Final = "amq.gen-"
"""How the names of queues begin that the broker chooses."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Judge:
    """A source of rules, of which each kind derives from this: files of access rules, and permissions."""

    def court(self, identity: Identity, host: str) -> list[RuleSet]:
        """Who decides about somebody in a virtual host, in this order."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Rules(Policy):
    """Who may do what, by the rules of judges. What one of them refuses is refused; without any, everything is allowed
    but to send messages in another's name."""

    def __init__(self, broker: Broker | None, judges: list[Judge], *, groups: dict[str, frozenset[str]] | None = None,
                 realms: list[str] | None = None, impersonators: frozenset[str] = frozenset()) -> None:
        """groups: of each user, by any of its spellings. realms: `bob` and `bob@REALM` are the same user; the first is
        that of users without one. impersonators: users who may send messages with another's user-id."""
        self.broker = broker
        self.generation = 0
        self.denied = 0  # times that somebody was refused something
        self.judges = judges
        self.groups = groups or {}
        self.realms = realms or []
        self.impersonators = impersonators

    def change(self, other: Rules) -> None:
        """Have other rules from now on; connections that are open follow them, too."""
        self.judges, self.groups, self.realms = other.judges, other.groups, other.realms
        self.impersonators = other.impersonators
        self.generation += 1

    def access(self, connection: ManagedConnection, host_name: str) -> Access:
        return Guarded(self, connection, host_name)

    def courts(self, identity: Identity, host_name: str) -> list[list[RuleSet]]:
        return [each.court(identity, host_name) for each in self.judges]

    def subject(self, identity: Identity, address: str, host: str, host_name: str, client: str) -> Subject:
        """Who somebody is to the rules."""
        user, _, realm = identity.user.rpartition("@")
        names = {identity.user}
        if user and realm in self.realms:
            names.add(user)
        elif not user or realm not in self.realms:
            names.update(f"{identity.user}@{each}" for each in self.realms)
        groups = set(identity.groups)
        for name in names:
            groups.update(self.groups.get(name, ()))
        variables = _variables(identity.user, self.realms) | {
            "username": identity.user, "vhost": host_name, "client_id": client}
        return Subject(identity.user, frozenset(names), frozenset(groups), address, host, client, variables)


_NOT_IN_KEYS: Final = re.compile(r"[.@*#]")


def _variables(user: str, realms: list[str]) -> dict[str, str]:
    """What qpidd's variables stand for: of `bob.user@QPID.COM` the user is `bob_user`, the domain `QPID_COM`. A user
    whose name has a wildcard in it must not get one."""
    name, at, domain = user.rpartition("@")
    if not at:
        name, domain = user, realms[0] if realms else ""
    parts = {"user": name, "domain": domain, "userdomain": f"{name}@{domain}" if domain else name}
    return {key: _NOT_IN_KEYS.sub("_", value) for key, value in parts.items()}


class Verdict:
    """What was decided about an address to publish to, or about an exchange with any key, as long as the exchange is
    the same."""

    __slots__ = ("exchange", "refusal")

    def __init__(self, exchange: Exchange, refusal: str) -> None:
        self.exchange = exchange
        self.refusal = refusal  # what to tell the client; "" where it is allowed


class Guarded(Access):
    """A connection's rights, as the rules have them."""

    def __init__(self, policy: Rules, connection: ManagedConnection, host_name: str) -> None:
        self.policy = policy
        self.connection = connection
        self.host_name = host_name
        self.generation = -1
        self.decided: dict[bytes, Verdict] = {}  # by `Address.short_strings`
        self.exchanges: dict[str, Verdict] = {}  # by name, of those where the routing key makes no difference
        self.refused = 0  # times in a while, which began then
        self.refused_since = 0  # ms since the epoch
        self._renew()

    def _renew(self) -> None:
        connection = self.connection
        identity = connection.identity
        self.generation = self.policy.generation
        self.decided = {}
        self.exchanges = {}
        self.courts = self.policy.courts(identity, self.host_name)
        address = connection.peer.rpartition(":")[0].strip("[]")
        self.subject = self.policy.subject(identity, address, connection.peer_name, self.host_name,
                                           connection.container())
        connection.impersonates = "impersonator" in identity.tags or identity.user in self.policy.impersonators \
            or judge(self.courts, self.subject, Question("impersonate", "user", {}, explicit=True)).allowed

    # Doors.

    def enter(self) -> None:
        self._ask(Question("create", "connection", {}, explicit=True, free=True))
        self._ask(Question("access", "virtualhost", self._values(self.host_name)))

    def declare_queue(self, name: str, durable: bool, exclusive: bool, auto_delete: bool,
                      arguments: dict[str, Any]) -> None:
        values = self._values(name or GENERATED + "0" * 22)
        host = self._host()
        values.update(_kept(durable, exclusive, auto_delete), exists=host is not None and name in host.queues,
                      **_queue_options(arguments))
        self._ask(Question("create", "queue", values))

    def see_queue(self, name: str) -> None:
        self._ask(Question("access", "queue", {**self._queue(name), "passive": True}))

    def delete_queue(self, name: str) -> None:
        self._ask(Question("delete", "queue", self._queue(name)))

    def purge(self, name: str) -> None:
        self._ask(Question("purge", "queue", self._queue(name)))

    def consume(self, name: str) -> None:
        self._ask(Question("consume", "queue", self._queue(name)))

    def declare_exchange(self, name: str, kind: str, durable: bool, auto_delete: bool,
                         arguments: dict[str, Any]) -> None:
        values = self._values(name or NAMELESS)
        host = self._host()
        values.update(_kept(durable, False, auto_delete), exists=host is not None and name in host.exchanges, type=kind)
        alternate = arguments.get("alternate-exchange")
        if isinstance(alternate, str):
            values["alternate"] = alternate or NAMELESS
        self._ask(Question("create", "exchange", values))

    def see_exchange(self, name: str) -> None:
        self._ask(Question("access", "exchange", {**self._exchange(name), "passive": True}))

    def delete_exchange(self, name: str) -> None:
        self._ask(Question("delete", "exchange", self._exchange(name)))

    def bind(self, source: str, destination: str, is_queue: bool, key: str, arguments: dict[str, Any]) -> None:
        self._ask(Question("bind", "exchange", self._binding(source, destination, is_queue, key)))

    def unbind(self, source: str, destination: str, is_queue: bool, key: str) -> None:
        self._ask(Question("unbind", "exchange", self._binding(source, destination, is_queue, key)))

    def publish(self, short_strings: bytes, exchange: str, routing_key: str) -> None:
        if self.generation != self.policy.generation:
            self._renew()
        verdict = self.decided.get(short_strings)
        if verdict is None or verdict.exchange.deleted:
            refusal = self._may_publish(short_strings, exchange, routing_key)
        else:
            refusal = verdict.refusal
        if refusal:
            self.policy.denied += 1
            raise Forbidden(refusal)

    def _may_publish(self, short_strings: bytes, exchange: str, routing_key: str) -> str:
        verdict = self.exchanges.get(exchange)
        if verdict is None or verdict.exchange.deleted:
            values = self._exchange(exchange)
            values["routingkey"] = routing_key
            question = Question("publish", "exchange", values)
            refusal = self._refusal(question)
            host = self._host()
            found = host.exchanges.get(exchange) if host is not None else None
            if found is None:
                return refusal  # and nobody knows what it will be
            verdict = Verdict(found, refusal)
            if not question.asks_key:
                if len(self.exchanges) >= REMEMBERED:
                    self.exchanges.clear()
                self.exchanges[exchange] = verdict
        if len(self.decided) >= REMEMBERED:
            self.decided.clear()
        self.decided[short_strings] = verdict
        return verdict.refusal

    def publish_to(self, exchange: str) -> None:
        self._ask(Question("publish", "exchange", self._exchange(exchange), keyless=True))

    def subscribe(self, exchange: str, key: str) -> None:
        values = self._exchange(exchange)
        values.update(_kept(False, False, True), queuename="", routingkey=key)
        self._ask(Question("bind", "exchange", values))

    def manage(self, action: str, kind: str, name: str, values: dict[str, Any]) -> None:
        self._ask(management_question(action, kind, name, values, self.host_name))

    # What properties things have.

    def _values(self, name: str) -> dict[str, Any]:
        return {"name": name, "virtualhostname": self.host_name}

    def _queue(self, name: str) -> dict[str, Any]:
        values = self._values(name)
        host = self._host()
        queue = host.queues.get(name) if host is not None else None
        if queue is not None:
            values.update(_kept(queue.durable, queue.exclusive, queue.auto_delete))
            if queue.settings.alternate is not None:
                values["alternate"] = queue.settings.alternate or NAMELESS
        return values

    def _exchange(self, name: str) -> dict[str, Any]:
        values = self._values(name or NAMELESS)
        host = self._host()
        exchange = host.exchanges.get(name) if host is not None else None
        if exchange is not None:
            values.update(_kept(exchange.durable, False, exchange.auto_delete), type=exchange.kind)
            if exchange.alternate is not None:
                values["alternate"] = exchange.alternate or NAMELESS
        return values

    def _binding(self, source: str, destination: str, is_queue: bool, key: str) -> dict[str, Any]:
        """As Broker-J has it, durable and the like are those of the destination."""
        values = self._queue(destination) if is_queue else self._exchange(destination)
        values.update(name=source or NAMELESS, type=self._exchange(source).get("type"), queuename=destination,
                      destination=destination or NAMELESS, destinationkind="queue" if is_queue else "exchange",
                      routingkey=key)
        return values

    def _host(self) -> VirtualHost | None:
        broker = self.policy.broker
        return broker.hosts.get(self.host_name) if broker is not None else None

    # Asking.

    def _decide(self, question: Question) -> Decision:
        if self.generation != self.policy.generation:
            self._renew()
        decision = judge(self.courts, self.subject, question)
        if not decision.allowed:
            self._log_refusal(question, decision)
        elif decision.rule is not None and decision.rule.log:
            logger.info("%s: user %r may: %s (%s)", self.connection.peer, self.subject.user, question,
                        decision.reason())
        return decision

    def _log_refusal(self, question: Question, decision: Decision) -> None:
        """Log it, unless the client makes it too many lines: then only how many there were."""
        broker = self.policy.broker
        now = broker.clock.now if broker is not None else 0
        more = ""
        if not 0 <= now - self.refused_since < QUIET:
            if self.refused > LINES:
                more = f"; and {self.refused - LINES} times more since the line before"
            self.refused, self.refused_since = 0, now
        self.refused += 1
        if self.refused <= LINES:
            logger.warning("%s: user %r is refused: %s (%s)%s", self.connection.peer, self.subject.user, question,
                           decision.reason(), more)

    def _refusal(self, question: Question) -> str:
        decision = self._decide(question)
        return "" if decision.allowed else refusal(question, decision, self.subject.user, self.host_name)

    def _ask(self, question: Question) -> None:
        text = self._refusal(question)
        if text:
            self.policy.denied += 1
            raise Forbidden(text)


def _kept(durable: bool, exclusive: bool, auto_delete: bool) -> dict[str, Any]:
    return {"durable": durable, "exclusive": exclusive, "autodelete": auto_delete,
            "temporary": exclusive or auto_delete, "passive": False}


_METHODS: Final = {"move": "moveMessages", "copy": "copyMessages"}
"""What Broker-J calls them."""


def management_question(action: str, kind: str, name: str, values: dict[str, Any], host_name: str) -> Question:
    """The question behind a management operation, which qpidd's rules have words for, by what Broker-J's call it as
    well: `ACCESS MANAGEMENT`, `INVOKE`, `CONFIGURE BROKER`."""
    own = {_word(key): value for key, value in values.items()} | {"name": name, "virtualhostname": host_name}
    others = []
    if kind == "query" or kind == "method":
        others.append(Question("access", "management", own))
    elif kind == "broker" and action == "update":
        others.append(Question("configure", "broker", own))
    elif kind == "queue":
        others.append(Question("update", "queue", own))
    if kind != "query":
        method = name if kind == "method" else _METHODS.get(action, action)
        others.append(Question("invoke", str(values.get("schemaclass", kind)), {**own, "methodname": method}))
        if action in _METHODS:
            others.append(Question("update", "method", {**own, "name": method}))
    return Question(action, kind, own, others=others)


def refusal(question: Question, decision: Decision, user: str, host_name: str) -> str:
    """What to tell the client: RabbitMQ's words, which never say why."""
    values = question.values
    kind, name, blames = question.object, values.get("name", ""), ""
    if decision.rule is not None:
        blames = decision.rule.blames
    if kind == "virtualhost" or (kind == "connection" and question.action == "create"):
        return f"access to vhost '{host_name}' refused for user '{user}'"
    what = f"{kind} '{name}' in vhost '{host_name}'"
    if kind not in ("queue", "exchange"):
        what = f"{question.action} of {kind} '{name}'" if name else f"{question.action} of {kind}"
        return f"{what} refused for user '{user}'"
    if blames == "routingkey":
        what = f"topic '{values.get('routingkey', '')}' in {what}"
    elif blames == "destination":
        what = f"{values.get('destinationkind', '')} '{values.get('destination', '')}' in vhost '{host_name}'"
    elif blames:
        what = f"exchange '{values.get(blames, '')}' in vhost '{host_name}'"
    return f"access to {what} refused for user '{user}'"


def _word(text: str) -> str:
    return text.replace("_", "").replace(" ", "").lower()


def _queue_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """The properties that a queue's arguments make. What cannot be read is refused later on, by the declaration."""
    values: dict[str, Any] = {"queuemaxsize": -1, "queuemaxcount": -1, "paging": bool(arguments.get("qpid.paging"))}
    try:
        found = given(arguments, QUEUE_NAMES, "a queue")
    except PreconditionFailed:
        return values
    for option, property in (("max_bytes", "queuemaxsize"), ("max_length", "queuemaxcount"),
                             ("alternate", "alternate"), ("dead_letter_exchange", "deadletterexchange")):
        if option in found and found[option].value is not None:
            value = found[option].value
            values[property] = NAMELESS if value == "" else value
    if "overflow" in found:
        values["policytype"] = str(found["overflow"].raw).replace("_", "-")
    return values
