"""Bytes that are read from the front: what the dialects' encodings have in common."""

from __future__ import annotations


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        assert size <= len(self.data), "cut off"
        found, self.data = self.data[:size], self.data[size:]
        return found

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def sized(self, width: int) -> bytes:
        """What is behind its size, which has so many bytes."""
        return self.take(self.number(width))
