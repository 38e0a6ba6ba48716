"""The methods of a channel that are not on the hot path: topology, consumers, quality of service, transactions.

Each function gets the channel and the method's arguments by name. `COMMANDS` says which method is whose.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from broker.errors import AccessRefused, LimitReached, NotFound, PreconditionFailed
from broker.exchange import Exchange
from broker.filters import wanted
from broker.lifetime import WITH_CONNECTION, WITH_SESSION
from broker.message import AMQP091, AMQP091_JMS
from broker.queue import Queue
from broker.transaction import Transaction
from protocols.amqp091.consumer import BasicConsumer, BrowsingConsumer, LeavingBrowser, with_delivery_count
from protocols.amqp091.convert import content_frames
from protocols.amqp091.errors import ProtocolError
from protocols.amqp091.session import OUTCOMES, REPLY_TO

if TYPE_CHECKING:
    from protocols.amqp091.session import Channel

Arguments = dict[str, Any]


def _name(name: str) -> str:
    """A name to declare: valid UTF-8, and without line ends, which RabbitMQ takes out."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ProtocolError(501, "Malformed UTF-8 in shortstr") from None
    return name.replace("\r", "").replace("\n", "")


def _queue_name(channel: Channel, name: str) -> str:
    """An empty name stands for the queue that was declared last on the channel."""
    if name:
        return name
    if channel.last_queue is None:
        raise NotFound("no previously declared queue")
    return channel.last_queue


def _own_queue(channel: Channel, name: str) -> Queue:
    queue = channel.host.queue(name)
    queue.check_access(channel.connection)
    return queue


# Exchanges.


def _not_default(name: str) -> None:
    if not name:
        raise AccessRefused("operation not permitted on the default exchange")


def exchange_declare(channel: Channel, m: Arguments) -> None:
    name = _name(m["exchange"])
    _not_default(name)
    access = channel.connection.access
    wait = False
    if m["passive"]:
        access.see_exchange(name)
        channel.host.exchange(name)
    else:
        access.declare_exchange(name, m["type"], m["durable"], m["auto-delete"], m["arguments"])
        wait = channel.host.declare_exchange(name, m["type"], m["durable"], m["auto-delete"], m["internal"],
                                             m["arguments"])
    if not m["nowait"]:
        channel.reply_when_durable(wait, "exchange.declare-ok")


def exchange_delete(channel: Channel, m: Arguments) -> None:
    _not_default(m["exchange"])
    channel.connection.access.delete_exchange(m["exchange"])
    wait = channel.host.delete_exchange(m["exchange"], m["if-unused"])
    if not m["nowait"]:
        channel.reply_when_durable(wait, "exchange.delete-ok")


def exchange_bind(channel: Channel, m: Arguments) -> None:
    _not_default(m["source"])
    _not_default(m["destination"])
    channel.connection.access.bind(m["source"], m["destination"], False, m["routing-key"], m["arguments"])
    source = channel.host.exchange(m["source"])
    wait = channel.host.bind(source, channel.host.exchange(m["destination"]), m["routing-key"], m["arguments"])
    if not m["nowait"]:
        channel.reply_when_durable(wait, "exchange.bind-ok")


def exchange_unbind(channel: Channel, m: Arguments) -> None:
    _not_default(m["source"])
    _not_default(m["destination"])
    channel.connection.access.unbind(m["source"], m["destination"], False, m["routing-key"])
    wait = _unbind(channel, channel.host.exchanges.get(m["destination"]), m["source"], m)
    if not m["nowait"]:
        channel.reply_when_durable(wait, "exchange.unbind-ok")


def _unbind(channel: Channel, destination: Queue | Exchange | None, source_name: str, m: Arguments) -> bool:
    """Unbind; what does not exist is not bound, and that is no error."""
    source = channel.host.exchanges.get(source_name)
    if source is None or destination is None:
        return False
    return channel.host.unbind(source, destination, m["routing-key"], m["arguments"])


_OK, _NO_EXCHANGE, _NO_QUEUE, _NO_BINDINGS, _QUEUE_NOT_BOUND, _NO_QUEUE_BOUND_WITH_KEY, _NOT_BOUND_WITH_KEY = range(7)


def exchange_bound(channel: Channel, m: Arguments) -> None:
    """Qpid's extension: is anything, or this queue, bound to an exchange (with this key)?"""
    channel.connection.access.see_exchange(m["exchange"])
    if m["queue"]:
        channel.connection.access.see_queue(m["queue"])
    code, reply = _bound(channel, m["exchange"], m["routing-key"], m["queue"])
    channel.reply("exchange.bound-ok", reply_code=code, reply_text=reply[:255])


def _bound(channel: Channel, exchange_name: str, key: str, queue_name: str) -> tuple[int, str]:
    exchange = channel.host.exchanges.get(exchange_name)
    if exchange is None:
        return _NO_EXCHANGE, f"Exchange '{exchange_name}' not found"
    queue = channel.host.queues.get(queue_name)
    if queue_name and queue is None:
        return _NO_QUEUE, f"Queue '{queue_name}' not found"
    if exchange_name == "":
        return _OK, ""  # every queue is, by its own name
    bindings = [each for each in exchange.bindings.values() if queue is None or each.queue is queue]
    if not bindings:
        return (_NO_BINDINGS if queue is None else _QUEUE_NOT_BOUND), "nothing is bound"
    if key and all(each.routing_key != key for each in bindings):
        code = _NO_QUEUE_BOUND_WITH_KEY if queue is None else _NOT_BOUND_WITH_KEY
        return code, f"nothing is bound with the routing key '{key}'"
    return _OK, ""


# Queues.


def queue_declare(channel: Channel, m: Arguments) -> None:
    name = _name(m["queue"])
    if name.startswith(REPLY_TO + ".") and name not in channel.host.queues:
        raise NotFound(f"no queue '{name}' in vhost '{channel.host.name}'")
    if name == REPLY_TO or name.startswith(REPLY_TO + "."):
        if not m["nowait"]:
            channel.reply("queue.declare-ok", queue=name, message_count=0, consumer_count=1)
        return
    access = channel.connection.access
    wait = False
    if m["durable"] and not m["auto-delete"] and channel.connection.form == AMQP091_JMS:
        m["exclusive"] = False  # for Qpid's clients a durable subscription is exclusive; it outlives its connection
    if m["passive"]:
        access.see_queue(name)
        queue = channel.host.queue(name)
        queue.check_access(channel.connection)
    else:
        access.declare_queue(name, m["durable"], m["exclusive"], m["auto-delete"], m["arguments"])
        is_new = name not in channel.host.queues
        queue, wait = channel.host.declare_queue(name, m["durable"], m["exclusive"], m["auto-delete"],
                                                 m["arguments"], channel.connection)
        if is_new and queue.settings.lifetime in WITH_SESSION:
            channel.own_queues[queue] = None
        elif queue.exclusive or is_new and queue.settings.lifetime == WITH_CONNECTION:
            channel.connection.exclusive_queues[queue] = None
    channel.last_queue = queue.name
    if not m["nowait"]:
        channel.reply_when_durable(wait, "queue.declare-ok", queue=queue.name, message_count=queue.ready,
                                   consumer_count=len(queue.consumers))


def queue_bind(channel: Channel, m: Arguments) -> None:
    _not_default(m["exchange"])
    name = _queue_name(channel, m["queue"])
    key = m["routing-key"]
    if not m["queue"] and not key:  # section 1.7.2.3: then the key, too, is the queue's name
        key = name
    channel.connection.access.bind(m["exchange"], name, True, key, m["arguments"])
    exchange = channel.host.exchange(m["exchange"])
    queue = channel.host.queue(name)
    queue.check_access(channel.connection)
    wait = channel.host.bind(exchange, queue, key, m["arguments"])
    if not m["nowait"]:
        channel.reply_when_durable(wait, "queue.bind-ok")


def queue_unbind(channel: Channel, m: Arguments) -> None:
    _not_default(m["exchange"])
    name = _queue_name(channel, m["queue"])
    if not m["queue"] and not m["routing-key"]:
        m["routing-key"] = name
    channel.connection.access.unbind(m["exchange"], name, True, m["routing-key"])
    queue = channel.host.queues.get(name)
    wait = _unbind(channel, queue, m["exchange"], m)
    channel.reply_when_durable(wait, "queue.unbind-ok")


def queue_purge(channel: Channel, m: Arguments) -> None:
    name = _queue_name(channel, m["queue"])
    channel.connection.access.purge(name)
    queue = _own_queue(channel, name)
    count = queue.purge()
    if not m["nowait"]:
        channel.reply_when_durable(queue.durable and count > 0, "queue.purge-ok", message_count=count)


def queue_delete(channel: Channel, m: Arguments) -> None:
    name = _queue_name(channel, m["queue"])
    channel.connection.access.delete_queue(name)
    queue = channel.host.queues.get(name)
    count = 0
    wait = False
    if queue is not None:
        queue.check_access(channel.connection)
        if m["if-unused"] and queue.consumers:
            raise PreconditionFailed(f"{queue!r} in use")
        if m["if-empty"] and queue.ready:
            raise PreconditionFailed(f"{queue!r} not empty")
        count = queue.ready
        channel.connection.exclusive_queues.pop(queue, None)
        channel.own_queues.pop(queue, None)
        wait = channel.host.delete_queue(queue)
    if not m["nowait"]:
        channel.reply_when_durable(wait, "queue.delete-ok", message_count=count)


# Consumers.


def basic_qos(channel: Channel, m: Arguments) -> None:
    if m["prefetch-size"]:
        raise ProtocolError(540, f"prefetch_size!=0 ({m['prefetch-size']})")
    if m["global"]:
        count = m["prefetch-count"]
        channel.limit = min(count or channel.most, channel.most) if channel.most else count
        channel.wake_all()
    else:
        channel.consumer_limit = m["prefetch-count"]
    channel.reply("basic.qos-ok")


BROWSE = "x-filter-no-consume"  # as Qpid's clients ask for it
LEAVE_AT_END = "x-filter-auto-close"


def basic_consume(channel: Channel, m: Arguments) -> None:
    tag = m["consumer-tag"] or "amq.ctag-" + secrets.token_urlsafe(16)
    if tag in channel.consumers:
        raise ProtocolError(530, f"attempt to reuse consumer tag '{tag}'")
    name = _queue_name(channel, m["queue"])
    if name == REPLY_TO:
        queue = _reply_queue(channel, m)
    else:
        channel.connection.access.consume(name)
        queue = _own_queue(channel, name)
    channel.connection.quota.check_consumers(len(channel.consumers))
    arguments = m.get("arguments", {})
    wants = wanted(arguments, repr(queue))
    if m["exclusive"] and queue.settings.single_active:
        raise AccessRefused(f"{queue!r} in exclusive use")
    kind = BrowsingConsumer if queue.settings.browse_only else BasicConsumer
    if arguments.get(BROWSE):
        kind = LeavingBrowser if arguments.get(LEAVE_AT_END) else BrowsingConsumer
    consumer = kind(channel, queue, tag, wants.priority, m["exclusive"], not m["no-ack"], channel.consumer_limit)
    consumer.choose(wants.selector, wants.replay_period)
    if m["no-local"] and channel.connection.instance:
        consumer.no_local = channel.connection.instance
        consumer.choosy = True
    if kind is not BasicConsumer:
        consumer.browses = consumer.choosy = True
    queue.add(consumer)
    channel.consumers[tag] = consumer
    if not m["nowait"]:
        channel.reply("basic.consume-ok", consumer_tag=tag)
    consumer.started = True
    consumer.woken()


def _reply_queue(channel: Channel, m: Arguments) -> Queue:
    """The pseudo-queue of direct reply-to: a queue of this channel's own, under a name that nobody can guess."""
    if not m["no-ack"]:
        raise PreconditionFailed("reply consumer cannot acknowledge")
    if channel.reply_queue is not None and not channel.reply_queue.deleted:
        raise PreconditionFailed("reply consumer already set")
    queue = channel.host.hidden_queue(f"{REPLY_TO}.{secrets.token_urlsafe(24)}", channel.connection)
    channel.reply_queue = queue
    return queue


def basic_cancel(channel: Channel, m: Arguments) -> None:
    consumer = channel.consumers.pop(m["consumer-tag"], None)
    if consumer is not None:
        consumer.queue.remove(consumer)
    if not m["nowait"]:
        channel.reply("basic.cancel-ok", consumer_tag=m["consumer-tag"])


def basic_get(channel: Channel, m: Arguments) -> None:
    name = _queue_name(channel, m["queue"])
    channel.connection.access.consume(name)
    queue = _own_queue(channel, name)
    if 0 < channel.most <= channel.outstanding and not m["no-ack"]:
        raise LimitReached(f"{channel.most} deliveries are unacknowledged, which is the limit")
    entry = queue.get()
    if entry is None:
        channel.reply("basic.get-empty")
        return
    message = entry.message
    assert message is not None
    if message.dialect != AMQP091:
        message = message.translated(channel.connection.form)
    channel.delivery_tag += 1
    channel.connection.messages_out += 1
    if not m["no-ack"]:
        channel.unacked[channel.delivery_tag] = entry
        channel.outstanding += 1
    if entry.deliveries:
        message = with_delivery_count(entry, message)
    channel.reply("basic.get-ok", delivery_tag=channel.delivery_tag, redelivered=entry.redelivered,
                  exchange=message.address.exchange, routing_key=message.address.routing_key,
                  message_count=queue.ready)
    for part in content_frames(message, channel.number, channel.connection.frame_max):
        channel.send(part)
    if m["no-ack"]:
        queue.accept(entry)


def channel_flow(channel: Channel, m: Arguments) -> None:
    channel.flowing = m["active"]
    channel.reply("channel.flow-ok", active=m["active"])
    if channel.flowing:
        channel.wake_all()


# Settling.


def basic_nack(channel: Channel, m: Arguments) -> None:
    channel.settle(m["delivery-tag"], m["multiple"], OUTCOMES[m["requeue"]])


def basic_reject(channel: Channel, m: Arguments) -> None:
    channel.settle(m["delivery-tag"], False, OUTCOMES[m["requeue"]])


def basic_recover(channel: Channel, m: Arguments) -> None:
    channel.reply("basic.recover-ok")
    channel.recover(m["requeue"])


def basic_recover_async(channel: Channel, m: Arguments) -> None:
    if channel.connection.form == AMQP091_JMS and channel.connection.variant.major == 8:
        channel.reply("basic.recover-sync-ok")  # Qpid's 0-8 has an answer to it
    channel.recover(m["requeue"])


def basic_recover_sync(channel: Channel, m: Arguments) -> None:
    channel.reply("basic.recover-sync-ok")
    channel.recover(m["requeue"])


# Confirms and transactions.


def confirm_select(channel: Channel, m: Arguments) -> None:
    if channel.transaction is not None:
        raise PreconditionFailed("cannot switch from tx to confirm mode")
    channel.confirming = True
    if not m["nowait"]:
        channel.reply("confirm.select-ok")


def tx_select(channel: Channel, m: Arguments) -> None:
    if channel.confirming:
        raise PreconditionFailed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction(channel.host)
    channel.reply("tx.select-ok")


def tx_commit(channel: Channel, m: Arguments) -> None:
    if channel.transaction is None:
        raise PreconditionFailed("channel is not transactional")
    if channel.transaction.refused_by() is not None:  # RabbitMQ would leave some of it in its queues
        raise PreconditionFailed("partial tx completion")
    channel.commit()


def tx_rollback(channel: Channel, m: Arguments) -> None:
    if channel.transaction is None:
        raise PreconditionFailed("channel is not transactional")
    channel.rollback()


# The rest.


def access_request(channel: Channel, m: Arguments) -> None:
    """0-8 and 0-9: realms mean nothing here, as in all brokers that still know them."""
    channel.reply("access.request-ok", ticket=1)


def channel_ping(channel: Channel, m: Arguments) -> None:
    channel.reply("channel.pong")


def nothing(channel: Channel, m: Arguments) -> None:
    """A reply of the client's to something that needs none."""


COMMANDS: dict[str, Callable[[Channel, Arguments], None]] = {
    "exchange.declare": exchange_declare, "exchange.delete": exchange_delete, "exchange.bind": exchange_bind,
    "exchange.unbind": exchange_unbind, "exchange.bound": exchange_bound,
    "queue.declare": queue_declare, "queue.bind": queue_bind, "queue.unbind": queue_unbind,
    "queue.purge": queue_purge, "queue.delete": queue_delete,
    "basic.qos": basic_qos, "basic.consume": basic_consume, "basic.cancel": basic_cancel, "basic.get": basic_get,
    "basic.nack": basic_nack, "basic.reject": basic_reject,
    "basic.recover": basic_recover, "basic.recover-async": basic_recover_async,
    "basic.recover-sync": basic_recover_sync,
    "confirm.select": confirm_select, "tx.select": tx_select, "tx.commit": tx_commit, "tx.rollback": tx_rollback,
    "access.request": access_request, "channel.flow": channel_flow, "channel.flow-ok": nothing,
    "channel.ping": channel_ping, "channel.pong": nothing, "channel.ok": nothing,
}
