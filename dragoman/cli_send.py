"""What `dragoman send` does."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import click
import pika

from dragoman.cli_client import Client, ClientError

WINDOW = 2000  # messages that may be on their way without a confirm
WINDOW_BYTES = 16 << 20
TURN = 100  # messages between two turns of the event loop


@dataclass(frozen=True, slots=True)
class Sending:
    """What to send."""

    address: str
    bodies: list[bytes] | None  # None: the lines of standard input
    count: int  # 0: all of standard input
    properties: dict[str, Any]
    durable: bool
    mandatory: bool
    rate: float | None
    confirm: bool
    declare: bool
    quiet: bool


async def send_messages(to: Any, work: Sending) -> int:
    """Send; give the exit code. Raises ClientError."""
    async with Client(to) as client:
        if not work.quiet:
            client.on_blocked = lambda why: click.echo(f"the broker holds publishers back: {why}", err=True)
        if work.declare and "/" not in work.address:
            await client.make_queue(work.address)
        sender = _Sender(client, work, *await client.resolve(work.address))
        await sender.run()
    return sender.result()


class _Sender:
    def __init__(self, client: Client, work: Sending, exchange: str, routing_key: str) -> None:
        self.client = client
        self.work = work
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = pika.BasicProperties(delivery_mode=2 if work.durable else 1, **work.properties)
        self.sent = 0
        self.refused = 0
        self.returned: dict[str, int] = {}  # by the broker's reason
        self.sizes: dict[int, int] = {}  # of what is not confirmed yet, by delivery tag
        self.unconfirmed = 0  # bytes
        self.moved = asyncio.Event()  # a confirm came
        self.began = time.monotonic()

    async def run(self) -> None:
        channel = self.client.channel
        channel.add_on_return_callback(self.on_return)
        if self.work.confirm:
            await self.client.call(channel.confirm_delivery, ack_nack_callback=self.on_confirm)
        self.began = time.monotonic()
        with self.progress() as bar:
            shown = 0
            async for body in self.bodies():
                await self.room_for(len(body))
                channel.basic_publish(self.exchange, self.routing_key, body, self.properties, self.work.mandatory)
                self.sent += 1
                if self.work.confirm:
                    self.sizes[self.sent] = len(body)
                    self.unconfirmed += len(body)
                if bar is not None and (self.sent % TURN == 0 or self.sent == self.work.count):
                    bar.update(self.sent - shown, self.speed())
                    shown = self.sent
            while self.sizes:
                await self.confirmed()
        await self.client.flush()

    async def bodies(self) -> AsyncIterator[bytes]:
        """What to send, not before its time."""
        number = 0
        while self.work.bodies is None or number < self.work.count:
            if self.work.rate:
                await self.pause(self.began + number / self.work.rate - time.monotonic())
            elif number % TURN == 0:
                await self.pause(0)
            if self.work.bodies is None:
                line = await asyncio.to_thread(sys.stdin.buffer.readline)
                if not line:
                    return
                yield line.rstrip(b"\r\n")
            else:
                yield self.work.bodies[number % len(self.work.bodies)]
            number += 1

    async def pause(self, seconds: float) -> None:
        """Let the event loop work, and raise what ended the connection, if something did."""
        await asyncio.sleep(max(0, seconds))
        if self.client.lost.done():
            self.client.lost.result()

    async def room_for(self, size: int) -> None:
        """Wait until not too much is on its way; pika itself would buffer without bound."""
        if self.work.confirm:
            while len(self.sizes) >= WINDOW or (self.sizes and self.unconfirmed + size > WINDOW_BYTES):
                await self.confirmed()
            return
        self.unconfirmed += size
        if self.sent % WINDOW == WINDOW - 1 or self.unconfirmed > WINDOW_BYTES:
            await self.client.flush()
            self.unconfirmed = size

    async def confirmed(self) -> None:
        """Wait for a confirm."""
        self.moved.clear()
        moved = asyncio.ensure_future(self.moved.wait())
        try:
            await self.client.unless_lost(moved)
        except ClientError as error:
            raise ClientError(f"{error}; of {self.sent} messages sent, {len(self.sizes)} are not confirmed") from None
        finally:
            moved.cancel()

    def on_confirm(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        tags = [each for each in self.sizes if each <= tag] if frame.method.multiple else [tag]
        for each in tags:
            self.unconfirmed -= self.sizes.pop(each, 0)
        if frame.method.NAME == "Basic.Nack":
            self.refused += len(tags)
        self.moved.set()

    def on_return(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        reason = f"{method.reply_code} {method.reply_text}"
        self.returned[reason] = self.returned.get(reason, 0) + 1

    def speed(self) -> str:
        return f"{self.sent / max(time.monotonic() - self.began, 1e-6):,.0f} messages/s"

    def progress(self) -> AbstractContextManager[Any]:
        """A bar, at a terminal, when there is something to wait for."""
        if self.work.quiet or self.work.count < 2 or not sys.stderr.isatty():
            return nullcontext()
        return click.progressbar(length=self.work.count, label="sending", file=sys.stderr, show_pos=True,
                                 item_show_func=lambda item: str(item or ""))

    def result(self) -> int:
        """Print the summary and give the exit code."""
        seconds = time.monotonic() - self.began
        returned = sum(self.returned.values())
        if not self.work.quiet:
            how = ", confirmed" if self.work.confirm and not self.refused else ""
            what = "message" if self.sent == 1 else "messages"
            rate = f" ({self.speed()})" if self.sent > 1 else ""
            click.echo(f"sent {self.sent} {what} in {seconds:.2f} s{rate}{how}", err=True)
        for reason, number in self.returned.items():
            click.echo(f"{number} came back: {reason} (no queue takes them)", err=True)
        if self.refused:
            click.echo(f"{self.refused} were refused by the broker", err=True)
        return 1 if returned or self.refused else 0
