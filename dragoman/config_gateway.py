"""The gateway's sections of the configuration: links to other brokers, and bridges over them.

Each is the settings that `interop` works with, with what is known of their keys.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from broker.selector import Selector, SelectorError
from dragoman.config_keys import Kind
from dragoman.config_keys import key as _key
from interop.care import DEAD_LETTER, REJECT_ANYWAY, STOP
from interop.link import shown
from interop.remotes import PORTS
from interop.rules import RuleError
from interop.rules import read as read_rules
from interop.settings import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    DIALECTS,
    EXACTLY_ONCE,
    PULL,
    PUSH,
    BridgeSettings,
    LinkSettings,
)

_L = LinkSettings
_B = BridgeSettings


@dataclass(frozen=True)
class Link(LinkSettings):
    """A connection to another broker; bridges use it."""

    name: str = _key(_L.name, Kind.TEXT, "What bridges and operators call it; names are not used twice.")
    url: str = _key(_L.url, Kind.TEXT, "Where the broker is: `amqp://host:port/virtual-host`, with `amqps`, `mqtt` or "
                   "`mqtts` likewise. No password: that is kept in a file or the environment.")
    dialect: str = _key(_L.dialect, Kind.TEXT, "What to speak there. `auto`: 0-9-1, or MQTT where the URL says so.",
                       choices=("auto", *DIALECTS))
    failover: tuple[str, ...] = _key(_L.failover, Kind.TEXTS, "Further URLs, which are tried in turn.")
    user: str = _key(_L.user, Kind.TEXT, "Whom to log in as; empty: as whom the URL says.")
    password_file: str = _key(_L.password_file, Kind.PATH, "File whose first line is the password.")
    password_env: str = _key(_L.password_env, Kind.TEXT, "Environment variable of the broker that has the password.")
    mechanism: str = _key(_L.mechanism, Kind.TEXT, "SASL mechanism; empty: the best that both sides have.")
    ca: str = _key(_L.ca, Kind.PATH, "Whom to trust with TLS (PEM); empty: whom the system trusts.")
    certificate: str = _key(_L.certificate, Kind.PATH, "Our certificate for TLS (PEM), where one is asked for.")
    key: str = _key(_L.key, Kind.PATH, "Its private key; empty: it is in the certificate's file.")
    verify: bool = _key(_L.verify, Kind.BOOLEAN, "Check the other side's certificate.")
    server_name: str = _key(_L.server_name, Kind.TEXT, "The name in its certificate; empty: the URL's host.")
    heartbeat: int = _key(_L.heartbeat, Kind.SECONDS, "Interval of heartbeats; a broker that is silent for two of them "
                         "is lost. 0 for none.", maximum=65535)
    timeout: int = _key(_L.timeout, Kind.SECONDS, "How long to wait for a connection, and for an answer.", minimum=1)
    reconnect_min: int = _key(_L.reconnect_min, Kind.SECONDS, "How long to wait before connecting again, at first; it "
                             "doubles from try to try, and is shortened by chance.", minimum=1)
    reconnect_max: int = _key(_L.reconnect_max, Kind.SECONDS, "How long at most.", minimum=1)
    client: str = _key(_L.client, Kind.TEXT, "Container or client id there; empty: made of this broker's id and the "
                      "link's name.")
    mqtt_version: str = _key(_L.mqtt_version, Kind.TEXT, "Version of MQTT.", choices=("5.0", "3.1.1"))
    session_expiry: int = _key(_L.session_expiry, Kind.SECONDS, "How long an MQTT 5.0 broker keeps what came for us "
                              "while we are away.")


@dataclass(frozen=True)
class Bridge(BridgeSettings):
    """Messages that are moved over a link, in one direction."""

    name: str = _key(_B.name, Kind.TEXT, "What operators call it; names are not used twice.")
    link: str = _key(_B.link, Kind.TEXT, "The link that it goes over.")
    direction: str = _key(_B.direction, Kind.TEXT, "`pull` moves messages from there to here, `push` from here to "
                          "there.", choices=(PULL, PUSH))
    virtual_host: str = _key(_B.virtual_host, Kind.TEXT, "Ours; empty: the first.")
    local_queue: str = _key(_B.local_queue, Kind.TEXT, "Queue of ours.")
    local_exchange: str = _key(_B.local_exchange, Kind.TEXT, "Exchange of ours.")
    remote_queue: str = _key(_B.remote_queue, Kind.TEXT, "Queue there. Given beside an exchange that messages are "
                             "taken from (here or there), it is made there, and keeps them while the link is down.")
    remote_exchange: str = _key(_B.remote_exchange, Kind.TEXT, "Exchange there; of MQTT, `amq.topic`.")
    keys: tuple[str, ...] = _key(_B.keys, Kind.TEXTS, "Routing keys, or patterns of topic exchanges, that are taken "
                                 "from the exchange.")
    key: str = _key(_B.key, Kind.TEXT, "Routing key that all are sent with; empty: each message's own.")
    selector: str = _key(_B.selector, Kind.TEXT, "JMS selector of what is taken.")
    prefetch: int = _key(_B.prefetch, Kind.NUMBER, "Messages that may be on their way at a time.", minimum=1,
                         maximum=65535)
    rate: int = _key(_B.rate, Kind.NUMBER, "Messages a second; 0 for as many as there are.")
    acknowledge: str = _key(_B.acknowledge, Kind.TEXT, "What is to be true after a crash or a broken link.",
                            choices=(AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE))
    federation: bool = _key(_B.federation, Kind.BOOLEAN, "With `pull` from a remote exchange to a local one: take "
                            "what the local one has bindings for, as these come and go.")
    federation_hops: int = _key(_B.federation_hops, Kind.NUMBER, "Brokers that a binding may have come through when a "
                                "federation passes it on; 1: only bindings that are made here.", minimum=1, maximum=255)
    hops: int = _key(_B.hops, Kind.NUMBER, "Brokers that a message may have come through; one that came through "
                     "more is dropped.", minimum=1, maximum=255)
    trace: bool = _key(_B.trace, Kind.BOOLEAN, "Note in each message (`x-dragoman-trace`) where it has been, and "
                       "drop it when it comes round.")
    window: int = _key(_B.window, Kind.NUMBER, "With `exactly-once`: messages that are remembered, to know them "
                       "again.", minimum=1, maximum=10_000_000)
    rules: tuple[dict[str, Any], ...] = _key(_B.rules, Kind.TABLES, "What to change in each message: docs/gateway.md.")
    reply_to: str = _key(_B.reply_to, Kind.TEXT, "With `push`: the address there that answers to requests are to come "
                         "to; a bridge with `replies` on the same link brings them back.")
    reply_seconds: int = _key(_B.reply_seconds, Kind.SECONDS, "How long a request may wait for its answer.", minimum=1)
    replies: bool = _key(_B.replies, Kind.BOOLEAN, "With `pull`: what comes are answers to requests, which go to the "
                         "addresses here that the requests named.")
    arguments: tuple[tuple[str, Any], ...] = _key(_B.arguments, Kind.TABLE, "Arguments of the queue that is made where "
                                                  "messages are taken from an exchange.")
    on_refused: str = _key(_B.on_refused, Kind.TEXT, "What becomes of a message that the other side will never take "
                           "(too large, nowhere to go): `reject` it at its source, which drops it or makes it a dead "
                           "letter; `stop`: move nothing more and try it again, from minutes to an hour later; "
                           "`dead-letter`: reject it where it is kept as a dead letter, otherwise stop.",
                           choices=(DEAD_LETTER, REJECT_ANYWAY, STOP))
    strict_order: bool = _key(_B.strict_order, Kind.BOOLEAN, "Send one message at a time. Otherwise those that are on "
                              "their way overtake one that the other side refuses for now.")
    paused: bool = _key(_B.paused, Kind.BOOLEAN, "Do not move anything until it is resumed.")


@dataclass(frozen=True)
class GatewaySettings:
    """What links may use that are made while the broker runs."""

    files: str = _key("", Kind.PATH, "Folder of passwords and certificates that such links may name; empty: none.")


ENVIRONMENT = "DRAGOMAN_LINK_"
"""How the environment variables begin that they may name."""

LINK = "link"
BRIDGE = "bridge"
GATEWAY_SECTIONS: dict[str, type] = {LINK: Link, BRIDGE: Bridge}
"""Sections that there may be any number of, written [[link]] and [[bridge]]."""


def gateway_problems(links: Sequence[LinkSettings], bridges: Sequence[BridgeSettings]) -> list[str]:
    """What is wrong with links and bridges whose keys are each right."""
    found = []
    for kind, names in (("link", [each.name for each in links]), ("bridge", [each.name for each in bridges])):
        found += [f"{kind}[{at}].name is missing" for at, name in enumerate(names) if not name]
        found += [f"{kind}[{at}].name is that of another, {name}" for at, name in enumerate(names)
                  if name in names[:at]]
    for link in links:
        found += [f"link {link.name}: {problem}" for problem in link_problems(link)]
    for bridge in bridges:
        found += [f"bridge {bridge.name}: {problem}" for problem in bridge_problems(bridge)]
        if bridge.link not in [link.name for link in links]:
            found.append(f'bridge {bridge.name}: link is "{bridge.link}", which is no link')
    return found


def trespasses(link: LinkSettings, files: str) -> list[str]:
    """What a link names that one who does not write the configuration may not have the broker read."""
    folder = os.path.realpath(files)
    found = [f"{name} must be within the folder gateway.files of the broker's configuration"
             for name in ("password_file", "ca", "certificate", "key") if getattr(link, name)
             and not (files and os.path.realpath(getattr(link, name)).startswith(folder + os.sep))]
    if link.password_env and not link.password_env.startswith(ENVIRONMENT):
        found.append(f"password_env must begin with {ENVIRONMENT}")
    return found


def link_problems(link: LinkSettings) -> list[str]:
    found = []
    for url in (link.url, *link.failover):
        try:
            parts = urlsplit(url)
            fits = parts.scheme in PORTS and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            fits = False
        if not fits:
            found.append(f"{shown(url)} is no URL; it must be one as amqp://host:5672/virtual-host, with amqp, amqps, "
                         "mqtt or mqtts")
        elif parts.password is not None:
            found.append(f"the URL {shown(url)} has a password in it; put that in a file or the environment, and "
                         "name it with password_file or password_env")
        elif parts.scheme.startswith("mqtt") != (link.dialect_number() == DIALECTS["mqtt"]):
            found.append(f"the URL {shown(url)} does not go with the dialect {link.dialect}")
    if link.password_file and link.password_env:
        found.append("password_file and password_env are both set")
    if (link.password_file or link.password_env) and not link.user:
        found.append("there is a password, but no user")
    if link.key and not link.certificate:
        found.append("key is set, but certificate is not")
    return found


def bridge_problems(bridge: BridgeSettings) -> list[str]:
    found = []
    taken, sent = bridge.taken(), bridge.sent()
    side, other = ("remote", "local") if bridge.direction == PULL else ("local", "remote")
    if not taken.queue and not taken.exchange:
        found.append(f"{side}_queue or {side}_exchange must say where messages are taken from")
    if bridge.replies:
        if bridge.direction != PULL or sent.queue or sent.exchange:
            found.append("replies is a pull that is given neither local_queue nor local_exchange")
    elif bool(sent.queue) == bool(sent.exchange):
        found.append(f"one of {other}_queue and {other}_exchange must say where messages are sent to")
    if bridge.keys and not taken.exchange:
        found.append(f"keys are those that are taken from an exchange, and {side}_exchange is not set")
    if bridge.federation and (bridge.direction != PULL or not taken.exchange or not sent.exchange or bridge.keys):
        found.append("federation is a pull from remote_exchange to local_exchange, without keys")
    if bridge.reply_to and bridge.direction != PUSH:
        found.append("reply_to is for a push")
    try:
        read_rules(bridge.rules)
    except RuleError as error:
        found.append(str(error))
    if bridge.selector:
        try:
            Selector(bridge.selector)
        except SelectorError as error:
            found.append(f"selector: {error}")
    return found
