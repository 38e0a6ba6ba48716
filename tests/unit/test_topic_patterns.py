"""The trie of topic patterns: what matches is what the words say, and nothing costs much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.topic import MOST_HASHES, TopicTrie, hashes
from tests.fuzz.cost import lines

WORDS = st.lists(st.sampled_from(["#", "*", "a", "b", ""]), max_size=7)


def matches(pattern: list[str], words: list[str]) -> bool:
    """By the definition, without any cleverness."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[at:]) for at in range(len(words) + 1))
    return bool(words) and (pattern[0] in ("*", words[0])) and matches(pattern[1:], words[1:])


@given(WORDS, st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=6))
def test_a_pattern_matches_what_it_says(pattern: list[str], key: list[str]) -> None:
    if pattern == [""] or key == [""]:
        return  # which is the same text as no word at all
    trie = TopicTrie()
    trie.add(".".join(pattern), "name", 1)
    assert trie.match(".".join(key)) == [1] * matches(pattern, key)
    trie.remove(".".join(pattern), "name")
    assert not trie.root.children and not trie.hashes


def test_hashes_in_a_row_are_one() -> None:
    assert hashes("#.#.#") == 1 and hashes("#.*.#.a.#.#") == 2 and hashes("a.*.b") == 0


def test_many_hashes_cost_little() -> None:
    """60 patterns of as many `#` as one may have, and a key of 120 words."""
    trie = TopicTrie()
    for number in range(60):
        trie.add(".".join(["#.a"] * MOST_HASHES + [str(number)]), str(number), number)
    key = ".".join(["a"] * 119 + ["59"])
    found: list[object] = []
    assert lines(lambda data: found.extend(trie.match(key)), b"") < 60_000
    assert found == [59]
