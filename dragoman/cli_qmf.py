"""A console of QMF inside the `dragoman` command: it asks the broker's management agent over AMQP 0-9-1."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pika

from dragoman.cli_client import Client, ClientError
from protocols import maps010
from protocols.qmf.agent import DIRECT, TOPIC
from protocols.qmf.methods import UNKNOWN_OBJECT
from protocols.qmf.objects import BROKER_KEY, object_name

PATIENCE = 30
"""Seconds that an answer may take."""


class Refused(ClientError):
    """The agent's answer to what it does not do, with QMF's number for it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Console(Client):
    """One connection to a broker that is managed. Use as `async with Console(parameters) as console`."""

    def __init__(self, to: Any) -> None:
        super().__init__(to)
        self.messages: asyncio.Queue[tuple[Any, Any]] = asyncio.Queue()  # headers and content of what comes
        self.queue = ""
        self.number = 0

    async def __aenter__(self) -> Console:
        await super().__aenter__()
        if not await self.has_exchange(DIRECT):
            raise ClientError(f"{self.where} has no management agent: its configuration says management.qmf = false, "
                              "or it is another broker")
        self.queue = (await self.call(self.channel.queue_declare, queue="", exclusive=True)).queue
        await self.call(self.channel.basic_consume, queue=self.queue, auto_ack=True,
                        on_message_callback=self._on_message)
        return self

    def _on_message(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        read = maps010.read_list if properties.content_type == "amqp/list" else maps010.read_map
        self.messages.put_nowait((properties, read(body)))

    async def next(self, timeout: float | None) -> tuple[Any, Any]:
        """Properties and content of the next message. Raises: ClientError, TimeoutError."""
        return await self.unless_lost(asyncio.ensure_future(self.messages.get()), timeout)  # type: ignore[no-any-return]

    async def _ask(self, opcode: str, content: dict[str, Any]) -> list[Any]:
        """The contents of the messages that answer. Raises: ClientError."""
        try:
            written = maps010.write_map(content)
        except ValueError as error:  # a number that is too large
            raise ClientError(str(error)) from None
        self.number += 1
        self.channel.basic_publish(DIRECT, "broker", written, pika.BasicProperties(
            reply_to=self.queue, correlation_id=str(self.number), app_id="qmf2", content_type="amqp/map",
            message_id=str(uuid.uuid4()), headers={"qmf.opcode": opcode, "method": "request"}))
        found: list[Any] = []
        while True:
            try:
                properties, answer = await self.next(PATIENCE)
            except TimeoutError:
                raise ClientError(f"{self.where}: no answer within {PATIENCE} s") from None
            headers = properties.headers or {}
            if properties.correlation_id != str(self.number):
                continue
            if headers.get("qmf.opcode") == "_exception":
                values = answer["_values"]
                raise Refused(f"{self.where}: {values.get('error_text', 'refused')}", values.get("error_code", 0))
            found.append(answer)
            if "partial" not in headers:
                return found

    async def objects(self, kind: str) -> list[dict[str, Any]]:
        """The values of all objects of a class, with their times of creation. Raises: ClientError."""
        answers = await self._ask("_query_request", {"_what": "OBJECT", "_schema_id": {"_class_name": kind}})
        return [{**each["_values"], "_created": each["_create_ts"] / 1e9, "_updated": each["_update_ts"] / 1e9}
                for answer in answers for each in answer]

    async def method(self, name: str, arguments: dict[str, Any], kind: str = "broker",
                     key: str = BROKER_KEY) -> dict[str, Any]:
        """Call a method of an object. Raises: ClientError."""
        try:
            answer, = await self._ask("_method_request", {
                "_object_id": {"_object_name": object_name(kind, key)}, "_method_name": name, "_arguments": arguments})
        except Refused as refused:
            if refused.code != UNKNOWN_OBJECT:
                raise
            raise ClientError(f"{self.where}: there is no {kind} {key}") from None
        results: dict[str, Any] = answer["_arguments"]
        return results

    async def listen(self) -> None:
        """Get all events from now on."""
        await self.call(self.channel.queue_bind, queue=self.queue, exchange=TOPIC, routing_key="agent.ind.event.#")


def name_in(reference: Any) -> str:
    """The name of the object that a reference is to."""
    if not isinstance(reference, dict):
        return ""
    return str(reference.get("_object_name", "")).split(":", 2)[-1]
