"""`python -m tests.bench.decisions`: what access rules cost a message, after `make build` as it is in use.

A client publishes to a topic exchange that the last of 1,000 rules about routing keys lets it publish to: the first
time to an address, and once the connection remembers what was decided. Nothing is judged by its speed.
"""

from __future__ import annotations

import sys
import time

from broker.broker import Broker, Watcher
from broker.clock import Alarm, Clock
from broker.management import ManagedConnection
from broker.message import address_of
from broker.security.guard import Guarded, Judge, Rules
from broker.security.identity import Identity
from broker.security.qpid_acl import parse
from broker.security.rules import RuleSet
from store.journal import Scheduler
from store.memory import MemoryStore

RULES = 1000
ROUNDS, MESSAGES = 5, 1_000_000


class Filed(Judge):
    def __init__(self) -> None:
        others = [f"acl allow user{number} publish exchange name=amq.topic routingkey=*.{number}.#\n"
                  for number in range(RULES - 1)]
        self.rules = parse("".join([*others, "acl allow bob publish exchange name=amq.topic routingkey=a.#\n"]))

    def court(self, identity: Identity, host: str) -> list[RuleSet]:
        return [self.rules.rule_set()]


def main() -> int:
    loop = Scheduler()
    broker = Broker(MemoryStore(loop), loop, Clock(), Alarm(), Watcher(), 1 << 30, 100, 1 << 30)
    broker.add_host("/")
    connection = ManagedConnection()
    connection.identity = Identity("bob")
    access = Guarded(Rules(broker, [Filed()]), connection, "/")
    publish = access.publish

    addresses = [(address_of("amq.topic", f"a.{number}").short_strings, f"a.{number}") for number in range(1000)]
    begun = time.perf_counter()
    for address, key in addresses:
        publish(address, "amq.topic", key)
    print(f"decided:    {(time.perf_counter() - begun) / len(addresses) * 1e6:7.3f} us, by {RULES} rules")

    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(MESSAGES):
            publish(address, "amq.topic", key)
        taken.append((time.perf_counter() - begun) / MESSAGES)
    print(f"remembered: {min(taken) * 1e6:7.3f} us a message")
    return 0


if __name__ == "__main__":
    sys.exit(main())
