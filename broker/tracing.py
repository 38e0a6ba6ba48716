"""qpidd's traces: a queue with `qpid.trace.id` adds that to the header `x-qpid.trace` of what comes into it, and one
with `qpid.trace.exclude` drops what carries one of those ids. So messages do not go round between brokers."""

from __future__ import annotations

from typing import Final

from broker.message import Amendment, Message, amended

TRACE: Final = "x-qpid.trace"
_MARKER: Final = b"x-qpid.trace"


def trace_of(message: Message) -> list[str]:
    """The ids that a message carries."""
    if message.native.find(_MARKER) < 0:  # nearly always: nothing needs to be decoded
        return []
    view = message.view()
    value = view.annotations.get(TRACE, view.headers.get(TRACE))
    return names(value) if isinstance(value, str) else []


def names(text: str) -> list[str]:
    """What a list with commas has."""
    return [each for each in text.split(",") if each]


def traced(message: Message, trace_id: str) -> Message:
    """The message with this id in its trace."""
    amendment = Amendment()
    amendment.annotations = {TRACE: ",".join([*trace_of(message), trace_id])}
    changed = amended(message, amendment, message.address, message.arrival)
    changed.expiry = message.expiry
    return changed
