"""`python -m tests.bench.forwarder PORT [FILE]`: a way to the broker on PORT of this machine for clients without TLS.

It prints the port that it takes clients on, and ends with its standard input. With the file of an issuer (PEM) it
speaks TLS to the broker, without one it does not: either way what comes to the broker is cut into pieces alike.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

import uvloop

PIECE = 1 << 18
"""Bytes that are passed on at once, at most."""


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # one side is gone, and so the other one goes
    finally:
        writer.close()


async def forward(port: int, issuer: str | None) -> None:
    """Until the end of standard input. Raises: OSError."""
    context = ssl.create_default_context(cafile=issuer) if issuer else None
    name = "localhost" if issuer else None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", port, limit=PIECE, ssl=context,
                                                        server_hostname=name)
        await asyncio.gather(_pass_on(reader, to_there), _pass_on(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=PIECE)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    uvloop.run(forward(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
