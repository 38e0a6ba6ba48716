"""Which deliveries the broker has accepted and their senders have not settled: kept in the store, in the batches that
the messages are in, so that a sender that returns after a restart is told what it had not heard."""

from __future__ import annotations

import hashlib

from store.journal import Store

_KEY = "unsettled"


class Unsettled:
    """The deliveries that were accepted on links by name. A link's name has NULs in it, its virtual host's first."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._found: set[str] | None = None  # keys from before the broker was started

    def keep(self, link: str, tag: bytes) -> None:
        """The delivery is accepted, in the batch of the journal that its message is in."""
        self.store.put(_key(link, tag), b"")

    def forget(self, link: str, tag: bytes) -> None:
        """The client has settled it."""
        self.store.delete(_key(link, tag))

    def take(self, link: str, tags: list[bytes]) -> list[bytes]:
        """Which of these deliveries a former broker has accepted; all others of the link are forgotten."""
        if self._found is None:
            self._found = {key for key, _, _ in self.store.load(_KEY + "\0")}
        if not self._found:
            return []
        prefix = _key(link, b"")
        mine = {key for key in self._found if key.startswith(prefix)}
        self._found -= mine
        kept = [tag for tag in tags if _key(link, tag) in mine]
        for key in mine - {_key(link, tag) for tag in kept}:
            self.store.delete(key)
        return kept


def _key(link: str, tag: bytes) -> str:
    return f"{_KEY}\0{link.partition(chr(0))[0]}\0{hashlib.sha256(link.encode()).hexdigest()}{tag.hex()}"
