"""Topics and routing keys: each is written as the other, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.topics import fits, key_of, pattern_of, topic_of

PIECES = st.lists(st.sampled_from([*"/.+#%25EFB30\x00a é*$", "%2E", "%25", "%2F", "%23"])).map("".join)


@pytest.mark.parametrize(("topic", "key"), [
    ("a/b/c", "a.b.c"), ("/a", ".a"), ("a//b", "a..b"), ("a.b/c", "a%2Eb.c"), ("100%/x", "100%.x"),
    ("a%2Eb", "a%252Eb"), ("a%2Fb", "a/b"), ("a%252Fb", "a%2Fb"), ("*/a", "*.a"), ("é/ü", "é.ü"), ("", "")])
def test_topics_and_keys(topic: str, key: str) -> None:
    assert key_of(topic) == key
    assert topic_of(key) == topic


@given(PIECES)
def test_a_key_comes_back(key: str) -> None:
    topic = topic_of(key)
    assert not set(topic) & set("+#\x00")
    assert key_of(topic) == key


@given(PIECES.map(lambda text: text.replace("+", "").replace("#", "").replace("\x00", "")))
def test_a_topic_comes_back(topic: str) -> None:
    assert topic_of(key_of(topic)) == topic


@pytest.mark.parametrize(("topic_filter", "pattern"), [
    ("a/+/#", "a.*.#"), ("#", "#"), ("+", "*"), ("a.b/+", "a%2Eb.*"), ("/+", ".*")])
def test_patterns(topic_filter: str, pattern: str) -> None:
    assert pattern_of(topic_filter) == pattern


@pytest.mark.parametrize(("topic_filter", "topic", "does"), [
    ("sport/#", "sport", True), ("sport/#", "sport/a/b", True), ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True), ("/+", "/finance", True), ("+", "/finance", False), ("#", "$SYS/x", False),
    ("+/x", "$SYS/x", False), ("$SYS/#", "$SYS/x", True), ("a/b", "a/b/c", False), ("*", "a", False), ("*", "*", True)])
def test_filters(topic_filter: str, topic: str, does: bool) -> None:
    assert fits(topic_filter, topic) is does
