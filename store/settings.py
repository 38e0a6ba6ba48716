"""Settings that a store has in memory, all of them: what is asked is answered from there, and changes are numbered."""

from __future__ import annotations

from store.journal import Conflict, Store


class SettingsStore(Store):
    """A store of one shard, for one process. How changes are kept is its engine's."""

    def __init__(self) -> None:
        self.settings: dict[str, tuple[bytes, int]] = {}  # value and revision

    def change(self, key: str, value: bytes | None) -> int:
        """Keep a change, None for a removal, and tell those who watch when it is durable. Gives its revision."""
        raise NotImplementedError

    def load(self, prefix: str = "") -> list[tuple[str, bytes, int]]:
        found = self.settings if not prefix else [key for key in self.settings if key.startswith(prefix)]
        return [(key, *self.settings[key]) for key in sorted(found)]

    def get(self, key: str) -> bytes | None:
        found = self.settings.get(key)
        return None if found is None else found[0]

    def put(self, key: str, value: bytes, expect: int | None = None) -> int:
        self._check(key, expect)
        revision = self.change(key, value)
        self.settings[key] = (value, revision)
        return revision

    def delete(self, key: str, expect: int | None = None) -> None:
        self._check(key, expect)
        if self.settings.pop(key, None) is not None:
            self.change(key, None)

    def _check(self, key: str, expect: int | None) -> None:
        found = self.settings[key][1] if key in self.settings else 0
        if expect is not None and expect != found:
            raise Conflict(f"setting {key!r} is at revision {found}, not {expect}")

    def shard_of(self, virtual_host: str, queue: str) -> int:
        return 0
