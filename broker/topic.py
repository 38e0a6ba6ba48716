"""Topic patterns in a trie: what a match costs depends on the words of the routing key, not on how many patterns
there are. `*` stands for one word, `#` for none or more (AMQP 0-9-1, section 3.1.3.3)."""

from __future__ import annotations

from typing import Final

MOST_HASHES: Final = 16
"""Times `#` in a pattern, those in a row counted as one. Each may be anywhere in a key, so a match costs as much as all
of them have places there."""


class _Node:
    """Where a pattern's words so far lead to."""

    __slots__ = ("children", "values", "many")

    def __init__(self, many: bool) -> None:
        self.children: dict[str, _Node] = {}
        self.values: dict[str, object] = {}
        self.many = many  # the last word was `#`, so any further word leads here again


class TopicTrie:
    """Values under patterns; each value has a name that is unique in the trie."""

    def __init__(self) -> None:
        self.root = _Node(False)
        self.hashes = 0  # nodes behind a `#`

    def add(self, pattern: str, name: str, value: object) -> None:
        node = self.root
        for word in _pattern(pattern):
            child = node.children.get(word)
            if child is None:
                child = node.children[word] = _Node(word == "#")
                if child.many:
                    self.hashes += 1
            node = child
        node.values[name] = value

    def remove(self, pattern: str, name: str) -> None:
        """Take a value out, and the branch that it leaves bare. Raises: KeyError when it is not there."""
        path = [self.root]
        words = _pattern(pattern)
        for word in words:
            path.append(path[-1].children[word])
        del path[-1].values[name]
        for depth in range(len(words), 0, -1):
            node = path[depth]
            if node.values or node.children:
                break
            del path[depth - 1].children[words[depth - 1]]
            if node.many:
                self.hashes -= 1

    def match(self, key: str) -> list[object]:
        """The values whose pattern matches, each once."""
        nodes = [self.root]
        if self.hashes:
            nodes = _with_empty_hashes(nodes)
        for word in _words(key):
            after: list[_Node] = []
            for node in nodes:
                if node.many:
                    after.append(node)
                child = node.children.get(word)
                if child is not None:
                    after.append(child)
                if word != "*":  # a key may have a star for a word, which is none of a pattern's
                    child = node.children.get("*")
                    if child is not None:
                        after.append(child)
            nodes = _with_empty_hashes(after) if self.hashes else after  # without `#` no two paths meet
        if len(nodes) == 1:
            return list(nodes[0].values.values())
        found: dict[str, object] = {}
        for node in nodes:
            found.update(node.values)
        return list(found.values())


def _words(key: str) -> list[str]:
    """The words of a key or pattern; the empty one has none."""
    return key.split(".") if key else []


def hashes(pattern: str) -> int:
    """How many `#` a pattern has, when it is written as shortly as can be."""
    return _pattern(pattern).count("#")


def _pattern(text: str) -> list[str]:
    """The words of a pattern, with those of a kind that stand in a row written as shortly as can be: `#.*.#` asks for
    one word at least, as `*.#` does."""
    words = _words(text)
    if words.count("#") < 2:
        return words
    found: list[str] = []
    open_ended = False  # there was a `#` in this row of wildcards
    for word in words:
        if word == "#":
            open_ended = True
            continue
        if word != "*" and open_ended:
            found.append("#")
            open_ended = False
        found.append(word)
    if open_ended:
        found.append("#")
    return found


def _with_empty_hashes(nodes: list[_Node]) -> list[_Node]:
    """The nodes, and those behind a `#` that stands for no word at all, each once."""
    known = dict.fromkeys(nodes)
    for node in nodes:
        child = node.children.get("#")
        while child is not None and child not in known:
            known[child] = None
            child = child.children.get("#")
    return list(known)
