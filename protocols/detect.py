"""Which dialect a client speaks, told by its first bytes."""

from __future__ import annotations

from collections.abc import Collection

AMQP = b"AMQP"
HEADER_SIZE = 8
"""Bytes of an AMQP protocol header, in all versions."""
MQTT = b"\x10"
"""How MQTT begins: the first byte of a CONNECT packet (3.1 of MQTT 5.0), which is no header and belongs to what
follows."""

TLS10 = b"AMQP\x02\x01\x00\x00"
"""AMQP 1.0's TLS (part 5, section 5.2): no front-end's header, TLS begins before there is one."""


class Unknown(Exception):
    """No dialect begins like that."""


def protocol_header(data: bytes, served: Collection[bytes]) -> bytes | None:
    """The protocol header that the data begins with, of those that are served, or MQTT; None while there is too little
    to tell.

    Raises: Unknown. The client is then to be sent a header that is served (AMQP 0-9-1, section 4.2.2).
    """
    if data[:1] == MQTT:
        return MQTT
    if len(data) >= HEADER_SIZE:
        header = data[:HEADER_SIZE]
        if header in served:
            return header
        raise Unknown(f"{header!r}")
    if not AMQP.startswith(data[:4]):
        raise Unknown(f"{data!r}")
    return None
