# -*- coding: utf-8 -*-
"""Conversations of qpid-python 1.36 (Python 2.7) to be recorded: one function each, its first line says what is done.

    python2.7 conversations.py HOST:PORT [NAME] [MECHANISM]
"""

from __future__ import print_function

import sys
import time
import uuid

from qpid.connection import Connection as LowConnection
from qpid.datatypes import Message as LowMessage
from qpid.datatypes import RangedSet, timestamp
from qpid.messaging import (
    REJECTED,
    RELEASED,
    Connection,
    Disposition,
    Empty,
    Message,
    NotFound,
)
from qpid.ops import Xid
from qpid.session import SessionException
from qpid.util import connect

UNLIMITED = 0xFFFFFFFF


class Conversation:
    """What the conversations share. All names are fixed, so that a capture changes little when it is made anew."""

    def __init__(self, address, mechanism):
        host, port = address.split(":")
        self.host, self.port, self.mechanism = host, int(port), mechanism

    def low(self, **options):
        conn = LowConnection(connect(self.host, self.port), username="guest", password="guest",
                             mechanism=self.mechanism, **options)
        for control in ("session_expected", "session_confirmed", "session_timeout", "session_gap"):
            setattr(conn.delegate, control, ignore)  # the client has no handler for these
        conn.start(timeout=10)
        return conn

    def high(self, **options):
        conn = Connection("%s:%d" % (self.host, self.port), username="guest", password="guest",
                          sasl_mechanisms=self.mechanism, **options)
        conn.open(timeout=10)
        return conn

    def session(self, name):
        self.conn = self.low()
        return self.conn.session(name, timeout=10)

    def finish(self, ssn):
        ssn.close(timeout=10)
        self.conn.close(timeout=10)


def ignore(channel, control):
    pass


def send(ssn, queue, body, **delivery):
    ssn.message_transfer(message=LowMessage(ssn.delivery_properties(routing_key=queue, **delivery), body))


def subscribe(ssn, queue, destination, **options):
    ssn.message_subscribe(queue=queue, destination=destination, **options)
    return ssn.incoming(destination)


def unlimited(ssn, destination):
    for unit in ssn.credit_unit.VALUES:
        ssn.message_flow(destination, unit, UNLIMITED)


def low_handshake(talk):
    """Handshake, heartbeat of 1 s asked for, an idle time with heartbeats, connection.close."""
    conn = talk.low(heartbeat=1)
    time.sleep(2.6)
    conn.close(timeout=10)


def low_declare(talk):
    """Exchanges and queues: declare, passive, query, bind, bound in all its answers, purge, unbind, delete."""
    ssn = talk.session("declare")
    ssn.exchange_declare(exchange="cap.direct", type="direct", durable=True)
    ssn.exchange_declare(exchange="cap.headers", type="headers", alternate_exchange="amq.fanout", auto_delete=False)
    ssn.exchange_declare(exchange="cap.direct", type="direct", passive=True)
    ssn.queue_declare(queue="cap.q", durable=False, exclusive=False, auto_delete=False,
                      alternate_exchange="cap.direct", arguments={"qpid.max_count": 100})
    ssn.queue_declare(queue="cap.q", passive=True)
    ssn.exchange_bind(queue="cap.q", exchange="cap.direct", binding_key="key")
    ssn.exchange_bind(queue="cap.q", exchange="cap.headers", binding_key="h",
                      arguments={"x-match": "all", "colour": "red", "number": 7})
    send(ssn, "cap.q", "one")
    ssn.queue_query(queue="cap.q")
    ssn.queue_query(queue="cap.none")
    ssn.exchange_query(name="cap.direct")
    ssn.exchange_query(name="cap.none")
    for keys in ({"exchange": "cap.direct", "queue": "cap.q", "binding_key": "key"},
                 {"exchange": "cap.direct", "queue": "cap.q"}, {"exchange": "cap.direct", "binding_key": "key"},
                 {"exchange": "cap.direct", "queue": "cap.q", "binding_key": "other"},
                 {"exchange": "cap.none", "queue": "cap.q"}, {"exchange": "cap.direct", "queue": "cap.none"},
                 {"exchange": "cap.headers", "queue": "cap.q",
                  "arguments": {"x-match": "all", "colour": "red", "number": 7}}):
        ssn.exchange_bound(**keys)
    ssn.queue_purge(queue="cap.q")
    ssn.exchange_unbind(queue="cap.q", exchange="cap.direct", binding_key="key")
    ssn.exchange_unbind(queue="cap.q", exchange="cap.headers", binding_key="h")
    ssn.queue_delete(queue="cap.q", if_unused=True, if_empty=True)
    ssn.exchange_delete(exchange="cap.direct")
    ssn.exchange_delete(exchange="cap.headers", if_unused=True)
    talk.finish(ssn)


def low_properties(talk):
    """A message with every property of delivery-properties and message-properties and a map of types; received."""
    ssn = talk.session("properties")
    ssn.queue_declare(queue="cap.props", auto_delete=True)
    ssn.exchange_bind(queue="cap.props", exchange="amq.topic", binding_key="a.#")
    delivery = ssn.delivery_properties(routing_key="a.b", priority=7, delivery_mode=ssn.delivery_mode.persistent,
                                       ttl=60000, timestamp=1700000000, discard_unroutable=True, immediate=False)
    headers = {"void": None, "true": True, "int": -5, "long": 2 ** 40, "float": 1.5, "text": u"grün",
               "bytes": "\x00\xff", "list": [1, "two", [3.0]], "map": {"deep": {"deeper": u"x"}},
               "id": uuid.UUID(int=1), "time": timestamp(1700000000.0)}
    properties = ssn.message_properties(
        message_id=uuid.UUID(int=2), correlation_id="corr", reply_to=ssn.reply_to("amq.direct", "answers"),
        content_type="text/plain", content_encoding="utf-8", user_id="guest", app_id="captures",
        application_headers=headers)
    ssn.message_transfer(destination="amq.topic", message=LowMessage(delivery, properties, "all of it"))
    ssn.message_transfer(destination="amq.topic", message=LowMessage(ssn.delivery_properties(routing_key="a"), ""))
    queue = subscribe(ssn, "cap.props", "tag", accept_mode=ssn.accept_mode.explicit)
    unlimited(ssn, "tag")
    ids = RangedSet()
    for _ in range(2):
        ids.add(queue.get(timeout=10).id)
    ssn.message_accept(ids)
    ssn.message_cancel("tag")
    talk.finish(ssn)


def low_large(talk):
    """A message of 200,000 times x in several frames, both ways."""
    ssn = talk.session("large")
    ssn.queue_declare(queue="cap.large", auto_delete=True)
    send(ssn, "cap.large", "x" * 200000)
    queue = subscribe(ssn, "cap.large", "tag", accept_mode=1)
    unlimited(ssn, "tag")
    assert len(queue.get(timeout=10).body) == 200000
    talk.finish(ssn)


def low_credit(talk):
    """Credit mode: 2 messages of 5, more credit, flush, stop; then bytes as the limit; then cancel."""
    ssn = talk.session("credit")
    ssn.queue_declare(queue="cap.credit", auto_delete=True)
    for number in range(8):
        send(ssn, "cap.credit", "message %d" % number)
    queue = subscribe(ssn, "cap.credit", "tag", accept_mode=0)
    ssn.message_set_flow_mode("tag", ssn.flow_mode.credit)
    ssn.message_flow("tag", ssn.credit_unit.byte, UNLIMITED)
    ssn.message_flow("tag", ssn.credit_unit.message, 2)
    ids = RangedSet(*[queue.get(timeout=10).id for _ in range(2)])
    ssn.message_accept(ids)
    ssn.message_flow("tag", ssn.credit_unit.message, 2)
    ids = RangedSet(*[queue.get(timeout=10).id for _ in range(2)])
    ssn.message_accept(ids)
    ssn.message_flow("tag", ssn.credit_unit.message, 10)
    ids = RangedSet(*[queue.get(timeout=10).id for _ in range(4)])
    ssn.message_flush("tag")
    ssn.message_accept(ids)
    ssn.message_stop("tag")
    send(ssn, "cap.credit", "waits")
    ssn.message_flow("tag", ssn.credit_unit.message, 1)
    ssn.message_flow("tag", ssn.credit_unit.byte, 100)
    ssn.message_accept(RangedSet(queue.get(timeout=10).id))
    ssn.message_cancel("tag")
    talk.finish(ssn)


def low_window(talk):
    """Window mode: a window of 2 messages that opens as transfers are completed."""
    ssn = talk.session("window")
    ssn.queue_declare(queue="cap.window", auto_delete=True)
    for number in range(6):
        send(ssn, "cap.window", "message %d" % number)
    queue = subscribe(ssn, "cap.window", "tag", accept_mode=0)
    ssn.message_set_flow_mode("tag", ssn.flow_mode.window)
    ssn.message_flow("tag", ssn.credit_unit.byte, UNLIMITED)
    ssn.message_flow("tag", ssn.credit_unit.message, 2)
    for _ in range(6):
        message = queue.get(timeout=10)
        ssn.receiver._completed.add(message.id)
        ssn.channel.session_completed(ssn.receiver._completed)
        ssn.message_accept(RangedSet(message.id))
    ssn.message_cancel("tag")
    talk.finish(ssn)


def low_browse(talk):
    """Not-acquired subscription: browse, acquire one, accept it, release another, acquire what is gone."""
    ssn = talk.session("browse")
    ssn.queue_declare(queue="cap.browse", auto_delete=True)
    for number in range(3):
        send(ssn, "cap.browse", "message %d" % number)
    queue = subscribe(ssn, "cap.browse", "tag", acquire_mode=ssn.acquire_mode.not_acquired, accept_mode=1)
    unlimited(ssn, "tag")
    ids = [queue.get(timeout=10).id for _ in range(3)]
    ssn.message_acquire(RangedSet(ids[0], ids[2]))
    ssn.message_accept(RangedSet(ids[0]))
    ssn.message_release(RangedSet(ids[2]))
    ssn.message_acquire(RangedSet(ids[0]))
    ssn.message_cancel("tag")
    talk.finish(ssn)


def low_release_reject(talk):
    """Release (redelivered set and not), reject to the alternate exchange, unsettled messages of a closed session."""
    ssn = talk.session("settle")
    ssn.queue_declare(queue="cap.dead", auto_delete=False)
    ssn.exchange_bind(queue="cap.dead", exchange="amq.fanout")
    ssn.queue_declare(queue="cap.settle", alternate_exchange="amq.fanout")
    for body in ("released", "rejected"):
        send(ssn, "cap.settle", body)
    queue = subscribe(ssn, "cap.settle", "tag", accept_mode=0)
    ssn.message_set_flow_mode("tag", ssn.flow_mode.credit)
    ssn.message_flow("tag", 1, UNLIMITED)
    ssn.message_flow("tag", 0, 2)
    first, second = queue.get(timeout=10), queue.get(timeout=10)
    ssn.message_release(RangedSet(first.id), set_redelivered=True)
    ssn.message_reject(RangedSet(second.id), code=1, text="unfit")
    ssn.message_flow("tag", 0, 1)
    again = queue.get(timeout=10)
    ssn.message_release(RangedSet(again.id))
    ssn.message_cancel("tag")
    dead = subscribe(ssn, "cap.dead", "dead", accept_mode=0)
    unlimited(ssn, "dead")
    dead.get(timeout=10)
    ssn.close(timeout=10)
    ssn = talk.conn.session("settle-2", timeout=10)
    dead = subscribe(ssn, "cap.dead", "dead", accept_mode=0)
    unlimited(ssn, "dead")
    ssn.message_accept(RangedSet(dead.get(timeout=10).id))
    ssn.queue_delete(queue="cap.settle")
    ssn.queue_delete(queue="cap.dead")
    talk.finish(ssn)


def low_tx(talk):
    """tx: select, publish and accept, commit, publish, rollback."""
    ssn = talk.session("tx")
    ssn.queue_declare(queue="cap.tx", auto_delete=True)
    ssn.tx_select()
    send(ssn, "cap.tx", "kept")
    ssn.tx_commit()
    queue = subscribe(ssn, "cap.tx", "tag", accept_mode=0)
    unlimited(ssn, "tag")
    message = queue.get(timeout=10)
    ssn.message_accept(RangedSet(message.id))
    send(ssn, "cap.tx", "lost")
    ssn.tx_rollback()
    ssn.message_accept(RangedSet(message.id))
    ssn.tx_commit()
    ssn.message_cancel("tag")
    talk.finish(ssn)


def low_dtx(talk):
    """dtx: start, end, prepare, recover, commit; one-phase commit; suspend, resume, rollback; timeout; errors."""
    ssn = talk.session("dtx")
    ssn.queue_declare(queue="cap.dtx", auto_delete=False)
    ssn.dtx_select()
    one, two, three = [Xid(format=0, global_id="global", branch_id=branch) for branch in ("1", "2", "3")]
    ssn.dtx_start(xid=one)
    send(ssn, "cap.dtx", "prepared")
    ssn.dtx_end(xid=one)
    ssn.dtx_prepare(xid=one)
    ssn.dtx_recover()
    ssn.dtx_commit(xid=one, one_phase=False)
    ssn.dtx_start(xid=two)
    ssn.dtx_set_timeout(xid=two, timeout=30)
    ssn.dtx_get_timeout(xid=two)
    send(ssn, "cap.dtx", "one phase")
    ssn.dtx_end(xid=two, suspend=True)
    ssn.dtx_start(xid=two, resume=True)
    ssn.dtx_end(xid=two)
    ssn.dtx_commit(xid=two, one_phase=True)
    ssn.dtx_start(xid=three)
    send(ssn, "cap.dtx", "rolled back")
    ssn.dtx_end(xid=three)
    ssn.dtx_rollback(xid=three)
    ssn.queue_query(queue="cap.dtx")
    ssn.queue_delete(queue="cap.dtx")
    try:
        ssn.dtx_commit(xid=three, one_phase=True)
    except SessionException:
        pass
    talk.conn.close(timeout=10)


def low_exceptions(talk):
    """A session for each error: no queue, no exchange, redeclared otherwise, not empty, unknown subscription."""
    talk.conn = talk.low()
    ssn = talk.conn.session("prepare", timeout=10)
    ssn.queue_declare(queue="cap.full")
    send(ssn, "cap.full", "one")
    ssn.close(timeout=10)
    mistakes = [
        lambda ssn: ssn.queue_delete(queue="cap.none"),
        lambda ssn: ssn.queue_declare(queue="cap.none", passive=True),
        lambda ssn: ssn.message_subscribe(queue="cap.none", destination="tag"),
        lambda ssn: ssn.exchange_declare(exchange="amq.direct", type="topic"),
        lambda ssn: ssn.exchange_declare(exchange="cap.odd", type="no-such-type"),
        lambda ssn: ssn.exchange_declare(exchange="amq.mine", type="direct"),
        lambda ssn: ssn.exchange_delete(exchange="cap.none"),
        lambda ssn: ssn.exchange_bind(queue="cap.none", exchange="amq.direct", binding_key="k"),
        lambda ssn: ssn.exchange_bind(queue="cap.full", exchange="cap.none", binding_key="k"),
        lambda ssn: ssn.queue_delete(queue="cap.full", if_empty=True),
        lambda ssn: ssn.message_transfer(destination="cap.none", message=LowMessage("x")),
        lambda ssn: ssn.message_cancel("unknown"),
        lambda ssn: ssn.message_flow("unknown", 0, 1),
        lambda ssn: ssn.tx_commit(),
        lambda ssn: ssn.dtx_start(xid=Xid(format=0, global_id="g", branch_id="b")),
    ]
    for number, mistake in enumerate(mistakes):
        ssn = talk.conn.session("mistake-%d" % number, timeout=10)
        try:
            mistake(ssn)
        except SessionException:
            continue
        ssn.close(timeout=10)
    ssn = talk.conn.session("clean", timeout=10)
    ssn.queue_delete(queue="cap.full")
    talk.finish(ssn)


def low_asynchronous(talk):
    """Commands without sync, one execution.sync; known-completed and flush of all three kinds by hand."""
    ssn = talk.session("async")
    ssn.auto_sync = False
    ssn.queue_declare(queue="cap.async", auto_delete=True)
    for number in range(20):
        send(ssn, "cap.async", "message %d" % number)
    ssn.sync(timeout=10)
    ssn.channel.session_flush(completed=True)
    ssn.channel.session_flush(confirmed=True)
    ssn.channel.session_flush(expected=True)
    ssn.channel.session_request_timeout(30)
    found = ssn.queue_query(queue="cap.async", sync=True)
    ssn.sync(timeout=10)
    assert found.get(10).message_count == 20
    talk.finish(ssn)


def low_sessions(talk):
    """Two sessions interleaved on one connection; a name that is attached elsewhere; a detach without a close."""
    ssn = talk.session("first")
    other = talk.conn.session("second", timeout=10)
    ssn.queue_declare(queue="cap.two", auto_delete=True, exclusive=False)
    send(other, "cap.two", "across")
    queue = subscribe(ssn, "cap.two", "tag", accept_mode=1)
    unlimited(ssn, "tag")
    queue.get(timeout=10)
    second = talk.low()
    try:
        second.session("first", timeout=5)
        time.sleep(0.5)
    except Exception:
        pass
    other.close(timeout=10)
    second.close(timeout=10)
    talk.conn.close(timeout=10)


def high_queue(talk):
    """qpid.messaging: a queue created by address, text, bytes, map and list sent and fetched, acknowledged, deleted."""
    conn = talk.high()
    ssn = conn.session("s")
    snd = ssn.sender("cap.high; {create: always, delete: receiver,"
                     " node: {x-declare: {arguments: {'qpid.max_count': 99}}}}")
    contents = [u"grün", "bytes\x00", {"n": 1, "deep": {"list": [1, u"two", 3.5, None, True]}}, [1, 2, {"k": "v"}],
                None]
    for content in contents:
        message = Message(content, subject="about", properties={"colour": "red", "n": 5}, reply_to="amq.direct/answers",
                          correlation_id="c", user_id="guest", priority=5, ttl=100.0, durable=False)
        message.id = str(uuid.UUID(int=3))
        snd.send(message)
    rcv = ssn.receiver("cap.high", capacity=3)
    for content in contents:
        got = rcv.fetch(timeout=10)
        assert got.content == content or content in (None, "bytes\x00"), got
    ssn.acknowledge()
    try:
        rcv.fetch(timeout=0)
        raise AssertionError("nothing was to come")
    except Empty:
        pass
    rcv.close()
    snd.close()
    ssn.close()
    conn.close()


def high_topic(talk):
    """qpid.messaging: two subscribers of amq.topic by subject, unreliable and at-least-once with a named queue."""
    conn = talk.high()
    ssn = conn.session("s")
    one = ssn.receiver("amq.topic/news.*", capacity=10)
    two = ssn.receiver("amq.topic/news.uk; {link: {name: 'cap.named', reliability: 'at-least-once',"
                       " x-bindings: [{exchange: 'amq.topic', key: 'sport.uk'}]}}", capacity=10)
    snd = ssn.sender("amq.topic")
    for subject in ("news.uk", "sport.uk", "news.fr"):
        snd.send(Message(subject, subject=subject))
    assert [one.fetch(timeout=10).subject for _ in range(2)] == ["news.uk", "news.fr"]
    assert [two.fetch(timeout=10).subject for _ in range(1)] == ["sport.uk"]
    ssn.acknowledge()
    conn.close()


def high_settle(talk):
    """qpid.messaging: browse, then accept, release and reject by disposition."""
    conn = talk.high()
    ssn = conn.session("s")
    snd = ssn.sender("cap.settle; {create: always, delete: always}")
    for number in range(3):
        snd.send(Message(str(number)), sync=False)
    snd.sync()
    browser = ssn.receiver("cap.settle; {mode: browse}")
    assert [browser.fetch(timeout=10).content for _ in range(3)] == ["0", "1", "2"]
    browser.close()
    rcv = ssn.receiver("cap.settle")
    first, second, third = [rcv.fetch(timeout=10) for _ in range(3)]
    ssn.acknowledge(first)
    ssn.acknowledge(second, Disposition(RELEASED, set_redelivered=True))
    ssn.acknowledge(third, Disposition(REJECTED))
    assert rcv.fetch(timeout=10).redelivered
    ssn.acknowledge()
    ssn.close()
    conn.close()


def high_transaction(talk):
    """qpid.messaging: a transactional session, commit and rollback of sent and fetched messages."""
    conn = talk.high()
    ssn = conn.session("t", transactional=True)
    snd = ssn.sender("cap.tx2; {create: always, delete: always}")
    snd.send("kept")
    ssn.commit()
    snd.send("lost")
    ssn.rollback()
    rcv = ssn.receiver("cap.tx2")
    assert rcv.fetch(timeout=10).content == "kept"
    ssn.rollback()
    rcv.close()
    rcv = ssn.receiver("cap.tx2")  # for Broker-J the former one has no credit of bytes since message.stop
    assert rcv.fetch(timeout=10).redelivered
    ssn.acknowledge()
    ssn.commit()
    conn.close()


def high_not_found(talk):
    """qpid.messaging: an address that is not there, an assertion that fails, an ambiguous name."""
    conn = talk.high()
    ssn = conn.session("n")
    for address in ("cap.none", "amq.topic; {assert: always, node: {type: queue}}"):
        try:
            ssn.sender(address)
            raise AssertionError("must not be found")
        except NotFound:
            pass
        except Exception as error:
            print(address, repr(error), file=sys.stderr)
    conn.close()


CONVERSATIONS = dict((name, value) for name, value in globals().items() if name.startswith(("low_", "high_")))


def main(arguments):
    if not arguments:
        for name in sorted(CONVERSATIONS):
            print("%s\t%s" % (name, CONVERSATIONS[name].__doc__))
        return
    mechanism = arguments[2] if len(arguments) > 2 else "PLAIN"
    CONVERSATIONS[arguments[1]](Conversation(arguments[0], mechanism))


if __name__ == "__main__":
    main(sys.argv[1:])
