"""The table of options: spellings, values as people write them, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.arguments import (
    BINDING,
    CONSUMER,
    DROP_HEAD,
    EXCHANGE_OPTIONS,
    FLOW_CONTROL,
    NO_LIMIT,
    QUEUE,
    REJECT_PUBLISH,
    SELF_DESTRUCT,
)
from broker.errors import PreconditionFailed
from broker.option import IGNORED
from broker.queue_settings import QueueSettings, check_same_arguments, queue_settings
from dragoman.options_text import MARK, reference

ROOT = Path(__file__).resolve().parents[2]


def test_the_documentation_is_that_of_the_code() -> None:
    page = (ROOT / "docs/queue-options.md").read_text(encoding="utf-8")
    assert page.partition(MARK)[2].strip() == reference().strip(), "`make docs` writes it anew"


@pytest.mark.parametrize("table", [QUEUE, EXCHANGE_OPTIONS, BINDING, CONSUMER], ids=["queue", "exchange", "binding",
                                                                                    "consumer"])
def test_every_name_is_there_once(table: list[Any]) -> None:
    names = [name for option in table for name in option.names()]
    assert len(names) == len(set(names))
    assert len({option.name for option in table}) == len(table)
    assert all(option.names() for option in table)


def test_every_option_of_a_queue_is_a_setting() -> None:
    settings = QueueSettings()
    for option in QUEUE:
        if option.kind != IGNORED and option.name not in ("alert_repeat_gap", "queue_mode"):
            assert getattr(settings, option.name) == option.default, option.name


@pytest.mark.parametrize("arguments, name, value", [
    ({"qpid.max_count": 5}, "max_length", 5),
    ({"qpid.max_count": "5"}, "max_length", 5),
    ({"qpid.max_count": b"5"}, "max_length", 5),
    ({"qpid.max_count": 0}, "max_length", -1),
    ({"maximumQueueDepthMessages": -1}, "max_length", -1),
    ({"x-max-length": 0}, "max_length", 0),
    ({"qpid.max_count": 5}, "overflow", REJECT_PUBLISH),
    ({"x-max-length": 5}, "overflow", DROP_HEAD),
    ({"maximumQueueDepthMessages": 5}, "overflow", NO_LIMIT),
    ({"maximumQueueDepthMessages": 5}, "max_length", -1),
    ({"qpid.max_count": 5, "qpid.policy_type": "ring"}, "overflow", DROP_HEAD),
    ({"qpid.max_count": 5, "qpid.policy_type": "SELF_DESTRUCT"}, "overflow", SELF_DESTRUCT),
    ({"qpid.max_size": 500, "qpid.policy_type": b"flow_to_disk"}, "max_bytes", -1),
    ({"qpid.max_size": 500, "overflowPolicy": "PRODUCER_FLOW_CONTROL"}, "overflow", FLOW_CONTROL),
    ({"qpid.max_size": 500, "overflowPolicy": "PRODUCER_FLOW_CONTROL"}, "flow_stop_size", 500),
    ({"qpid.max_size": 500, "overflowPolicy": "PRODUCER_FLOW_CONTROL"}, "flow_resume_size", 400),
    ({"qpid.flow_stop_count": "10", "qpid.flow_resume_count": 0}, "flow_resume_count", 8),
    ({"x-qpid-capacity": 10, "x-qpid-flow-resume-capacity": 3}, "flow_resume_size", 3),
    ({"qpid.last_value_queue": 1}, "last_value_key", "qpid.LVQ_key"),
    ({"qpid.last_value_queue": "False"}, "last_value_key", None),
    ({"qpid.last_value_queue_no_browse": True}, "last_value_key", "qpid.LVQ_key"),
    ({"lvqKey": "k", "qpid.last_value_queue": "true"}, "last_value_key", "k"),
    ({"qpid.priorities": "10"}, "priorities", 10),
    ({"qpid.priorities": 5, "qpid.fairshare-4": "3", "x-qpid-fairshare-0": 1}, "fairshares", {4: 3, 0: 1}),
    ({"qpid.shared_msg_group": "1"}, "shared_groups", True),
    ({"messageGroupType": "SHARED_GROUPS"}, "shared_groups", True),
    ({"x-qpid-maximum-delivery-count": 3}, "delivery_limit", 2),
    ({"maximumDeliveryAttempts": 0}, "delivery_limit", -1),
    ({"maximumLiveConsumers": 1}, "single_active", True),
    ({"alternateBinding": {"destination": "dead"}}, "alternate", "dead"),
    ({"alternateExchange": "dead", "alternate-exchange": "dead"}, "alternate", "dead"),
    ({"qpid.lifetime_policy": "DELETE_ON_CONNECTION_CLOSE"}, "lifetime", "delete-on-connection-close"),
    ({"qpid.lifetime-policy": "delete-if-unused-and-empty"}, "lifetime", "delete-if-unused-and-empty"),
    ({"qpid.exclusivity_policy": "SHARED_SUBSCRIPTION"}, "exclusivity", "shared-subscription"),
    ({"qpid.default_filters": '{"f": {"x-filter-jms-selector": ["a"]}}'}, "default_filters",
     {"f": {"x-filter-jms-selector": ["a"]}}),
    ({"qpid.alert_repeat_gap": 5}, "alert_repeat_gap", 5000),
    ({"x-qpid-minimum-alert-repeat-gap": "5"}, "alert_repeat_gap", 5),
    ({"qpid.alert_count": 10}, "alert_count_down", 5),
    ({"qpid.file_count": "many", "qpid.replicate": None}, "description", None),
    ({"x-qpid-description": "for tests"}, "description", "for tests"),
    ({"x-foo": 1, "foo": "qpid.bar"}, "description", None),
], ids=repr)
def test_value(arguments: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(queue_settings(arguments, "q"), name) == value


@pytest.mark.parametrize("arguments, text", [
    ({"qpid.max_count": "many"}, "a number from 0 on, not 'many'"),
    ({"qpid.max_count": -2}, "a number"),
    ({"qpid.max_count": True}, "a number"),
    ({"qpid.max_count": 1.5}, "a number"),
    ({"qpid.max_count": "9" * 5000}, "..."),
    ({"qpid.max_count": None}, "a number"),
    ({"qpid.policy_type": "circle"}, "one of"),
    ({"qpid.policy_type": ["ring"]}, "one of"),
    ({"qpid.last_value_queue_key": 3}, "a text"),
    ({"qpid.last_value_queue": "maybe"}, "true or false"),
    ({"qpid.last_value_queue": 2}, "true or false"),
    ({"qpid.default_filters": "{"}, "a map"),
    ({"qpid.default_filters": "[" * 100_000}, "a map"),
    ({"alternateBinding": {"to": "dead"}}, "destination"),
    ({"qpid.priorities": 256}, "0 to 255"),
    ({"qpid.max_cuont": 5}, "'qpid.max_cuont' for q: there is no such option"),
    ({"x-qpid-priority": 5}, "there is no such option"),
    ({"qpid.fairshare-x": 5}, "there is no such option"),
    ({"qpid.max_count": 5, "x-max-length": 6}, "contradicts 'qpid.max_count'"),
    ({"qpid.priorities": 5, "qpid.last_value_queue": 1}, "exclude each other"),
    ({"qpid.priorities": 5, "x-max-priority": 4}, "contradicts"),
    ({"qpid.queue_sort_key": "a", "lvqKey": "b"}, "exclude each other"),
    ({"qpid.flow_resume_count": 5}, "no mark to stop at"),
    ({"qpid.flow_stop_count": 5, "qpid.flow_resume_count": 6}, "above the mark"),
    ({"qpid.flow_stop_count": 5, "qpid.max_count": 4}, "limit is 4"),
    ({"qpid.alert_count": 5, "qpid.alert_count_down": 5}, "not below"),
    ({"qpid.alert_count_down": 5}, "not below"),
], ids=lambda value: str(value)[:60])
def test_wrong_value(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        queue_settings(arguments, "q")
    assert text in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("current, received", [
    ({"x-max-length": 5}, {"qpid.max_count": "5"}),
    ({"qpid.max_count": "5"}, {"x-max-length": 5}),
    ({"qpid.max_count": 5}, {}),
    ({"qpid.policy_type": "ring"}, {"x-overflow": "drop-head"}),
    ({}, {"qpid.last_value_queue": 0}),
    ({}, {"qpid.max_count": 0}),
    ({"qpid.file_count": 1}, {"qpid.file_count": 2}),
    ({"qpid.last_value_queue": 1}, {"qpid.last_value_queue": "true"}),
], ids=repr)
def test_same(current: dict[str, Any], received: dict[str, Any]) -> None:
    check_same_arguments(received, current, "q")


@pytest.mark.parametrize("current, received, text", [
    ({"x-max-length": 5}, {}, "'x-max-length' for q: received none but current is the value '5' of type 'byte'"),
    ({"x-max-length": 5}, {"qpid.max_count": 6}, "'qpid.max_count' for q: received '6' but current is '5'"),
    ({}, {"qpid.max_count": 6}, "'qpid.max_count' for q: received '6' but current is '-1'"),
    ({"qpid.last_value_queue_key": "a"}, {"lvqKey": "b"}, "'lvqKey' for q: received 'b' but current is 'a'"),
    ({"x-max-length": 5}, {"qpid.max_cuont": 5}, "no such option"),
], ids=repr)
def test_not_the_same(current: dict[str, Any], received: dict[str, Any], text: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        check_same_arguments(received, current, "q")
    assert text in str(refused.value)


def test_policies_beside_arguments() -> None:
    """The lower number of both holds, the client's word, and whoever declares the queue again knows of no policy."""
    has = {"x-message-ttl": 10, "x-policy-message-ttl": 5, "x-overflow": "drop-head", "x-policy-overflow":
           "reject-publish", "x-policy-max-length": 7, "x-max-length-bytes": 3, "x-policy-max-length-bytes": 9}
    settings = queue_settings(has, "it")
    assert (settings.message_ttl, settings.overflow, settings.max_length, settings.max_bytes) == (5, 0, 7, 3)
    assert not settings.counts_unsettled
    check_same_arguments({"x-message-ttl": 10, "x-overflow": "drop-head", "x-max-length-bytes": 3}, has, "it")
    with pytest.raises(PreconditionFailed, match="x-message-ttl"):
        check_same_arguments({"x-message-ttl": 5, "x-overflow": "drop-head", "x-max-length-bytes": 3}, has, "it")
    for wrong in ({"x-policy-message-ttl": "5"}, {"x-policy-x": 1}):
        with pytest.raises(PreconditionFailed):
            queue_settings(wrong, "it")
