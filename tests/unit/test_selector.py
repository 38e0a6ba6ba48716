"""Selectors: the language of JMS 2.0, sections 3.8.1.1 to 3.8.1.3, and what it says of values that are not there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.selector import SelectorError, _Parser, like, pattern
from broker.view import View


def view() -> View:
    made = View()
    made.headers = {"Country": "UK", "age": 20, "price": 2.5, "sold": True, "name": "it's", "under": "a_b", "neg": -3,
                    "blob": b"bytes", "x-y": "dash", "nested": [1]}
    made.subject, made.durable, made.message_id, made.correlation_id = "type", True, "ID:1", "c"
    made.priority, made.creation_time, made.group_id = 7, 1000, "g"
    return made


TRUE, FALSE, UNKNOWN = True, False, None

CASES = [
    ("Country = 'UK'", TRUE), ("Country <> 'UK'", FALSE), ("name = 'it''s'", TRUE), ("missing = 'x'", UNKNOWN),
    ("missing <> 'x'", UNKNOWN), ("NOT missing = 'x'", UNKNOWN), ("missing IS NULL", TRUE), ("age IS NOT NULL", TRUE),
    ("missing IS NOT NULL", FALSE), ("age > 19 AND age < 21", TRUE), ("age >= 20 and age <= 20", TRUE),
    ("age BETWEEN 15 AND 19", FALSE), ("age NOT BETWEEN 15 AND 19", TRUE), ("missing BETWEEN 1 AND 2", UNKNOWN),
    ("Country IN ('US', 'UK')", TRUE), ("Country NOT IN ('US', 'UK')", FALSE), ("missing IN ('a')", UNKNOWN),
    ("missing NOT IN ('a')", UNKNOWN), ("Country LIKE 'U%'", TRUE), ("Country LIKE '_K'", TRUE),
    ("Country NOT LIKE '_'", TRUE), ("under LIKE 'a\\_b' ESCAPE '\\'", TRUE),
    ("Country LIKE 'U\\_' ESCAPE '\\'", FALSE),
    ("missing LIKE '%'", UNKNOWN), ("age LIKE '2%'", FALSE), ("sold", TRUE), ("NOT sold", FALSE), ("sold = TRUE", TRUE),
    ("sold <> false", TRUE), ("sold > false", FALSE), ("age = '20'", FALSE), ("age <> '20'", FALSE),
    ("Country > 'A'", FALSE), ("age = 20.0", TRUE), ("price * 2 = 5", TRUE), ("age / 3 = 6", TRUE),
    ("neg / 2 = -1", TRUE), ("age / 0 = 1", UNKNOWN), ("age + Country = 1", UNKNOWN), ("-neg = 3", TRUE),
    ("+age = - - 20", TRUE), ("age - 5 * 2 = 10", TRUE), ("(age - 5) * 2 = 30", TRUE), ("price = 2.5E0", TRUE),
    ("price = .25e1", TRUE), ("price = 2.5f", TRUE), ("age = 0x14", TRUE), ("age = 024", TRUE), ("age = 20L", TRUE),
    ("age = 2e1", TRUE), ("age = 20 OR missing = 1", TRUE), ("age = 21 OR missing = 1", UNKNOWN),
    ("age = 21 AND missing = 1", FALSE), ("age = 20 AND missing = 1", UNKNOWN), ("TRUE", TRUE), ("FALSE OR TRUE", TRUE),
    ("NOT NOT TRUE", TRUE), ("JMSType = 'type'", TRUE), ("JMSDeliveryMode = 'PERSISTENT'", TRUE),
    ("JMSMessageID = 'ID:1'", TRUE), ("JMSCorrelationID LIKE 'c'", TRUE), ("JMSPriority > 6", TRUE),
    ("JMSTimestamp = 1000", TRUE), ("JMSXGroupID = 'g'", TRUE), ("amqp.subject = 'type'", TRUE),
    ("amqp.durable", TRUE), ("amqp.reply_to IS NULL", TRUE), ("blob = 'bytes'", TRUE), ('"x-y" = \'dash\'', TRUE),
    ("nested = 1", UNKNOWN), ("age IN (19, 20)", TRUE), ("neg IN (-3)", TRUE), ("Country != 'US'", TRUE),
    ("amqp.priority=7 AND(age=20)OR sold", TRUE), ("age", 20)]


@pytest.mark.parametrize(("selector", "expected"), CASES)
def test_value(selector: str, expected: object) -> None:
    found = _Parser(selector).whole()(view())
    assert found is expected or (type(found) is type(expected) and found == expected)


@pytest.mark.parametrize("selector", [
    "", "age =", "= 1", "age = 'open", "age > > 1", "(age = 1", "age = 1)", "age BETWEEN 1", "age IN ()", "age IN 1",
    "Country LIKE 5", "Country LIKE 'a' ESCAPE 'ab'", "Country LIKE 'a\\' ESCAPE '\\'", "age IS 1", "age NOT 5", "; x",
    "amqp.nonsense = 1", "AND", "a = 1 b = 2", "(" * 200 + "a" + ")" * 200, "a = " + "1 + " * 40000 + "1",
    "a = " + "1" * 9000,
    "a IN (- - 1)", "a IN (-'x')"])
def test_nonsense_is_refused(selector: str) -> None:
    from broker.selector import Selector
    with pytest.raises(SelectorError):
        Selector(selector)


@given(st.text("ab_%", max_size=8), st.text("ab", max_size=12))
def test_like_is_what_the_regular_expression_says(written: str, text: str) -> None:
    expression = "".join({"%": ".*", "_": "."}.get(character, character) for character in written)
    assert like(text, pattern(written, "")) == bool(re.fullmatch(expression, text))


def test_a_long_sum_is_computed() -> None:
    assert _Parser("age = " + "1 + " * 15000 + "5 - 14985").whole()(view()) is True


def test_a_pattern_that_would_take_a_regular_expression_forever() -> None:
    assert not like("a" * 5000, pattern("%a" * 100 + "%b", ""))


@given(st.text(max_size=60))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    from broker.selector import Selector
    try:
        Selector(text)
    except SelectorError:
        pass
