"""What a connection may do: the questions that front-ends ask before they have the core do something.

Each door of the broker is a method of `Access`; a front-end calls it with what the client has asked for, in the same
function that then does it, and before it looks whether there is such a thing: who has no right does not learn what
there is. So the methods get names. This class allows everything, which is what a broker without access rules does;
those who have rules derive from it.

    self.access.declare_queue(name, durable, exclusive, auto_delete, arguments)   # raises AccessRefused
    queue, wait = host.declare_queue(name, ...)

What the broker does by itself (recovery, expiry, dead letters, the end of exclusive and temporary things) asks nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mypy_extensions import mypyc_attr

if TYPE_CHECKING:
    from broker.management import ManagedConnection


@mypyc_attr(allow_interpreted_subclasses=True)
class Access:
    """One connection's rights in its virtual host. All methods raise AccessRefused, with a text for the client."""

    def enter(self) -> None:
        """Open the virtual host."""

    # Queues.

    def declare_queue(self, name: str, durable: bool, exclusive: bool, auto_delete: bool,
                      arguments: dict[str, Any]) -> None:
        """Make a queue ("" for a name of the broker's choosing), or find that it is there as described."""

    def see_queue(self, name: str) -> None:
        """Ask about a queue: declare it passively, query it, look at its bindings."""

    def delete_queue(self, name: str) -> None:
        """Delete a queue."""

    def purge(self, name: str) -> None:
        """Throw away what is in a queue."""

    def consume(self, name: str) -> None:
        """Take messages of a queue, or look at them: consume, get, browse."""

    # Exchanges.

    def declare_exchange(self, name: str, kind: str, durable: bool, auto_delete: bool,
                         arguments: dict[str, Any]) -> None:
        """Make an exchange, or find that it is there as described."""

    def see_exchange(self, name: str) -> None:
        """Ask about an exchange."""

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange."""

    # Routing.

    def bind(self, source: str, destination: str, is_queue: bool, key: str, arguments: dict[str, Any]) -> None:
        """Have messages of an exchange come to a queue (is_queue) or to another exchange."""

    def unbind(self, source: str, destination: str, is_queue: bool, key: str) -> None:
        """The opposite."""

    def publish(self, short_strings: bytes, exchange: str, routing_key: str) -> None:
        """Send a message to an exchange. short_strings: both names as `Address.short_strings` has them (of names that
        are too long for that: anything that stands for them alone), for a quick look at what was decided before."""

    def publish_to(self, exchange: str) -> None:
        """Open a link to an exchange, on which each message says its own routing key: `publish` is asked for each."""

    def subscribe(self, exchange: str, key: str) -> None:
        """Get messages of an exchange by a pattern, in a queue that the broker makes for it: MQTT's subscriptions, a
        1.0 receiver's link to an exchange. Also to end what is kept of that."""

    # Management.

    def manage(self, action: str, kind: str, name: str, values: dict[str, Any]) -> None:
        """Have a management operation done that is no door above. The words are those of Qpid's access rules.

        action, kind and name, with values (all of them text):
          access method NAME        calling a method at all, asked before what it does: schemapackage, schemaclass
          access query CLASS        looking at objects of management: schemapackage, schemaclass
          access, update broker     what holds for all (log level, ...): property
          move queue SOURCE         queuename: where its messages go
          redirect queue SOURCE     queuename: the same for those that come
          reroute queue NAME        exchangename: to which they are published again
          delete connection, session NAME    closing it by order; username: whose it is
          create, delete, update link, bridge NAME    those of the gateway; they act with the broker's own rights
        """


@mypyc_attr(allow_interpreted_subclasses=True)
class Policy:
    """Gives connections their access. This one has no rules."""

    def access(self, connection: ManagedConnection, host_name: str) -> Access:
        """The rights of a connection's identity in a virtual host."""
        return ALL

    def reload(self) -> None:
        """Read the rules again; connections that are open follow them, too. Raises ValueError, with what is wrong with
        them; then those that were stay."""
        raise ValueError("there are no access rules")

    def rules(self) -> tuple[str, int, int]:
        """What operators see of them: the files they are from ("": there are none), when these were read (ms since the
        epoch), and how often somebody was refused something."""
        return "", 0, 0


ALL = Access()
"""For connections that may do everything: all, without rules; the broker's own."""

OPEN = Policy()
