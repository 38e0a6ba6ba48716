"""Where answers are to go: an address, as text, and the exchange and routing key that it means.

    queue                   the queue of that name: the nameless exchange
    exchange/key            an exchange and a key; names of exchanges that are always there stand alone, too
    /queues/NAME, /exchanges/NAME/KEY                                   RabbitMQ 4's addresses, percent-encoded
    /queue/NAME, /amq/queue/NAME, /exchange/NAME/KEY, /topic/KEY        its older ones, as they stand
    direct:////queue, topic://amq.topic//?routingkey='key'              the binding URLs of Qpid's first JMS clients
"""

from __future__ import annotations

from urllib.parse import quote, unquote

_STANDARD = frozenset(["amq.direct", "amq.fanout", "amq.match", "amq.topic", "amq.headers", "qpid.management",
                       "qmf.default.direct", "qmf.default.topic"])
_KINDS = frozenset(["direct", "topic", "fanout", "headers", "match"])


def split_address(text: str) -> tuple[str, str]:
    """The exchange and the routing key that an address means, as far as its text tells."""
    slash = text.find("/")
    if slash < 0:
        return (text, "") if text in _STANDARD else ("", text)
    if slash > 0:
        return _split_url(text) if text.startswith("://", slash - 1) else (text[:slash], text[slash + 1:])
    if text.startswith("/queues/"):
        return "", unquote(text[8:])
    if text.startswith("/queue/"):
        return "", text[7:]
    if text.startswith("/amq/queue/"):
        return "", text[11:]
    if text.startswith("/topic/"):
        return "amq.topic", text[7:]
    if text.startswith("/exchanges/"):
        name, _, key = text[11:].partition("/")
        return unquote(name), unquote(key)
    if text.startswith("/exchange/"):
        name, _, key = text[10:].partition("/")
        return name, key
    return "", text


def join_address(exchange: str, key: str) -> str:
    """The address of an exchange and a routing key. `split_address` need not find just these in it."""
    if not exchange:
        return key
    return f"{exchange}/{key}" if key or exchange not in _STANDARD else exchange


def is_url(text: str) -> bool:
    """Whether it is a binding URL."""
    kind, colon, _ = text.partition("://")
    return bool(colon) and kind in _KINDS


def url(exchange: str, key: str) -> str:
    """The binding URL that a JMS client of 0-x expects."""
    if not exchange:
        return f"direct:////{quote(key, safe='')}"
    kind = {"amq.fanout": "fanout", "amq.match": "headers", "amq.topic": "topic"}.get(exchange, "direct")
    return f"{kind}://{exchange}//?routingkey='{quote(key, safe='')}'"


def _split_url(text: str) -> tuple[str, str]:
    """class://exchange/destination/queue?routingkey='key'&...; one without a key is bound with its queue's name."""
    kind, _, rest = text.partition("://")
    if kind not in _KINDS:
        return kind + ":", text[len(kind) + 2:]
    path, _, options = rest.partition("?")
    parts = [*path.split("/"), "", ""]
    exchange, destination, queue = unquote(parts[0]), unquote(parts[1]), unquote(parts[2])
    for option in options.split("&"):
        name, _, value = option.partition("=")
        if name == "routingkey":
            return exchange, unquote(value.strip("'\""))
    return exchange, queue or destination
