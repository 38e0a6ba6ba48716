"""rhea in the matrix: agent.js, in a process of its own, does what this asks it to."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.conformance.matrix import sections10
from tests.conformance.matrix.notation import Side, Value


class Agent:
    """The process, started when it is first asked. agent.js is in the working directory, and rhea installed there."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, op: str, **what: Any) -> Any:
        if self.process is None:
            self.process = subprocess.Popen(["node", "agent.js"], text=True, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps({"op": op, **what}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"rhea's agent has ended, with {self.process.wait()}"
        return json.loads(answer)

    def stop(self) -> None:
        if self.process is not None:
            self.process.communicate(timeout=20)
            self.process = None


AGENT = Agent()


class Rhea:
    name = "rhea"
    dialect = "ten"

    def __init__(self, url: str) -> None:
        """The url is AMQP_URL: the agent has it from there."""

    def close(self) -> None:
        AGENT.stop()

    @staticmethod
    def can_send(side: Side) -> bool:
        encoded = AGENT.ask("encode", side=side)
        return encoded is not None and sections10.try_decode(bytes.fromhex(encoded)) == side

    @staticmethod
    def can_read(side: Side) -> bool:
        return sections10.side_of(AGENT.ask("decode", bytes=sections10.encode(side).hex())) == side

    def send(self, queue: str, sides: list[Side]) -> None:
        AGENT.ask("send", queue=queue, sides=sides)

    def read(self, queue: str, count: int) -> list[tuple[Side, int]]:
        return [(sections10.side_of(each["sections"]), each["number"])
                for each in AGENT.ask("read", queue=queue, count=count)]

    def same(self, shown: int, side: Side) -> bool:
        """Whether a message that was read is, to an application, what this side says."""
        return bool(AGENT.ask("same", number=shown, bytes=sections10.encode(side).hex()))

    @staticmethod
    def kind(value: Value) -> str:
        return str(AGENT.ask("kind", bytes=sections10.encode({"properties": {"v": value}, "body": []}).hex()))
