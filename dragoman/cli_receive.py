"""What `dragoman receive` does."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import click

from dragoman.cli_client import Client, ClientError

CONSUMER = "dragoman-receive"
OK = 0
TOO_FEW = 3
PROPERTIES = ("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
              "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id", "headers")


@dataclass(frozen=True, slots=True)
class Receiving:
    """What to receive."""

    address: str
    count: int  # 0: no limit
    timeout: float | None
    ack: bool
    prefetch: int
    form: str
    declare: bool
    quiet: bool


async def receive_messages(to: Any, work: Receiving) -> int:
    """Receive and print; give the exit code. Raises ClientError."""
    async with Client(to) as client:
        return await _Receiver(client, work).run()


class _Receiver:
    def __init__(self, client: Client, work: Receiving) -> None:
        self.client = client
        self.work = work
        self.received = 0
        self.bytes = 0
        self.first = 0.0  # when the first message came, and the last
        self.last = 0.0
        self.unacknowledged = 0
        self.tag = 0  # of the last message
        self.finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.prefetch = min(work.prefetch, work.count) if work.count else work.prefetch

    async def run(self) -> int:
        channel = self.client.channel
        queue = await self.queue()
        await self.client.call(channel.basic_qos, prefetch_count=self.prefetch)
        channel.add_on_cancel_callback(lambda _: self.end(ClientError(f"queue {queue} is gone")))
        try:
            await self.client.call(channel.basic_consume, queue=queue, auto_ack=not self.work.ack,
                                   on_message_callback=self.on_message, consumer_tag=CONSUMER)
            return await self.until_done()
        finally:
            if channel.is_open:
                channel.basic_cancel(CONSUMER)  # first, or the broker would send more
                self.acknowledge()  # all that was printed, also when Ctrl-C ends this
            self.summary()

    async def until_done(self) -> int:
        while True:
            before = self.received
            try:
                return int(await self.client.unless_lost(self.finished, self.work.timeout))
            except TimeoutError:
                if self.received == before:
                    return TOO_FEW if self.work.count else OK

    async def queue(self) -> str:
        """The queue to take from: the one of that name, or a temporary one behind the exchange."""
        address, client = self.work.address, self.client
        if self.work.declare and "/" not in address:
            await client.make_queue(address)
        exchange, key = await client.resolve(address)
        if not exchange:
            return key
        made = await client.call(client.channel.queue_declare, queue="", exclusive=True)
        await client.call(client.channel.queue_bind, queue=made.queue, exchange=exchange,
                          routing_key=key if "/" in address and key else "#")
        return str(made.queue)

    def on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if self.finished.done():
            return  # it stays in the queue, not being acknowledged
        try:
            self.show(method, properties, body)
        except OSError as error:  # nobody reads what we print
            self.end(error)
            return
        self.received += 1
        self.bytes += len(body)
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.tag = method.delivery_tag
        self.unacknowledged += 1
        if self.unacknowledged >= max(1, self.prefetch // 4):
            self.acknowledge_early()
        elif self.unacknowledged == 1:
            asyncio.get_running_loop().call_later(0.05, self.acknowledge_early)
        if self.received == self.work.count:
            self.end(None)

    def acknowledge_early(self) -> None:
        """Acknowledge, unless the broker would then send more than are wanted.

        Those would go back, and the next consumer get them as redelivered; so the last ones are left to the end.
        """
        if self.work.count == 0 or self.received + self.prefetch <= self.work.count:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Acknowledge all that was printed."""
        if self.unacknowledged and self.client.channel.is_open:
            if self.work.ack:
                self.client.channel.basic_ack(self.tag, multiple=True)
            self.unacknowledged = 0

    def end(self, error: BaseException | None) -> None:
        if self.finished.done():
            return
        if error is None:
            self.finished.set_result(OK)
        else:
            self.finished.set_exception(error)

    def show(self, method: Any, properties: Any, body: bytes) -> None:
        out = sys.stdout.buffer
        if self.work.form == "text":
            out.write(body.decode("utf-8", "backslashreplace").encode() + b"\n")
        elif self.work.form == "raw":
            out.write(body)
        elif self.work.form == "json":
            out.write(json.dumps(as_json(method, properties, body), ensure_ascii=False).encode() + b"\n")
        out.flush()

    def summary(self) -> None:
        if self.work.quiet:
            return
        seconds = self.last - self.first
        what = "message" if self.received == 1 else "messages"
        rate = f" in {seconds:.2f} s ({self.received / seconds:,.0f} messages/s)" if seconds > 0 else ""
        click.echo(f"received {self.received} {what}, {self.bytes} bytes{rate}", err=True)


def as_json(method: Any, properties: Any, body: bytes) -> dict[str, Any]:
    """A message as JSON knows it; a body that is not text in base64, which `body_encoding` then says."""
    made: dict[str, Any] = {"exchange": method.exchange, "routing_key": method.routing_key,
                            "redelivered": method.redelivered}
    made.update((name, _plain(getattr(properties, name))) for name in PROPERTIES
                if getattr(properties, name) is not None)
    try:
        made["body"] = body.decode("utf-8")
    except UnicodeDecodeError:
        made["body"] = base64.b64encode(body).decode()
        made["body_encoding"] = "base64"
    return made


def _plain(value: Any) -> Any:
    """A value of a field table as JSON has it."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=datetime.UTC).isoformat()
    return float(value) if isinstance(value, Decimal) else value
