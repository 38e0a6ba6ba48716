"""Exchanges: from a routing key, and sometimes the message, to the queues that it goes to.

An exchange answers `match` with its own destinations, queues or other exchanges; the virtual host follows those. For
an exchange that is not `dynamic` the answer depends on nothing but the routing key, so whole routes are cached.
"""

from __future__ import annotations

from typing import Any

from mypy_extensions import mypyc_attr

from broker.arguments import BINDING_NAMES, given
from broker.errors import PreconditionFailed
from broker.extras import Extras
from broker.message import Message
from broker.queue import Queue
from broker.selector import Selector, SelectorError
from broker.topic import TopicTrie

SELECTOR = "x-filter-jms-selector"
"""The argument of a binding or a consumer that is a selector, in all dialects."""
NO_LOCAL = "x-filter-no-local"
"""The argument of a binding that names the container whose messages it is not for."""


def selector_argument(arguments: dict[str, Any]) -> Selector | None:
    """Raises: PreconditionFailed."""
    text = arguments.get(SELECTOR)
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise PreconditionFailed(f"invalid arg '{SELECTOR}': it is no text")
    try:
        return Selector(text)
    except SelectorError as error:
        raise PreconditionFailed(f"invalid arg '{SELECTOR}': {error}") from None


class Binding:
    """From an exchange to a queue or another exchange."""

    __slots__ = ("source", "queue", "exchange", "routing_key", "arguments", "identity", "setting", "selector",
                 "no_local", "exclusive")

    def __init__(self, source: Exchange, queue: Queue | None, exchange: Exchange | None, routing_key: str,
                 arguments: dict[str, Any], identity: str) -> None:
        """Raises: PreconditionFailed for a selector that makes no sense."""
        self.source = source
        self.queue = queue
        self.exchange = exchange
        self.routing_key = routing_key
        self.arguments = arguments
        self.identity = identity  # what makes it different from the others of its exchange
        self.setting = ""  # its key in the store, when it is durable
        if source.kind != "headers":  # there, all but a few are headers of messages
            given(arguments, BINDING_NAMES, f"binding of exchange '{source.name}'")
        exclusive = arguments.get("qpid.exclusive-binding")
        self.exclusive = exclusive is not None and source.kind == "direct" and bool(
            BINDING_NAMES["qpid.exclusive-binding"].read("qpid.exclusive-binding", exclusive, "binding"))
        self.selector = selector_argument(arguments)
        no_local = arguments.get(NO_LOCAL)
        self.no_local = no_local if isinstance(no_local, str) else ""  # whose messages it is not for

    def picky(self) -> bool:
        """Whether messages themselves decide if they go this way."""
        return self.selector is not None or bool(self.no_local)

    def passes(self, message: Message | None) -> bool:
        """Whether a message goes this way, if its routing key does."""
        if message is None:
            return True
        if self.no_local and message.origin == self.no_local:
            return False
        return self.selector is None or self.selector.matches(message)

    def destination(self) -> Queue | Exchange:
        if self.queue is not None:
            return self.queue
        assert self.exchange is not None
        return self.exchange


@mypyc_attr(allow_interpreted_subclasses=True)
class Exchange:
    """Base of all exchanges: identity and bindings. A kind of exchange says how it matches."""

    by_message = False  # this kind of exchange looks at the message itself

    def __init__(self, name: str, kind: str, durable: bool, auto_delete: bool, internal: bool,
                 arguments: dict[str, Any]) -> None:
        self.name = name
        self.kind = kind
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments
        alternate = arguments.get("alternate-exchange", arguments.get("x-policy-alternate-exchange"))
        self.alternate: str | None = alternate if isinstance(alternate, str) else None
        self.bindings: dict[str, Binding] = {}
        self.dynamic = self.by_message  # or one of its bindings does
        self.extras: Extras | None = None  # what it does beside routing
        self.deleted = False
        self.received = 0  # messages that were published to it
        self.received_bytes = 0
        self.dropped = 0  # those of them that went nowhere
        self.dropped_bytes = 0
        self.copies = 0  # of messages that went to several queues, all but one
        self.copies_bytes = 0

    def bind(self, binding: Binding) -> None:
        """Add a binding. Raises: PreconditionFailed when this kind of exchange cannot make sense of it."""
        self.bindings[binding.identity] = binding
        self.dynamic = self.dynamic or binding.picky()

    def unbind(self, binding: Binding) -> None:
        del self.bindings[binding.identity]
        if self.dynamic and binding.picky():
            picky = any(other.picky() for other in self.bindings.values())
            self.dynamic = picky or self.by_message or self.extras is not None

    def count_copies(self, queues: int, size: int) -> None:
        """A message of so many bytes goes to so many queues, and not just to one as most do."""
        if queues == 0:
            self.dropped += 1
            self.dropped_bytes += size
        else:
            self.copies += queues - 1
            self.copies_bytes += (queues - 1) * size

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        """The destinations of a message; `message` is given when the exchange is dynamic."""
        raise NotImplementedError


class DefaultExchange(Exchange):
    """The nameless exchange: every queue is bound to it by its own name."""

    def __init__(self, queues: dict[str, Queue]) -> None:
        super().__init__("", "direct", True, False, False, {})
        self.queues = queues

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        queue = self.queues.get(routing_key)
        return [] if queue is None or queue.settings.retains else [queue]


class DirectExchange(Exchange):
    """To the destinations bound with just that routing key."""

    def __init__(self, name: str, kind: str, durable: bool, auto_delete: bool, internal: bool,
                 arguments: dict[str, Any]) -> None:
        super().__init__(name, kind, durable, auto_delete, internal, arguments)
        self.keys: dict[str, dict[str, Binding]] = {}

    def bind(self, binding: Binding) -> None:
        super().bind(binding)
        self.keys.setdefault(binding.routing_key, {})[binding.identity] = binding

    def unbind(self, binding: Binding) -> None:
        super().unbind(binding)
        bound = self.keys[binding.routing_key]
        del bound[binding.identity]
        if not bound:
            del self.keys[binding.routing_key]

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        bound = self.keys.get(routing_key)
        return [] if bound is None else [binding.destination() for binding in bound.values() if binding.passes(message)]


class FanoutExchange(Exchange):
    """To every destination."""

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        return [binding.destination() for binding in self.bindings.values() if binding.passes(message)]


class TopicExchange(Exchange):
    """To the destinations whose pattern matches the routing key, word by word."""

    def __init__(self, name: str, kind: str, durable: bool, auto_delete: bool, internal: bool,
                 arguments: dict[str, Any]) -> None:
        super().__init__(name, kind, durable, auto_delete, internal, arguments)
        self.trie = TopicTrie()

    def bind(self, binding: Binding) -> None:
        super().bind(binding)
        self.trie.add(binding.routing_key, binding.identity, binding)

    def unbind(self, binding: Binding) -> None:
        super().unbind(binding)
        self.trie.remove(binding.routing_key, binding.identity)

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        found: list[Queue | Exchange] = []
        for binding in self.trie.match(routing_key):
            assert isinstance(binding, Binding)
            if binding.passes(message):
                found.append(binding.destination())
        return found
