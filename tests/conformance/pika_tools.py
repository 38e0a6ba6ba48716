"""What the tests of pika share."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from tests.conformance.support import DEADLINE, Target, until


def parameters(target: Target, **changes: Any) -> pika.ConnectionParameters:
    settings = {"host": target.host, "port": target.port, "heartbeat": 0, "blocked_connection_timeout": DEADLINE,
                "socket_timeout": DEADLINE, "stack_timeout": DEADLINE}
    return pika.ConnectionParameters(**{**settings, **changes})


def get(channel: BlockingChannel, queue: str, auto_ack: bool = True) -> tuple[Any, Any, bytes]:
    """The next message of a queue, waiting until there is one."""
    found: tuple[Any, Any, bytes] = until(
        lambda: (answer := channel.basic_get(queue, auto_ack))[0] and answer, f"a message in {queue}")
    return found


def bodies(channel: BlockingChannel, queue: str) -> list[bytes]:
    """All that is in a queue now, taken out."""
    found = []
    while (answer := channel.basic_get(queue, auto_ack=True))[0]:
        found.append(answer[2])
    return found


def refused(code: int, call: Any, *arguments: Any, **options: Any) -> str:
    """The broker must close the channel with this code; returns its text."""
    with pytest.raises(ChannelClosedByBroker) as error:
        call(*arguments, **options)
    assert error.value.reply_code == code
    return error.value.reply_text
