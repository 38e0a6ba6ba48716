"""A client for AMQP 0-10: `connect` for programs that block, `aio.connect` for asyncio, `connection` without I/O.

docs/client-0-10.md shows how to use it.
"""
