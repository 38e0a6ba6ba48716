"""`dragoman serve` around a server that does as the environment's STUB says: what test_cli_serve.py runs.

    start=store|locked|damaged|port|address|value|bug   how its start fails
    fail                                                it fails after its start
    hang                                                its stop never ends
    stopbug, reloadbug                                  they raise
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import types

from dragoman.cli import main
from dragoman.config import Config, needing_restart
from store.journal import StoreDamaged, StoreError, StoreLocked

STUB = os.environ.get("STUB", "")
FAILURES: dict[str, Exception] = {
    "start=store": StoreError("the store cannot be used: do this"),
    "start=locked": StoreLocked("another broker has the store"),
    "start=damaged": StoreDamaged("the store is damaged: do that"),
    "start=port": OSError(errno.EADDRINUSE, "address already in use"),
    "start=address": OSError(errno.EADDRNOTAVAIL, "no such address"),
    "start=value": ValueError("something is configured wrong"),
    "start=bug": RuntimeError("a bug"),
}


class Server:
    """What dragoman.service knows of dragoman.server.Server."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.failed = asyncio.Event()
        self.failure = ""
        self.addresses = [("127.0.0.1", 5672, "amqp"), ("::1", 5671, "amqps")]

    async def start(self) -> None:
        if STUB in FAILURES:
            raise FAILURES[STUB]
        if STUB == "fail":
            self.failure = "the disk is gone"
            asyncio.get_running_loop().call_later(0.1, self.failed.set)

    def rights(self) -> str:
        return "everything"

    def users(self) -> str:
        return "nobody"

    async def stop(self, seconds: float) -> None:
        print(f"stopping within {seconds}", file=sys.stderr, flush=True)
        if STUB == "hang":
            await asyncio.Event().wait()
        if STUB == "stopbug":
            raise RuntimeError("a bug")

    def reload(self, config: Config) -> list[str]:
        if STUB == "reloadbug":
            raise RuntimeError("a bug")
        changed = needing_restart(self.config, config)
        self.config = config
        return changed


if __name__ == "__main__":
    module = types.ModuleType("dragoman.server")
    module.__dict__["Server"] = Server
    sys.modules["dragoman.server"] = module
    main()
