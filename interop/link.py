"""A link: a connection to another broker that is made again whenever it is lost, for as long as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from interop.ends import EndError, Options, Remote
from interop.remotes import remote as remote_at
from interop.replies import Waiting
from interop.settings import LinkSettings
from interop.states import CONNECTING, DOWN, STABLE, STOPPED, UP, Backoff, State
from interop.trust import Trust

logger = logging.getLogger(__name__)

Maker = Callable[[str, int, Options], Remote]
"""What makes a connection of a URL, a dialect and options."""


class Link:
    """Runs from `start` to `stop`. Whoever uses it awaits `up`, and looks at `remote`."""

    def __init__(self, settings: LinkSettings, broker_id: str, make: Maker = remote_at, password: str = "") -> None:
        self.settings = settings
        self.password = password  # where no file and no environment has it
        self.broker_id = broker_id  # ours
        self.make = make
        self.state = State(f"link {settings.name}", logger)
        self.remote: Remote | None = None  # while it is up
        self.url = ""  # that it is connected to, without a password
        self.created = self.state.since  # ms since the epoch
        self.connects = 0
        self.waiting = Waiting()  # requests that went over it
        self.changed = asyncio.Event()  # set, and made anew, whenever the link goes up or down
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    def peer_id(self) -> str:
        """How the broker at the other end is called in traces: as it calls itself, else a name that we give it."""
        told = self.remote.broker_id if self.remote is not None else ""
        return told or f"{self.broker_id}/{self.name}"

    async def up(self) -> Remote:
        """Wait until the link is up."""
        while self.remote is None:
            await self.changed.wait()
        return self.remote

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"link {self.name}")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.state.set(STOPPED)

    async def _run(self) -> None:
        settings = self.settings
        urls = [settings.url, *settings.failover]
        backoff = Backoff(settings.reconnect_min, settings.reconnect_max)
        at = 0
        while True:
            url = urls[at % len(urls)]
            self.state.set(CONNECTING)
            try:
                seconds = await self._connected(url)
            except EndError as error:
                self.state.set(DOWN, f"{shown(url)}: {error}")
                seconds = 0.0
            except Exception as error:  # a library's own; it must not end the link
                logger.debug("link %s", self.name, exc_info=True)
                self.state.set(DOWN, f"{shown(url)}: {type(error).__name__}: {error}")
                seconds = 0.0
            if seconds >= STABLE:
                backoff.succeeded()
                at = -1  # the first one is the favourite
            at += 1
            if at % len(urls) == 0 or seconds:
                await asyncio.sleep(backoff.next())

    async def _connected(self, url: str) -> float:
        """Connect, and stay until the connection is lost. Gives for how many seconds. Raises: EndError."""
        loop = asyncio.get_running_loop()
        remote = self.make(url, self.settings.dialect_number(), self._options())
        began = loop.time()
        try:
            await remote.open()
            began = loop.time()
            self.remote = remote
            self.url = shown(url)
            self.connects += 1
            self.state.set(UP, self.url)
            self._tell()
            why = await asyncio.shield(remote.lost)
            self.state.set(DOWN, f"{self.url}: {why}")
        finally:
            self.remote = None
            self._tell()
            await remote.close()
        return loop.time() - began

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _options(self) -> Options:
        """Raises: EndError."""
        settings = self.settings
        return Options(user=settings.user, password=self.password or password(settings), mechanism=settings.mechanism,
                       tls=tls_context(settings), server_name=settings.server_name, heartbeat=settings.heartbeat,
                       timeout=settings.timeout, name=settings.client or f"{self.broker_id}.{self.name}",
                       session_expiry=settings.session_expiry, mqtt=4 if settings.mqtt_version == "3.1.1" else 5)


def password(settings: LinkSettings) -> str:
    """Raises: EndError."""
    if settings.password_file:
        try:
            with open(settings.password_file, encoding="utf-8") as file:
                return file.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise EndError(f"the password file {settings.password_file} cannot be read: "
                           f"{getattr(error, 'strerror', None) or error}") from None
    if settings.password_env:
        value = os.environ.get(settings.password_env)
        if value is None:
            raise EndError(f"the environment has no {settings.password_env}, which is to have the password")
        return value
    return ""


def tls_context(settings: LinkSettings) -> ssl.SSLContext | None:
    """Raises: EndError."""
    if not any(url.partition(":")[0].endswith("s") for url in (settings.url, *settings.failover)):
        return None
    try:
        return Trust(settings.ca, settings.certificate, settings.key, settings.verify).context()
    except ValueError as error:
        raise EndError(f"TLS: {error}") from None


def shown(url: str) -> str:
    """A URL without its password, for people."""
    try:
        parts = urlsplit(url)
        wrong = (parts.port or 0) < 0 or "@" in parts.path + parts.query + parts.fragment
    except ValueError:
        wrong = True
    if wrong:  # a password may be anywhere in it
        return "a URL that is none"
    user, at, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{place}", query="", fragment=""))
