"""Files of access rules in the grammars of qpidd and Broker-J, files of groups, and what both brokers' rules mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import AccessRefused
from broker.management import ManagedConnection
from broker.security.groups import load_groups
from broker.security.guard import Guarded, Rules
from broker.security.identity import Identity
from broker.security.qpid_acl import BROKER_J, QPIDD, AclError, AclFile, AclJudge, load, parse
from broker.security.rules import ALLOW, DEFER, Question


def access(text: str, user: str, host: str = "/", peer: str = "192.0.2.1:1000", peer_name: str = "",
           **hosts: str) -> Guarded:
    """What a user may do by a file for the broker ("" for none), and others for virtual hosts."""
    connection = ManagedConnection()
    connection.peer, connection.peer_name, connection.identity = peer, peer_name, Identity(user)
    file = parse(text, "test.acl") if text else None
    others = {name: parse(each, f"{name}.acl") for name, each in hosts.items()}
    groups: dict[str, frozenset[str]] = {}
    for each in [*([file] if file else []), *others.values()]:
        groups.update(each.groups_of())
    return Guarded(Rules(None, [AclJudge(file, others)], groups=groups, realms=["QPID"]), connection, host)


def may(door: Guarded, method: str, *arguments: object) -> bool:
    try:
        getattr(door, method)(*arguments)
    except AccessRefused:
        return False
    return True


def queue(door: Guarded, name: str, durable: bool = False, exclusive: bool = False, auto_delete: bool = False,
          **arguments: object) -> bool:
    return may(door, "declare_queue", name, durable, exclusive, auto_delete, arguments)


def publish(door: Guarded, exchange: str, key: str) -> bool:
    return may(door, "publish", f"{exchange}|{key}".encode(), exchange, key)


# qpidd.

def test_a_file_of_qpidd() -> None:
    """As its documentation has it: groups, then rules from the special to the general."""
    text = """\
# who is who
group admin ted@QPID martin@QPID
group consumers martin@QPID ted@QPID
group others kim@QPID consumers rob@QPID
group publishers others \\
  tom@QPID andrew@QPID

acl allow carlt@QPID create exchange name=carl.*
acl allow rob@QPID create queue
acl allow guest@QPID bind exchange name=amq.topic routingkey=stocks.rht.#
acl allow consumers create queue name=tmp.*
acl allow publishers publish all
acl allow fred@QPID create all
acl allow bob@QPID all queue
acl allow admin all
acl deny all all
"""
    assert parse(text).dialect == QPIDD
    assert parse(text).groups["publishers"] == {"ted@QPID", "martin@QPID", "kim@QPID", "rob@QPID", "tom@QPID",
                                                "andrew@QPID"}
    assert may(access(text, "carlt"), "declare_exchange", "carl.x", "topic", True, False, {})
    assert not may(access(text, "carlt"), "declare_exchange", "car", "topic", True, False, {})
    assert queue(access(text, "rob"), "q") and not queue(access(text, "guest"), "q")
    assert may(access(text, "guest"), "bind", "amq.topic", "q", True, "stocks.rht.a.b", {})
    assert not may(access(text, "guest"), "bind", "amq.topic", "q", True, "stocks.ibm", {})
    assert may(access(text, "guest"), "subscribe", "amq.topic", "stocks.rht")
    assert publish(access(text, "kim"), "x", "k") and not publish(access(text, "carlt"), "x", "k")
    assert queue(access(text, "fred"), "q") and not may(access(text, "fred"), "consume", "q")
    assert may(access(text, "bob"), "purge", "q") and not may(access(text, "bob"), "see_exchange", "x")
    assert may(access(text, "ted"), "manage", "update", "broker", "", {})
    assert may(access(text, "ted@QPID"), "manage", "access", "query", "queue", {})


def test_who_is_allowed_something_by_qpidds_rules_may_enter() -> None:
    text = "acl deny eve@QPID all all\nacl allow bob@QPID publish exchange\nacl deny all all\n"
    assert may(access(text, "bob"), "enter")
    assert not may(access(text, "carol"), "enter") and not may(access(text, "eve"), "enter")
    assert may(access("acl allow all all\n", "carol"), "enter")


def test_connections_of_qpidd() -> None:
    text = """\
group admins alice bob
acl allow admins create connection host=10.0.0.0,10.255.255.255
acl deny all create connection host=10.0.0.0,10.255.255.255
acl deny eve create connection host=all
acl allow all all
"""
    for user, peer, allowed in (("alice", "10.1.2.3:1", True), ("carol", "10.1.2.3:1", False),
                                ("carol", "11.1.2.3:1", True), ("eve", "[2001:db8::1]:1", False),
                                ("alice", "[::ffff:10.1.2.3]:1", True)):
        assert may(access(text, user, peer=peer), "enter") == allowed, (user, peer)
    assert may(access("acl allow all create connection host=localhost\nacl allow all all", "x", peer="127.0.0.1:1"),
               "enter")


def test_routing_keys_of_qpidd_are_topics() -> None:
    door = access("acl allow u publish exchange name=X routingkey=a.#.b\n", "u")
    assert [key for key in ("a.b", "a.x.b", "a.x.y.zz.b", "a.b.", "q.x.b") if publish(door, "X", key)] == [
        "a.b", "a.x.b", "a.x.y.zz.b"]
    assert may(door, "publish_to", "X") and not may(door, "publish_to", "Y")


def test_variables_of_qpidd() -> None:
    text = "acl allow all create queue name=${user}-work\nacl allow all publish exchange routingkey=${userdomain}.#\n"
    assert queue(access(text, "bob.user@QPID.COM"), "bob_user-work")
    assert not queue(access(text, "bob.user@QPID.COM"), "eve-work")
    assert publish(access(text, "bob.user@QPID.COM"), "x", "bob_user_QPID_COM.a")
    assert publish(access(text, "bob"), "x", "bob_QPID")


def test_limits_of_queues_in_rules_of_qpidd() -> None:
    text = """\
acl allow all create queue name=small queuemaxcountupperlimit=100 queuemaxsizelowerlimit=10 policytype=ring
acl allow all create queue name=paged pagesupperlimit=5
acl deny all create queue name=files filemaxcountlowerlimit=5
acl allow all create queue name=files
"""
    door = access(text, "u")
    assert queue(door, "small", **{"qpid.max_count": 100, "qpid.max_size": 10, "qpid.policy_type": "ring"})
    assert not queue(door, "small", **{"qpid.max_count": 101, "qpid.max_size": 10, "qpid.policy_type": "ring"})
    assert not queue(door, "small", **{"qpid.max_count": 100, "qpid.max_size": 9, "qpid.policy_type": "ring"})
    assert not queue(door, "small", **{"qpid.max_size": 10, "qpid.policy_type": "ring"})
    assert queue(door, "small", **{"x-max-length": 1, "qpid.policy_type": "ring"})  # no limit of bytes is above any
    assert queue(door, "paged") and queue(door, "files")
    assert len(parse(text).notes) == 2


def test_quotas_are_kept_for_who_enforces_limits() -> None:
    found = parse("group admin ted martin\nquota connections 10 admin x@QPID\nquota connections 0 all\n"
                  "quota queues 5 all\nacl allow all all\n").quotas
    assert [(each.kind, each.number, each.who, each.line) for each in found] == [
        ("connections", 10, "admin", 2), ("connections", 10, "x@QPID", 2), ("connections", 0, "all", 3),
        ("queues", 5, "all", 4)]


def test_management_by_rules_of_qpidd() -> None:
    text = ("acl deny-log guest access method name=connect\nacl allow all access method schemaclass=broker\n"
            "acl allow all access query name=q schemapackage=org.apache.qpid.broker\n"
            "acl allow bob move queue name=a queuename=b\n"
            "acl allow bob reroute queue exchangename=x\nacl allow bob update broker\n")
    broker = {"schemapackage": "org.apache.qpid.broker", "schemaclass": "broker"}
    assert may(access(text, "bob"), "manage", "access", "method", "connect", broker)
    assert not may(access(text, "guest"), "manage", "access", "method", "connect", broker)
    assert may(access(text, "guest"), "manage", "access", "query", "q", broker)
    assert not may(access(text, "guest"), "manage", "access", "query", "p", broker)
    assert may(access(text, "bob"), "manage", "move", "queue", "a", {"queuename": "b"})
    assert not may(access(text, "bob"), "manage", "move", "queue", "a", {"queuename": "c"})
    assert may(access(text, "bob"), "manage", "reroute", "queue", "a", {"exchangename": "x"})
    assert may(access(text, "bob"), "manage", "update", "broker", "", {"property": "log level"})


# Broker-J.

def test_a_file_of_broker_j() -> None:
    text = """\
# numbers say the order
30 ACL DENY ALL ALL
10 ACL ALLOW messaging ACCESS VIRTUALHOST from_network="10.0.0.0/8,192.168.1.0/24"   # from inside
20 ACL ALLOW-LOG "client" PUBLISH EXCHANGE NAME="requests" Routing_Key='a b' durable=true
21 acl allow client consume queue name=["one", "two*"]
GROUP messaging client server
"""
    made = parse(text)
    assert made.dialect == BROKER_J
    assert [rule.line for rule in made.rules if rule.line] == [3, 4, 5, 2]
    assert may(access(text, "client", peer="10.9.9.9:1"), "enter")
    assert not may(access(text, "client"), "enter") and not may(access(text, "eve", peer="10.9.9.9:1"), "enter")
    door = access(text, "client")
    assert [name for name in ("one", "two", "twofold", "three") if may(door, "consume", name)] == [
        "one", "two", "twofold"]
    assert may(door, "see_queue", "three")  # Broker-J never asks who looks
    assert made.rules[-2].log is False and [rule.log for rule in made.rules][3]


def test_requests_and_answers_by_rules_of_broker_j() -> None:
    """A client that asks and a server that answers, as Broker-J's documentation has them."""
    text = """\
ACL DENY-LOG ALL ACCESS MANAGEMENT
ACL ALLOW ALL ACCESS VIRTUALHOST
ACL ALLOW client CREATE QUEUE temporary="true"
ACL ALLOW client CONSUME QUEUE temporary="true"
ACL ALLOW client DELETE QUEUE temporary="true"
ACL ALLOW client BIND EXCHANGE name="amq.direct" temporary="true"
ACL ALLOW client PUBLISH EXCHANGE name="" routing_key="example.RequestQueue"
ACL ALLOW server CONSUME QUEUE name="example.RequestQueue"
ACL ALLOW server PUBLISH EXCHANGE name="" routing_key="TempQueue*"
ACL ALLOW ops UPDATE METHOD name="moveMessages"
ACL DENY-LOG ALL ALL
"""
    client, server, ops = access(text, "client"), access(text, "server"), access(text, "ops")
    assert queue(client, "TempQueue1", exclusive=True) and not queue(client, "q")
    assert publish(client, "", "example.RequestQueue") and not publish(client, "amq.direct", "example.RequestQueue")
    assert may(server, "consume", "example.RequestQueue") and not may(server, "consume", "TempQueue1")
    assert publish(server, "", "TempQueue1") and not publish(server, "", "q")
    assert may(ops, "manage", "move", "queue", "a", {"queuename": "b"})
    assert not may(ops, "manage", "redirect", "queue", "a", {"queuename": "b"})
    assert not may(ops, "manage", "access", "query", "queue", {})


def test_routing_keys_of_broker_j_are_text() -> None:
    door = access('ACL ALLOW u PUBLISH EXCHANGE name="X" routing_key="a.*"\n', "u")
    assert [key for key in ("a.", "a.b", "a.b.c", "b.a") if publish(door, "X", key)] == ["a.", "a.b", "a.b.c"]


def test_the_nameless_exchange_by_its_names() -> None:
    for name in ("amq.default", '"<<default>>"', '""'):
        door = access(f"ACL ALLOW u PUBLISH EXCHANGE name={name} routing_key=q\n", "u")
        assert publish(door, "", "q") and not publish(door, "", "p") and not publish(door, "x", "q")
    assert publish(access('ACL ALLOW u PUBLISH EXCHANGE routing_key=""\n', "u"), "x", "k")  # an empty value is any
    assert publish(access("acl allow u publish exchange name=amq.default\n", "u"), "", "k")


@pytest.mark.parametrize(("setting", "default"), [("", None), ("CONFIG DEFAULTALLOW=true\n", ALLOW),
                                                   ("CONFIG DEFAULTDEFER=true\n", DEFER),
                                                   ("CONFIG DEFAULTALLOW=false\n", None)])
def test_what_holds_when_no_rule_fits(setting: str, default: int | None) -> None:
    assert parse(setting + "ACL DENY bob CONSUME QUEUE\n").default == default


def test_a_virtual_hosts_rules_come_before_the_brokers() -> None:
    text = "ACL ALLOW bob CREATE QUEUE\n"
    inner = "ACL DENY bob CREATE QUEUE name=a\nACL ALLOW carol CREATE QUEUE\n"
    door = access(text, "bob", "inner", inner=inner)
    assert not queue(door, "a") and queue(door, "b")
    assert queue(access(text, "carol", "inner", inner=inner), "a")
    assert not queue(access(text, "carol", "/", inner=inner), "a")
    assert not queue(access("", "bob", "inner", inner=inner), "b")
    assert not queue(access(text, "bob", "inner", inner=f"CONFIG DEFAULTDENY=true\n{inner}"), "b")


def test_hosts_by_name() -> None:
    for pattern in (r".*\\.example\\.com", "*.example.com"):
        text = f'ACL ALLOW ALL ACCESS VIRTUALHOST from_hostname="{pattern}"\n'
        assert may(access(text, "u", peer_name="a.example.com"), "enter")
        assert not may(access(text, "u", peer_name="a.example.com.evil"), "enter")
        assert not may(access(text, "u"), "enter")


def test_networks_with_a_star() -> None:
    for network, inside in (("10.1.*", True), ("10.1.2.*", True), ("10.2.*", False), ("10.1.2.3", True), ("*", True)):
        text = f"ACL ALLOW ALL ACCESS VIRTUALHOST from_network={network}\n"
        assert may(access(text, "u", peer="10.1.2.3:1"), "enter") == inside, network


def test_management_by_rules_of_broker_j() -> None:
    text = ("ACL ALLOW ops ACCESS MANAGEMENT\nACL ALLOW ops CONFIGURE BROKER\n"
            "ACL ALLOW ops INVOKE QUEUE method_name=move*\nACL ALLOW ops UPDATE QUEUE name=a\n")
    door = access(text, "ops")
    assert may(door, "manage", "access", "query", "queue", {})
    assert may(door, "manage", "update", "broker", "", {})
    assert may(door, "manage", "move", "queue", "b", {"queuename": "c"})
    assert may(door, "manage", "redirect", "queue", "a", {})
    assert not may(door, "manage", "redirect", "queue", "b", {})
    assert not may(access(text, "dev"), "manage", "access", "query", "queue", {})


def test_limits_of_connections_of_broker_j() -> None:
    found = parse("CLT ALL PORT=amqp connection_limit=10 connection_frequency_limit=60/2m\nCLT eve BLOCK\n"
                  "ACL ALLOW bob ACCESS VIRTUALHOST connection_limit=3\n").quotas
    assert [(each.kind, each.number, each.who, each.seconds, each.port) for each in found] == [
        ("connections", 10, "all", 0, "amqp"), ("connection rate", 60, "all", 120, "amqp"),
        ("connections", 0, "eve", 0, ""), ("connections", 3, "bob", 0, "")]


def test_impersonation_is_in_no_all() -> None:
    assert not access("ACL ALLOW ALL ALL\n", "gw").connection.impersonates
    assert access("ACL ALLOW gw IMPERSONATE USER\nACL ALLOW ALL ALL\n", "gw").connection.impersonates


def test_a_group_is_no_user_of_that_name() -> None:
    text = "ACL ALLOW admin ALL ALL\nGROUP admin alice\n"
    assert may(access(text, "alice"), "enter") and not may(access(text, "admin"), "enter")


# What is wrong.

@pytest.mark.parametrize(("text", "problem"), [
    ("acl allow bob frob queue", "test.acl:1: 'frob' is not an action; there are all, access, "),
    ("\n# c\nacl allow bob create que", "test.acl:3: 'que' is not an object; there are all, virtualhost, "),
    ("acl allow bob consume exchange", "test.acl:1: there is no consume exchange; of exchange there are all, create, "),
    ("acl permit bob all", "'permit' is no permission; there are allow, "),
    ("acl allow bob", "a rule is written: acl allow"),
    ("alc allow bob all", "'alc' begins no line; ACL, GROUP, "),
    ("acl allow bob create queue colour=red", "'colour' is no property; there are name, "),
    ("acl allow bob create queue owner=bob", "what owner is, is not kept"),
    ("acl allow bob create queue name", "'name': properties are written NAME=VALUE"),
    ("acl allow bob create queue durable=yes", "'yes' is neither true nor false"),
    ("acl allow bob create queue queuemaxcountupperlimit=many", "is 'many', which is no number"),
    ('acl allow bob create queue name="a"', "there are no quotes in files of qpidd's grammar"),
    ("acl allow bob create connection host=10.0.0.9,10.0.0.1", "is no range"),
    ("ACL ALLOW bob ACCESS VIRTUALHOST from_network=10.0.0.0/99", "'10.0.0.0/99' is no network"),
    ("ACL ALLOW bob ACCESS VIRTUALHOST from_hostname=(", "is no regular expression"),
    ("group a b\ngroup a c", "test.acl:2: there is a group 'a' already"),
    ("group all b", "no group can be called all"),
    ("group a b \\\n\\\nc", "test.acl:1: '\\' at the end, and nothing on the next line"),
    ("group a b \\", "test.acl:1: '\\' at the end"),
    ("10 ACL ALLOW a ALL\n10 ACL ALLOW b ALL", "test.acl:2: there is a rule 10 already"),
    ("10 GROUP a b", "a number may stand before ACL only"),
    ("ACL ALLOW OWNER CONSUME QUEUE", "there can be no rule for OWNER"),
    ("ACL ALLOW a PUBLISH EXCHANGE routing_key=a.#", "must be in quotes"),
    ("ACL ALLOW a PUBLISH EXCHANGE routing_key=\"a", "a quote that is not closed"),
    ("ACL ALLOW a CONSUME QUEUE name=[a", "the list of name has no end"),
    ("CONFIG DEFAULTMAYBE=true", "there is no such setting as 'defaultmaybe'"),
    ("CONFIG DEFAULTALLOW", "properties are written NAME=VALUE"),
    ("quota cars 1 all", "a quota is written"),
    ("CLT bob colour=red", "'colour' is no limit"),
    ("CLT bob", "a limit is written"),
    ("CLT bob connection_frequency_limit=1/7x", "is no rate"),
])
def test_a_wrong_file_is_refused_with_its_line_and_what_is_allowed(text: str, problem: str) -> None:
    with pytest.raises(AclError) as error:
        parse(text, "test.acl")
    assert problem in str(error.value)


words = st.sampled_from(("acl", "ACL", "10", "allow", "DENY-LOG", "bob", "all", "create", "PUBLISH", "queue",
                         "EXCHANGE", "group", "quota", "CONFIG", "CLT", "name=a*", "name", "=", '"x y"', "'", '"', "[",
                         "]", ",", "#", "\\", "\n", "\\\n", "routingkey=a.#", "from_network=1.2.3.0/24", "connections",
                         "7", "durable=true", "${user}", "\t", "é", "\x00"))


@given(st.lists(words | st.text(max_size=5), max_size=25), st.booleans())
@settings(max_examples=400)
def test_any_text_is_read_or_refused(parts: list[str], spaced: bool) -> None:
    try:
        found = parse((" " if spaced else "").join(parts), "f")
    except AclError as error:
        assert str(error).startswith("f:")
    else:
        assert isinstance(found, AclFile)
        connection = ManagedConnection()
        connection.identity = Identity("bob")
        door = Guarded(Rules(None, [AclJudge(found, {})], groups=found.groups_of()), connection, "/")
        assert door._decide(Question("create", "queue", {"name": "a"})).allowed in (True, False)


def test_files_of_groups(tmp_path: Path) -> None:
    path = tmp_path / "groups"
    path.write_text("# ours\nstaff.users=alice, bob\nadmin.users = bob\nempty.users=\n")
    assert load_groups(str(path)) == {"alice": {"staff"}, "bob": {"staff", "admin"}}
    for wrong in ("staff=alice", "staff.users", ".users=a", "a.users=b\na.users=c"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=f"{path}:"):
            load_groups(str(path))
    with pytest.raises(ValueError, match="cannot be read"):
        load_groups(str(tmp_path / "none"))


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_bytes(b"\xef\xbb\xbfacl allow bob create queue\r\nacl deny all all\r\n")
    assert [(rule.who, rule.line) for rule in load(str(path)).rules if rule.action == "create"] == [("bob", 1)]
    path.write_bytes(b"\xef\xbb\xbfstaff.users=alice\r\n")
    assert load_groups(str(path)) == {"alice": {"staff"}}
    path.write_bytes(b"acl allow caf\xe9 all")
    for reads in (load, load_groups):
        with pytest.raises(ValueError, match=f"{path}: is not UTF-8 text, at byte 13"):
            reads(str(path))
