"""Filters of a source (Apache's registered ones): what a receiver wants, and what of that it gets.

Each is a described value, known by its symbol or its code. Those that are honoured are echoed in the reply; a receiver
that finds one missing there knows that it was not.
"""

from __future__ import annotations

from typing import Any

from broker.errors import PreconditionFailed
from broker.exchange import NO_LOCAL, SELECTOR, selector_argument
from broker.values import Described, Pairs, Symbol, ULong
from protocols.amqp10.errors import INVALID_FIELD, LINK, ProtocolError

DIRECT, TOPIC, HEADERS, NO_LOCAL_FILTER, SELECTOR_FILTER = range(5)

_BASE = 0x0000468C00000000
_NAMES = {
    "apache.org:legacy-amqp-direct-binding:string": DIRECT,
    "apache.org:legacy-amqp-topic-binding:string": TOPIC,
    "apache.org:legacy-amqp-headers-binding:map": HEADERS,
    "apache.org:no-local-filter:list": NO_LOCAL_FILTER,
    "apache.org:jms-no-local-filter:list": NO_LOCAL_FILTER,
    "apache.org:selector-filter:string": SELECTOR_FILTER,
    "apache.org:jms-selector-filter:string": SELECTOR_FILTER,
}


class Filters:
    """What a filter set asks for."""

    __slots__ = ("selector", "no_local", "key", "headers", "echo")

    def __init__(self) -> None:
        self.selector: str | None = None
        self.no_local = False
        self.key: str | None = None  # to bind with, of an exchange
        self.headers: dict[str, Any] | None = None  # likewise, of a headers exchange
        self.echo: list[tuple[Any, Any]] = []  # what is honoured, to be named in the reply

    def arguments(self, container: str) -> dict[str, Any]:
        """The arguments of a binding that has them all."""
        found: dict[str, Any] = dict(self.headers or {})
        if self.selector:
            found[SELECTOR] = self.selector
        if self.no_local:
            found[NO_LOCAL] = container
        return found

    def reply(self) -> Pairs | None:
        return Pairs(self.echo) if self.echo else None


def read_filters(given: dict[str, Any] | None, exchange: bool) -> Filters:
    """What of the filters can be honoured, of an exchange or of a queue. Raises: ProtocolError for a wrong one."""
    filters = Filters()
    for name, value in (given or {}).items():
        if not isinstance(value, Described):
            continue
        kind = _kind(value.descriptor)
        content = value.value
        if kind == SELECTOR_FILTER:
            filters.selector = _text(name, content)
            try:
                selector_argument({SELECTOR: filters.selector})
            except PreconditionFailed as error:
                raise ProtocolError(INVALID_FIELD, str(error), LINK, {"invalid-field": "filter"}) from None
        elif kind == NO_LOCAL_FILTER:
            filters.no_local = True
        elif kind in (DIRECT, TOPIC) and exchange:
            filters.key = _text(name, content)
        elif kind == HEADERS and exchange:
            if not isinstance(content, dict):
                raise ProtocolError(INVALID_FIELD, f"filter '{name}' is no map of headers", LINK,
                                    {"invalid-field": "filter"})
            filters.headers = content
        else:
            continue
        filters.echo.append((Symbol(name), value))
    return filters


def _kind(descriptor: Any) -> int:
    if isinstance(descriptor, ULong):
        code = int(descriptor) - _BASE
        return code if DIRECT <= code <= SELECTOR_FILTER else -1
    return _NAMES.get(str(descriptor), -1) if isinstance(descriptor, Symbol) else -1


def _text(name: str, content: Any) -> str:
    if not isinstance(content, str):
        raise ProtocolError(INVALID_FIELD, f"filter '{name}' is no string", LINK, {"invalid-field": "filter"})
    return str(content)
