"""The client's asyncio protocol: bytes from and to a connection without I/O."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from interop.amqp010 import connection

if TYPE_CHECKING:
    from interop.amqp010.aio import Connection


class Wire(asyncio.Protocol):
    """A transport of a connection, which may have others after it."""

    def __init__(self, owner: Connection, core: connection.Connection) -> None:
        self.owner = owner
        self.core = core

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.owner.made(self.core, cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self.owner.happened(self.core, self.core.receive(data, asyncio.get_running_loop().time()))

    def connection_lost(self, exc: Exception | None) -> None:
        why = str(exc) if exc else "the other side ended the connection"
        self.owner.happened(self.core, self.core.lost(why))

    def pause_writing(self) -> None:
        self.owner.is_writable.clear()

    def resume_writing(self) -> None:
        self.owner.writable_again()
