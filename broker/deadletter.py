"""Dead letters: a message that a queue gives up is published anew to the queue's dead-letter exchange, with its
history, unless it would go round in a circle without anybody having rejected it. The rules are RabbitMQ's."""

from __future__ import annotations

from broker.message import Address, Amendment, Message, address_of, amended
from broker.view import Death, View


def dead_letter(message: Message, queue: str, reason: str, exchange: str, routing_key: str | None,
                now: int, expiration: str | None) -> Message:
    """The message as it is published to its queue's dead-letter exchange.

    queue: the name of the one that gives it up; reason: rejected, expired, maxlen or delivery_limit; routing_key: the
    queue's dead-letter routing key, None for the message's own; now: ms since the epoch; expiration: the message's
    own time to live as it was written.
    """
    view = message.view()
    amendment = Amendment()
    amendment.drop_expiration = True
    amendment.deaths = _history(view, message.address, queue, reason, now // 1000, expiration)
    if routing_key is None:
        address = address_of(exchange, message.address.routing_key)
    else:
        address = address_of(exchange, routing_key)
        amendment.drop_headers = ("CC",)
    return amended(message, amendment, address, now)


def _history(view: View, address: Address, queue: str, reason: str, now: int, expiration: str | None) -> list[Death]:
    keys = [address.routing_key, *copies(view)]
    earlier = [death for death in view.deaths if death.queue == queue and death.reason == reason]
    if earlier:
        count, since, first_expiration = earlier[0].count + 1, earlier[0].time, earlier[0].original_expiration
        latest = Death(queue, reason, count, since, earlier[0].exchange, earlier[0].routing_keys, first_expiration)
    else:
        latest = Death(queue, reason, 1, now, address.exchange, keys, expiration)
    return [latest, *(death for death in view.deaths if death not in earlier)]


def copies(view: View) -> list[str]:
    """The routing keys that a message names besides its own, in its header CC."""
    listed = view.headers.get("CC")
    return [key for key in listed if isinstance(key, str)] if isinstance(listed, list) else []


def goes_round(queue: str, deaths: list[Death]) -> bool:
    """Whether a message with this history has been in the queue before and nobody rejected it since."""
    for number, death in enumerate(deaths):
        if death.queue == queue:
            return all(other.reason != "rejected" for other in deaths[:number + 1])
    return False
