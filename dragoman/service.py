"""`dragoman serve`: the process around the server. Signals, logging, readiness, exit codes.

SIGTERM and SIGINT stop cleanly (a second one at once), SIGHUP reads the configuration again and opens the log file
anew. systemd is told of it all.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from typing import Any

import uvloop

from broker.security.addresses import written
from dragoman import logs, secrecy, version_line
from dragoman.config import Config, ConfigError
from dragoman.config_files import load_and_check
from dragoman.notify import notify, reloading, watchdog_interval
from dragoman.reasons import reason
from dragoman.security import without_passwords
from dragoman.server import Server
from store.journal import StoreDamaged, StoreError, StoreLocked

OK = 0
FAILED = 1  # anything that has no number of its own
USAGE = 2  # a wrong command line
DAMAGED = 65  # EX_DATAERR: the store is not what was written there; starting again does not help
BUSY = 75  # EX_TEMPFAIL: the store or a port is in use by somebody else; trying later may help
MISCONFIGURED = 78  # EX_CONFIG

_log = logging.getLogger("dragoman")

_COLLECT = (20_000, 20, 100)
"""Thresholds of the garbage collector. Messages and connections leave no cycles behind, so there is little for it to
find, and to look through a backlog of a hundred thousand entries again and again costs more than they do."""


def serve(config_path: str | None, lifeline: int | None = None) -> int:
    """Run a broker until it is told to stop; give the exit code.

    lifeline: a file descriptor; when it reaches its end, whoever started us is gone, and we die at once.
    """
    if lifeline is not None:
        threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    secrecy.begin()
    try:
        config = load_and_check(config_path)
        logs.configure(config.log)
    except ConfigError as error:
        print("\n".join(f"dragoman: {problem}" for problem in error.problems), file=sys.stderr)
        return MISCONFIGURED
    except OSError as error:
        print(f"dragoman: log.file {config.log.file}: cannot be opened: {error.strerror}", file=sys.stderr)
        return MISCONFIGURED
    _allow_many_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Service(config_path, config).run())


class _Service:
    """One run of a broker."""

    def __init__(self, config_path: str | None, config: Config) -> None:
        self.config_path = config_path
        self.config = config
        self.server: Server
        self.stop_asked = asyncio.Event()
        self.ready = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_unexpected)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        _log.info("%s", version_line())
        self.note(self.config)
        try:
            self.server = Server(self.config)
            await self.server.start()
        except Exception as error:
            return _refused(error)
        self.warn(self.config)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT)
        self.announce()
        code = await self.until_stopped()
        notify("STOPPING=1", "STATUS=stopping")
        try:
            await self.server.stop(self.config.shutdown_seconds)
        except Exception as error:
            _log.error("the stop was not clean: %s", reason(error), exc_info=_if_debug(error))
            return code or FAILED
        _log.info("stopped")
        return code

    def note(self, config: Config) -> None:
        for note in config.notes:
            _log.info("configuration: %s", note)

    def warn(self, config: Config) -> None:
        for problem in secrecy.open_to_others(config):
            _log.warning("%s", problem)

    async def until_stopped(self) -> int:
        """Wait for a signal or a failure."""
        failed = asyncio.create_task(self.server.failed.wait())
        asked = asyncio.create_task(self.stop_asked.wait())
        await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        asked.cancel()
        if not self.server.failed.is_set():
            return OK
        _log.error("the broker stops: %s", self.server.failure)
        return FAILED

    def announce(self) -> None:
        """Say what a person, and systemd, want to know of a broker that has started."""
        urls = [f"{scheme}://{written(host, port)}" for host, port, scheme in self.server.addresses]
        for url in urls:
            _log.info("listening on %s", url)
        kept = self.config.store
        _log.info("messages are kept in %s",
                  os.path.abspath(kept.path) if kept.kind == "lmdb" else "memory only: a stop forgets them")
        _log.info("may log in: %s", self.server.users())
        _log.info("may do: %s", self.server.rights())
        for place in without_passwords(self.config):
            _log.warning("clients of other machines cannot log in at %s with a password: it has no TLS, and no "
                         "clear_passwords", place)
        plain = [url for url in urls if url.startswith("amqp:")]
        if plain and self.config.authentication.guest and logs.is_text(self.config.log):
            to = plain[0].replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
            where = "" if to == "amqp://127.0.0.1:5672" else to + " "
            _log.info("to try it: dragoman send --declare %shello 'Hello, world'", where)
        self.ready = True
        notify("READY=1", f"STATUS=listening on {', '.join(urls)}", f"MAINPID={os.getpid()}",
               f"X_DRAGOMAN_URLS={' '.join(urls)}")
        interval = watchdog_interval()
        if interval:
            self.feed_watchdog(asyncio.get_running_loop(), interval)

    def feed_watchdog(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        notify("WATCHDOG=1")
        loop.call_later(interval, self.feed_watchdog, loop, interval)

    def ask_to_stop(self, number: signal.Signals) -> None:
        if self.stop_asked.is_set():
            _log.warning("stopped at once by a second %s", number.name)
            logging.shutdown()
            os._exit(FAILED)
        _log.info("%s: stopping; once more stops at once", number.name)
        self.stop_asked.set()

    def reload(self) -> None:
        """Read the configuration again; a wrong one is refused as a whole, and the old one stays."""
        if not self.ready or self.stop_asked.is_set():
            return  # it is about to be read, or does not matter any more
        reloading()
        try:
            config = load_and_check(self.config_path)
            logs.configure(config.log)
            restart = self.server.reload(config)
            self.config = config
            self.note(config)
            self.warn(config)
            _log.info("configuration read again%s",
                      f"; these wait for a restart: {', '.join(restart)}" if restart else "")
        except ConfigError as error:
            for problem in error.problems:
                _log.error("not reloaded: %s", problem)
        except Exception as error:
            _log.error("not reloaded: %s", reason(error), exc_info=_if_debug(error))
        notify("READY=1")


def _refused(error: Exception) -> int:
    """Say why the broker did not start, and give the exit code for it."""
    if isinstance(error, StoreError):
        _log.error("%s", error)
        return BUSY if isinstance(error, StoreLocked) else DAMAGED if isinstance(error, StoreDamaged) else FAILED
    if isinstance(error, ValueError):
        _log.error("%s", error)
        return MISCONFIGURED
    if isinstance(error, OSError):
        _log.error("cannot start: %s", reason(error))
        if error.errno == errno.EADDRINUSE:
            return BUSY
        wrong_address = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        return MISCONFIGURED if wrong_address else FAILED
    _log.error("cannot start: unexpected %s: %s", type(error).__name__, error, exc_info=_if_debug(error))
    return FAILED


def _if_debug(error: BaseException) -> BaseException | None:
    return error if _log.isEnabledFor(logging.DEBUG) else None


def _log_unexpected(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    _log.error("unexpected: %s", context.get("message", ""), exc_info=error)


def _allow_many_files() -> None:
    """A connection is a file descriptor: take as many as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _die_with(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
