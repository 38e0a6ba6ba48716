"""The name of a client's host, for access rules that ask for it."""

from __future__ import annotations

import asyncio
import logging
import socket

from broker.security.addresses import plain_address

logger = logging.getLogger(__name__)

LONGEST = 3.0
"""Seconds that a look-up may take: until then the client waits."""


async def confirmed_name(loop: asyncio.AbstractEventLoop, address: str, seconds: float) -> str:
    """The name that an IP address has, if that name has the address as well; whoever owns an address can give it any
    name, but not the name that address. "" when there is none, or it takes too long."""
    try:
        return await asyncio.wait_for(_look_up(loop, address), min(seconds, LONGEST))
    except TimeoutError:
        logger.warning("%s: looking up the name of the client's host takes too long", address)
    except (OSError, UnicodeError):
        pass
    return ""


async def _look_up(loop: asyncio.AbstractEventLoop, address: str) -> str:
    wanted = plain_address(address)
    name, _ = await loop.getnameinfo((str(wanted), 0), socket.NI_NAMEREQD | socket.NI_NUMERICSERV)
    found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return name if wanted in [plain_address(str(each[4][0])) for each in found] else ""
