"""What the messages in memory cost, and the alarms that hold publishers back.

An alarm has a name (`memory`, `disk`, `store`) and a text. While any is raised, front-ends hold their publishers;
consumers go on, so that the alarm can clear.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from broker.message import Message


@mypyc_attr(allow_interpreted_subclasses=True)
class AlarmListener:
    """Told when publishers must be held, and when they may go on."""

    def alarms_changed(self, reasons: list[str]) -> None:
        """All alarms that are raised now, by their texts; empty when all is well."""


class Memory:
    """The cost of all messages in memory, bytes, against a limit."""

    __slots__ = ("used", "limit", "tight", "alarmed", "alarms", "listener")

    def __init__(self, limit: int, listener: AlarmListener) -> None:
        self.used = 0
        self.limit = limit
        self.tight = limit // 2  # above this, queues keep little in memory
        self.alarmed = False
        self.alarms: dict[str, str] = {}
        self.listener = listener

    def hold(self, message: Message) -> None:
        """One more entry in memory refers to the message."""
        if message.holders == 0:
            self.add(message.cost())
        message.holders += 1

    def release(self, message: Message) -> None:
        """One entry in memory less refers to the message."""
        message.holders -= 1
        if message.holders == 0:
            self.add(-message.cost())

    def add(self, size: int) -> None:
        """Count bytes (or discount them) that are not a message in a queue, such as one that is still arriving."""
        used = self.used = self.used + size
        if used > self.limit:
            if not self.alarmed:
                self.alarmed = True
                self.set_alarm("memory", f"messages in memory take {used >> 20} MiB of {self.limit >> 20} MiB allowed")
        elif self.alarmed and used < self.limit - (self.limit >> 3):
            self.alarmed = False
            self.clear_alarm("memory")

    def set_alarm(self, name: str, text: str) -> None:
        known = name in self.alarms
        self.alarms[name] = text
        if not known:
            self.listener.alarms_changed(list(self.alarms.values()))

    def clear_alarm(self, name: str) -> None:
        if self.alarms.pop(name, None) is not None:
            self.listener.alarms_changed(list(self.alarms.values()))
