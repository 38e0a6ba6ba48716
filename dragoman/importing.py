"""Making what a plan says in a broker that runs, over AMQP 0-9-1; and saying what became of it.

Doing it again does no harm: what is there and the same stays, what is there and different is left alone and named.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import click

from dragoman.cli_client import Client, ClientError, parameters
from dragoman.cli_qmf import Console
from interop.migration.plan import Binding, Exchange, Plan, Queue
from interop.migration.qmf import KINDS, plan_of
from interop.trust import Trust

CHANNELS = 16
"""Declarations that are under way at a time: each waits until it is durable."""

Item = Exchange | Queue | Binding


async def carry_out(plan: Plan, url: str, trust: Trust, names: dict[str, str]) -> Counter[str]:
    """Make what the plan says; how many of each are there now. What is refused is added to what the plan leaves out.

    names: of virtual hosts here, by those there. Raises: ClientError.
    """
    made: Counter[str] = Counter()
    for host in plan.hosts:
        items = [each for group in (plan.exchanges, plan.queues, plan.bindings) for each in group
                 if each.host == host]
        to = parameters(url, trust)
        to.virtual_host = names.get(host, host)
        try:
            async with Client(to) as client:
                await client.flush()  # the broker may refuse the virtual host only after it was opened
                for kind in (Exchange, Queue, Binding):
                    group = [each for each in items if isinstance(each, kind)]
                    made[kind.__name__] += await _make(client, plan, group)
            made["Host"] += 1
        except ClientError as error:
            if "virtual host" not in str(error) and "vhost" not in str(error):
                raise
            plan.leave_out(f"virtual host {host}", f"it is not there, nor what is in it ({len(items)} objects): add "
                           f"{to.virtual_host!r} to virtual_hosts in the configuration, restart and import again, or "
                           f"import it into another with --map {host}=NAME")
    return made


async def _make(client: Client, plan: Plan, items: Sequence[Item]) -> int:
    """Declare each item; gives how many are there now."""
    waiting = iter(items)
    counts = await asyncio.gather(*(_worker(client, plan, waiting) for _ in range(min(CHANNELS, len(items)))))
    return sum(counts)


async def _worker(client: Client, plan: Plan, waiting: Iterable[Item]) -> int:
    """Take items while there are any. A refusal closes the channel, so the next one has another."""
    made = 0
    channel = None
    for item in waiting:
        if channel is None:
            channel = await client.open_channel()
        refusal = await _declare(client, channel, item)
        if refusal:
            plan.leave_out(item, refusal)
            channel = None
        else:
            made += 1
    if channel is not None:
        channel.close()
    return made


async def _declare(client: Client, channel: Any, item: Item) -> str:
    """Why the broker refused it, or ""."""
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def answer(text: str) -> None:
        if not answered.done():
            answered.set_result(text)

    channel.add_on_close_callback(lambda _, error: answer(getattr(error, "reply_text", str(error))))
    method, arguments = _call(item)
    try:
        getattr(channel, method)(**arguments, callback=lambda frame: answer(""))
    except Exception as error:  # pika's encoder raises what it likes; its channel is in no good state then
        channel.close()
        return f"0-9-1 cannot say its arguments: {error}"
    refusal: str = await client.unless_lost(answered)
    return refusal


def _call(item: Item) -> tuple[str, dict[str, Any]]:
    """pika's method for an item, and what it is called with."""
    if isinstance(item, Exchange):
        return "exchange_declare", {"exchange": item.name, "exchange_type": item.kind, "durable": item.durable,
                                    "auto_delete": item.auto_delete, "internal": item.internal,
                                    "arguments": item.arguments}
    if isinstance(item, Queue):
        return "queue_declare", {"queue": item.name, "durable": item.durable, "auto_delete": item.auto_delete,
                                 "arguments": item.arguments}
    if item.to_queue:
        return "queue_bind", {"queue": item.destination, "exchange": item.source, "routing_key": item.key,
                              "arguments": item.arguments}
    return "exchange_bind", {"destination": item.destination, "source": item.source, "routing_key": item.key,
                             "arguments": item.arguments}


async def gather(plan: Plan, url: str, trust: Trust, hosts: Sequence[str]) -> None:
    """Add to the plan what there is in these virtual hosts of a running broker; in none, in that of the URL.

    Raises: ClientError.
    """
    for host in hosts or (parameters(url, trust).virtual_host,):
        to = parameters(url, trust)
        to.virtual_host = host
        async with Console(to) as console:
            found = plan_of({kind: await console.objects(kind) for kind in KINDS}, host)
        for name in ("hosts", "exchanges", "queues", "bindings", "left_out"):
            getattr(plan, name).extend(getattr(found, name))


def only(plan: Plan, host: str) -> Plan:
    """What of a plan is about one virtual host, and about none."""
    return replace(plan, hosts=[each for each in plan.hosts if each == host],
                   exchanges=[each for each in plan.exchanges if each.host == host],
                   queues=[each for each in plan.queues if each.host == host],
                   bindings=[each for each in plan.bindings if each.host == host],
                   permissions=[each for each in plan.permissions if each.host == host])


def show(plan: Plan, counts: Counter[str], did: str, echo: Callable[[str], None] = click.echo) -> None:
    """Say what became of a plan: what needs work comes last, where one sees it."""
    for title, notes in (("Not quite as it was there:", plan.remarks), ("Left out:", plan.left_out)):
        if notes:
            echo(title)
            for note in notes:
                echo(f"  {note}")
    if plan.proposed:
        echo("Proposed for the configuration file:\n")
        echo("\n".join(plan.proposed))
    words = (("Host", "virtual hosts"), ("User", "users"), ("Exchange", "exchanges"), ("Queue", "queues"),
             ("Binding", "bindings"))
    total = ", ".join(f"{counts[kind]} {word}" for kind, word in words)
    total += f", {counts['Permission']} permissions" if "Permission" in counts else ""
    echo(f"{did} {total}; {len(plan.left_out)} left out")
