"""`dragoman gateway drain`: which queues there are, what they hold, and moving them one after the other."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import click

from broker.message import AMQP010, AMQP091
from dragoman.cli_client import Client, ClientError, parameters
from dragoman.importing import carry_out, only
from interop.drain import Drained, drain
from interop.ends import EndError, Options, Remote
from interop.link import shown
from interop.migration import qmf
from interop.migration.plan import Plan, Queue
from interop.migration.rabbitmq import BadDefinitions, read_definitions
from interop.remotes import remote
from interop.settings import DIALECTS
from interop.trust import Trust

API_PORT = 15672
API_SECONDS = 10.0
QMF_SECONDS = 10.0


@dataclass
class Work:
    """What is asked for."""

    there: str  # URLs
    here: str
    dialect: str = "auto"
    names: Sequence[str] = ()  # of queues; none: all
    definitions: Any = None  # RabbitMQ's, read
    api: str = ""  # URL of RabbitMQ's management
    topology_only: bool = False
    prefetch: int = 1000
    idle: float = 1.0  # seconds
    patience: float = 10.0
    options: Options = field(default_factory=Options)
    trust: Trust = Trust()
    quiet: bool = False


class Draining:
    """One run."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.there = shown(work.there)
        self.host = _virtual_host(work.there)
        self.dialect = DIALECTS.get(work.dialect, 0)
        self.has_qmf = False
        self.plan = Plan()
        self.counts: dict[str, tuple[int, int]] = {}  # messages there, by queue: to be had, and held by others
        self.done: dict[str, Drained] = {}

    async def run(self) -> bool:
        """Whether all is here now. Raises: ClientError, EndError."""
        await self.find()
        made = await carry_out(self.plan, self.work.here, self.work.trust, {self.host: _virtual_host(self.work.here)})
        click.echo(f"here are now {made['Exchange']} exchanges, {made['Queue']} queues, {made['Binding']} bindings of "
                   f"{self.there}", err=True)
        names = await self._present()
        if not self.work.topology_only:
            await self._move(names)
        return self._report()

    # Topology.

    async def find(self) -> None:
        """What there is to be moved. Raises: ClientError."""
        work = self.work
        if work.definitions is None and not work.api and work.dialect in ("auto", "0-10"):
            self.has_qmf = await self._ask_qmf()
        if not self.has_qmf:
            await self._ask_others()
        self.plan.hosts = [self.host]
        if work.names:
            self._choose(work.names)
        self.dialect = self.dialect or (AMQP010 if self.has_qmf else AMQP091)

    async def _ask_qmf(self) -> bool:
        """Whether the broker there has told of itself through QMF."""
        try:
            objects = await qmf.read(self.work.there, ssl=self.work.options.tls, timeout=QMF_SECONDS)
        except qmf.ERRORS as error:
            if self.work.dialect == "0-10" and not self.work.names:
                raise ClientError(f"{self.there}: {error}; name the queues with --queue") from None
            return False
        self.plan = qmf.plan_of(objects, self.host)
        return True

    async def _ask_others(self) -> None:
        """RabbitMQ's definitions, as a file or from its management; else the names that were given."""
        work = self.work
        document = work.definitions
        why = ""
        if document is None and work.dialect in ("auto", "0-9-1"):
            try:
                document = await asyncio.to_thread(self._fetch)
            except (OSError, ValueError) as error:
                why = f" (its management at {self._api()} does not answer: {_brief(error)})"
        if document is not None:
            try:
                plan = read_definitions(document, self.host)
            except BadDefinitions as error:
                raise ClientError(f"these are no definitions of RabbitMQ: {error}") from None
            self.plan = _of_host(plan, self.host)
        elif work.names:
            self.plan = Plan(queues=[Queue(self.host, name) for name in work.names])
        else:
            raise ClientError(f"{self.there} does not say which queues it has{why}: name them with --queue, or give "
                              "its definitions with --definitions, or the address of its management with --api")

    def _api(self) -> str:
        return self.work.api.rstrip("/") or f"http://{urlsplit(self.work.there).hostname}:{API_PORT}"

    def _fetch(self) -> Any:
        """The definitions of the virtual host. Raises: OSError, ValueError."""
        parts = urlsplit(self.work.there)
        login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        request = urllib.request.Request(f"{self._api()}/api/definitions/{quote(self.host, safe='')}", headers={
            "Authorization": "Basic " + base64.b64encode(login.encode()).decode()})
        with urllib.request.urlopen(request, timeout=API_SECONDS, context=self.work.options.tls) as answer:
            return json.loads(answer.read(), parse_float=Decimal)

    def _choose(self, names: Sequence[str]) -> None:
        """Of all queues, only these."""
        known = {queue.name for queue in self.plan.queues}
        missing = [name for name in names if name not in known]
        if missing:
            raise ClientError(f"{self.there} has no queue {', '.join(missing)} that can be moved")
        self.plan.queues = [queue for queue in self.plan.queues if queue.name in names]
        self.plan.bindings = [each for each in self.plan.bindings if not each.to_queue or each.destination in names]
        self.plan.left_out = []  # that is about the others

    async def _present(self) -> list[str]:
        """The queues that are both there and here, whether or not they are declared in the same way."""
        async with Client(parameters(self.work.here, self.work.trust)) as client:
            return [queue for queue in self._names() if await client.has_queue(queue)]

    def _names(self) -> list[str]:
        wanted = [queue.name for queue in self.plan.queues]
        refused = [note.what.removeprefix("queue ").partition(" of virtual host ")[0] for note in self.plan.left_out
                   if note.what.startswith("queue ") and "inequivalent" in note.why]
        return list(dict.fromkeys(wanted + refused))

    # Messages.

    async def _move(self, names: list[str]) -> None:
        there, here = self._remote(self.work.there), self._remote(self.work.here)
        async with _Counter(self) as counter:
            await there.open()
            try:
                await here.open()
                self.counts = {name: await counter.left(name) or (0, 0) for name in names}
                with self._bar(counter) as bar:
                    for name in names:
                        await self._move_one(there, here, name, counter, bar)
            finally:
                await here.close()
                await there.close()

    async def _move_one(self, there: Remote, here: Remote, name: str, counter: _Counter, bar: Any) -> None:
        drained = self.done[name] = Drained()
        shown_so_far = 0

        def told() -> None:
            nonlocal shown_so_far
            bar.update(drained.moved - shown_so_far)
            shown_so_far = drained.moved

        await drain(there, here, name, drained, lambda: counter.left(name), told, self.work.prefetch, self.work.idle,
                    self.work.patience)

    def _remote(self, url: str) -> Remote:
        return remote(url, self.dialect, self.work.options)

    def _bar(self, counter: _Counter) -> Any:
        """A progress bar of click's; without a terminal it prints nothing."""
        total = sum(ready for ready, _ in self.counts.values())
        return click.progressbar(length=total, label="moving", file=sys.stderr, show_pos=True,
                                 hidden=self.work.quiet or not total or not sys.stderr.isatty())

    # What it came to.

    def _report(self) -> bool:
        complete = not self.plan.left_out
        for name, drained in self.done.items():
            if not self.work.quiet or drained.refused or drained.held:
                click.echo(f"{name}: {_said(drained)}")
            complete = complete and not drained.refused and not drained.held
        for note in self.plan.left_out:
            click.echo(f"left out: {note}")
        if not self.work.topology_only:
            moved = sum(each.moved for each in self.done.values())
            click.echo(f"moved {moved} messages, {sum(each.bytes for each in self.done.values())} bytes, of "
                       f"{len(self.done)} queues")
        return complete

    def moved(self) -> int:
        """Messages that are here, also when it has failed."""
        return sum(each.moved for each in self.done.values())


class _Counter:
    """Asks the broker there how many messages its queues have."""

    def __init__(self, draining: Draining) -> None:
        self.draining = draining
        self.client: Client | None = None

    async def __aenter__(self) -> _Counter:
        if not self.draining.has_qmf and self.draining.dialect == AMQP091:
            self.client = await Client(parameters(self.draining.work.there, self.draining.work.trust)).__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.client is not None:
            await self.client.__aexit__(*error)

    async def left(self, name: str) -> tuple[int, int] | None:
        """Messages that are to be had, and those that other consumers have; None when nobody says. Raises: EndError."""
        try:
            if self.client is not None:
                answer = await self.client.call(self.client.channel.queue_declare, queue=name, passive=True)
                return answer.message_count, 0
            if self.draining.has_qmf:
                work = self.draining.work
                queues = await qmf.read_kind(work.there, "queue", ssl=work.options.tls, timeout=QMF_SECONDS)
                for values in queues:
                    if values["name"] == name:
                        held = values.get("unackedMessages", 0)
                        return max(0, values["msgDepth"] - held), held
        except (ClientError, *qmf.ERRORS) as error:
            raise EndError(str(error)) from None
        return None


def _virtual_host(url: str) -> str:
    return unquote(urlsplit(url).path[1:]) or "/"


def _of_host(plan: Plan, host: str) -> Plan:
    """What is about one virtual host; users and what is for later are not moved."""
    chosen = only(plan, host)
    return replace(chosen, users={}, remarks=[], proposed=[], left_out=[
        note for note in plan.left_out if note.what.startswith(("queue", "exchange", "binding"))
        and (f"virtual host {host}" in note.what or ("virtual host" not in note.what and host == "/"))])


def _said(drained: Drained) -> str:
    parts = [f"{drained.moved} messages moved"]
    if drained.again:
        parts.append(f"{drained.again} had been taken before, and may be here twice")
    if drained.held:
        parts.append(f"{drained.held} are left, in the hands of other consumers")
    if drained.refused:
        parts.append(f"stopped at one that is refused here, and stays there: {drained.refused}")
    return "; ".join(parts)


def _brief(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    inner = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner)
