"""A client for AMQP 0-10: `connect` for programs that block, `aio.connect` for asyncio, `connection` without I/O.

docs/client-0-10.md shows how to use it.
"""

from __future__ import annotations

from interop.amqp010.blocking import Connection, Receiver, Sender, Session, connect
from interop.amqp010.commands import Xid
from interop.amqp010.errors import (
    AddressError,
    AuthenticationFailed,
    ConnectionError_,
    Detached,
    Empty,
    Error,
    SessionError,
    Timeout,
)
from interop.amqp010.message import Message, ReplyTo

__all__ = ["AddressError", "AuthenticationFailed", "Connection", "ConnectionError_", "Detached", "Empty", "Error",
           "Message", "Receiver", "ReplyTo", "Sender", "Session", "SessionError", "Timeout", "Xid", "connect"]
