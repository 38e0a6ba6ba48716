"""The configuration: what can be set, and how a TOML file becomes a `Config`.

Every key is declared once, as a field of one of the frozen dataclasses below: its type, default, kind (which says what
a file may hold) and help. Reading, checking, `dragoman config show` and docs/configuration.md all come from that
(the latter two in dragoman/config_text.py).

Without a file the defaults hold. Sizes are bytes, durations seconds; a file may write them as "64 MiB" or "2 min".
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from broker.security.addresses import written
from dragoman.config_gateway import (
    GATEWAY_SECTIONS,
    Bridge,
    GatewaySettings,
    Link,
    bridge_problems,
    gateway_problems,
    link_problems,
    trespasses,
)
from dragoman.config_keys import Key, Kind, keys
from dragoman.config_keys import key as _key
from dragoman.config_limits import LimitFor, Limits, limit_problems
from dragoman.config_providers import FILE, PROVIDER_KINDS, FileUsers, ProviderSettings, provider_problems
from dragoman.config_security import MECHANISMS, Access, Authentication
from dragoman.config_synonyms import translate
from dragoman.config_tls import Certificate, Tls, tls_problems


@dataclass(frozen=True, slots=True)
class Listener:
    """Where clients may connect."""

    host: str = _key("127.0.0.1", Kind.TEXT, "Address or name to listen on; `0.0.0.0` or `::` for all.", restart=True)
    port: int = _key(5672, Kind.NUMBER, "Port to listen on; 0 takes any that is free.", maximum=65535, restart=True)
    tls: str = _key("detect", Kind.TEXT, "Whether clients use TLS here. `detect`: both kinds on the same port, when "
                    "`tls.certificate` is set.", choices=("detect", "always", "never"))
    client_certificates: str = _key("auto", Kind.TEXT, "Whether a client shows a certificate. `none`: it is not asked "
                                    "for one; `want`: it may, and then it must be a valid one; `need`: it must, so "
                                    "that clients without TLS are refused here as well. `auto`: `need` if there is a "
                                    "`client_ca`, else `none`.", choices=("auto", "none", "want", "need"))
    client_ca: str = _key("", Kind.PATH, "Issuers of client certificates (PEM). Empty: those of `tls.client_ca`.")
    anonymous: bool = _key(False, Kind.BOOLEAN, "Let clients in without a name and password (SASL ANONYMOUS).")
    mechanisms: tuple[str, ...] = _key((), Kind.TEXTS, "SASL mechanisms here, instead of those of "
                                       "`authentication.mechanisms`.", choices=MECHANISMS)
    clear_passwords: bool = _key(False, Kind.BOOLEAN, "Let clients that do not use TLS send passwords and tokens from "
                                 "other machines, too: whoever is on the way can read them.")
    providers: tuple[str, ...] = _key((), Kind.TEXTS, "Names of the providers that are asked who may log in, in this "
                                      "order. Empty: all, `file` (what `[authentication]` says) first, then those of "
                                      "`[[providers]]` in their order.")

    def name(self) -> str:
        """What limits call it."""
        return written(self.host, self.port)


@dataclass(frozen=True, slots=True)
class AutoCreate:
    """What is made of a name that a client of AMQP 1.0 uses and nobody has declared."""

    pattern: str = _key("*", Kind.TEXT, "Names that this is for; `*` and `?` stand for what they do in file names.")
    kind: str = _key("queue", Kind.TEXT, "A queue, or which kind of exchange.",
                     choices=("queue", "direct", "fanout", "topic", "headers"))
    durable: bool = _key(True, Kind.BOOLEAN, "Whether it survives the broker.")
    arguments: tuple[tuple[str, Any], ...] = _key((), Kind.TABLE, "Arguments of its declaration, such as "
                                                  "`x-max-length`.")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where durable messages are kept."""

    kind: str = _key("lmdb", Kind.TEXT, "`lmdb` keeps messages on disk; `memory` forgets all when the broker stops.",
                     choices=("lmdb", "memory"), restart=True)
    path: str = _key("dragoman-data", Kind.PATH, "Folder of the LMDB store, made if need be.", minimum=1, restart=True)
    map_size: int = _key(256 << 20, Kind.SIZE, "Size to begin with of the store's memory map. It grows by itself.",
                         minimum=1 << 20, restart=True)


@dataclass(frozen=True, slots=True)
class Amqp091:
    """What is proposed to clients of AMQP 0-9-1, 0-9 and 0-8."""

    frame_max: int = _key(131072, Kind.SIZE, "The largest frame.", minimum=4096, maximum=(1 << 31) - 1,
                          restart=True)
    channel_max: int = _key(65535, Kind.NUMBER, "Channels of one connection.", minimum=1, maximum=65535, restart=True)
    heartbeat: int = _key(60, Kind.SECONDS, "Interval of heartbeats; a client that is silent for two of them is gone. "
                          "0 for none.", maximum=65535, restart=True)


@dataclass(frozen=True, slots=True)
class Amqp010:
    """What is proposed to clients of AMQP 0-10."""

    frame_max: int = _key(65535, Kind.SIZE, "The largest frame.", minimum=4096, maximum=65535, restart=True)
    channel_max: int = _key(32767, Kind.NUMBER, "The highest channel number: one less than a connection's sessions.",
                            maximum=65535, restart=True)
    heartbeat: int = _key(120, Kind.SECONDS, "The longest interval of heartbeats that a client may choose; one that is "
                          "silent for two of them is gone.", maximum=65535, restart=True)
    session_seconds: int = _key(600, Kind.SECONDS, "The longest time that a session is kept for a client whose "
                                "connection broke, if it asks for that.", restart=True)
    xa_seconds: int = _key(60, Kind.SECONDS, "A distributed transaction that is not prepared in this time is "
                           "rolled back, unless its client sets another. 0 for no time-out.", restart=True)
    xa_max_seconds: int = _key(0, Kind.SECONDS, "The longest such time that a client may set. 0 for any.",
                               restart=True)


@dataclass(frozen=True, slots=True)
class Amqp10:
    """What is proposed to clients of AMQP 1.0."""

    frame_max: int = _key(131072, Kind.SIZE, "The largest frame.", minimum=512, maximum=(1 << 31) - 1, restart=True)
    channel_max: int = _key(2047, Kind.NUMBER, "The highest channel number: one less than a connection's sessions.",
                            maximum=65535, restart=True)
    handle_max: int = _key(8191, Kind.NUMBER, "The highest handle: one less than a session's links.",
                           maximum=(1 << 32) - 1, restart=True)
    idle: int = _key(60, Kind.SECONDS, "A client that is silent for twice as long is gone. 0 for no time-out.",
                     maximum=65535, restart=True)
    link_credit: int = _key(1000, Kind.NUMBER, "Messages that a client may send on a link before they are settled.",
                            minimum=1, maximum=(1 << 31) - 1, restart=True)
    transaction_seconds: int = _key(0, Kind.SECONDS, "A transaction that is open for longer is rolled back. 0 for no "
                                    "time-out.", restart=True)


@dataclass(frozen=True, slots=True)
class Mqtt:
    """What clients of MQTT get. They may connect to every listener; 1883 and 8883 are the usual ports."""

    virtual_host: str = _key("", Kind.TEXT, "The virtual host of clients whose user name does not begin with that of "
                             "one and a `:`. Empty: the first of `virtual_hosts`.", restart=True)
    packet_max: int = _key((1 << 28) + 4, Kind.SIZE, "The largest packet.", minimum=1024, maximum=(1 << 28) + 4,
                           restart=True)
    receive_max: int = _key(1000, Kind.NUMBER, "Messages of QoS 1 and 2 that a client of MQTT 5 may send before they "
                            "are acknowledged.", minimum=1, maximum=65535, restart=True)
    topic_alias_max: int = _key(64, Kind.NUMBER, "Topic aliases that a client may use, and that we use towards one "
                                "that allows as many. 0 for none.", maximum=65535, restart=True)
    keep_alive_max: int = _key(0, Kind.SECONDS, "The longest keep alive of clients of MQTT 5; one that is silent for "
                               "one and a half times its keep alive is gone. 0 for any, none too.", maximum=65535,
                               restart=True)
    session_seconds: int = _key(0, Kind.SECONDS, "The longest time that the session of a client that is not connected "
                                "is kept. 0 for as long as the client wants.", restart=True)
    session_messages: int = _key(0, Kind.NUMBER, "Messages that wait for a client; of more, the oldest are dropped. 0 "
                                 "for any number.", restart=True)
    sys_interval: int = _key(10, Kind.SECONDS, "How often the figures below `$SYS/broker` are counted and published. 0 "
                             "for never.", maximum=65535, restart=True)
    response_topics: str = _key("response", Kind.TEXT, "The topic that a client's own topics for responses are "
                                "below, which it is told when it asks for response information.", restart=True)


@dataclass(frozen=True, slots=True)
class Management:
    """What operators' tools find."""

    qmf: bool = _key(True, Kind.BOOLEAN, "Answer the tools of Qpid (qpid-config, qpid-stat, ...) and `dragoman queue`, "
                     "`stat` and the like, in every virtual host, as far as access rules allow.", restart=True)
    interval: int = _key(10, Kind.SECONDS, "How often consoles that listen are told of what there is.", minimum=1,
                         maximum=65535, restart=True)


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged, and where."""

    level: str = _key("info", Kind.TEXT, "The least that is logged.", choices=("debug", "info", "warning", "error"))
    format: str = _key("auto", Kind.TEXT, "`auto` is text at a terminal and JSON elsewhere.",
                       choices=("auto", "text", "json"))
    file: str = _key("", Kind.PATH, "File to append to, opened anew on SIGHUP. Empty: standard error.")


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. Frozen: a reload makes a new one."""

    listeners: tuple[Listener, ...] = (Listener(),)
    certificates: tuple[Certificate, ...] = ()
    auto_create: tuple[AutoCreate, ...] = ()
    limit: tuple[LimitFor, ...] = ()
    link: tuple[Link, ...] = ()
    bridge: tuple[Bridge, ...] = ()
    providers: tuple[ProviderSettings, ...] = ()
    virtual_hosts: tuple[str, ...] = _key(("/",), Kind.TEXTS, "Virtual hosts that exist; the first is where a client "
                                          "gets to that names none.", restart=True)
    shutdown_seconds: int = _key(10, Kind.SECONDS, "How long a stop waits for clients to take what is being written "
                                 "to them.")
    tls: Tls = Tls()
    store: StoreSettings = StoreSettings()
    authentication: Authentication = Authentication()
    access: Access = Access()
    limits: Limits = Limits()
    amqp091: Amqp091 = Amqp091()
    amqp010: Amqp010 = Amqp010()
    amqp10: Amqp10 = Amqp10()
    mqtt: Mqtt = Mqtt()
    management: Management = Management()
    gateway: GatewaySettings = GatewaySettings()
    log: Log = Log()
    notes: tuple[str, ...] = ()
    """What is worth a line in the log, such as keys that are called otherwise here."""


SECTIONS: dict[str, type] = {"tls": Tls, "store": StoreSettings, "authentication": Authentication,
                             "access": Access, "limits": Limits, "amqp091": Amqp091, "amqp010": Amqp010,
                             "amqp10": Amqp10, "mqtt": Mqtt, "management": Management,
                             "gateway": GatewaySettings, "log": Log}
LISTENERS = "listeners"
PROVIDERS = "providers"
AUTO_CREATE = "auto_create"
CERTIFICATES = "certificates"
LIMIT = "limit"
LISTS: dict[str, type] = {LISTENERS: Listener, CERTIFICATES: Certificate, AUTO_CREATE: AutoCreate, LIMIT: LimitFor,
                          **GATEWAY_SECTIONS}
"""Sections that there may be any number of."""


class ConfigError(Exception):
    """The configuration cannot be used.

    `problems` has a line for each, naming the file and the key and saying what is allowed.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(path: str | os.PathLike[str] | None) -> Config:
    """Read a file; without one, the defaults. Raises ConfigError with everything that is wrong with it.

    A relative path in a file is relative to the file's folder.
    """
    if path is None:
        return Config()
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError([f"{os.fspath(path)}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{os.fspath(path)}: is not UTF-8 text, at byte {error.start}"]) from None
    return parse(text, os.fspath(path), os.path.dirname(os.path.abspath(path)))


def parse(text: str, name: str = "configuration", folder: str = "") -> Config:
    """Make a Config of TOML text; `name` is how problems call it, `folder` what relative paths in it are relative to.

    Raises ConfigError with everything that is wrong with it.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name}: is not TOML: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{name}: is nested too deeply"]) from None
    reader = _Reader(folder)
    config = reader.config(document)
    if not reader.problems:
        reader.problems.extend(_contradictions(config))
    if reader.problems:
        raise ConfigError([f"{name}: {problem}" for problem in reader.problems])
    return config


def gateway_part(kind: str, table: dict[str, Any], files: str) -> Link | Bridge:
    """A link or a bridge that is made while the broker runs, of what would be in the file. Paths are relative to
    `files` (`gateway.files`). Raises: ConfigError."""
    reader = _Reader(files)
    of = GATEWAY_SECTIONS[kind]
    made: Link | Bridge = of(**reader.values(of, table, ""))
    problems = reader.problems
    if not problems:
        problems = bridge_problems(made) if isinstance(made, Bridge) else [*link_problems(made),
                                                                            *trespasses(made, files)]
    if problems:
        raise ConfigError([f"{kind} {table.get('name', '')}: {problem}" for problem in problems])
    return made


def needing_restart(old: Config, new: Config) -> list[str]:
    """The keys, as `section.key`, that differ between the two and take effect only at the next start."""
    found = ["listeners"] if _listeners_after(old, new) != new.listeners else []
    parts: list[tuple[str, type, Any, Any]] = [("", Config, old, new)]
    parts += [(f"{name}.", of, getattr(old, name), getattr(new, name)) for name, of in SECTIONS.items()]
    for prefix, of, before, after in parts:
        found += [prefix + name for name, key, _ in keys(of)
                  if key.restart and getattr(before, name) != getattr(after, name)]
    return found


def until_restart(old: Config, new: Config) -> Config:
    """What is in force after a change, until the next start."""
    sections = {name: _kept(getattr(old, name), getattr(new, name)) for name in SECTIONS}
    own: Config = _kept(old, new)
    return replace(own, listeners=_listeners_after(old, new), **sections)


def _listeners_after(old: Config, new: Config) -> tuple[Listener, ...]:
    """The listeners after a change that needs no restart: at the places of the old ones."""
    if [(each.host, each.port) for each in old.listeners] != [(each.host, each.port) for each in new.listeners]:
        return old.listeners
    return tuple(_kept(before, after) for before, after in zip(old.listeners, new.listeners, strict=True))


def _kept(before: Any, after: Any) -> Any:
    """A section after a change: with what it was where that needs a restart."""
    kept = {name: getattr(before, name) for name, key, _ in keys(type(before)) if key.restart}
    return replace(after, **kept)


class _Reader:
    """Turns a TOML document into a Config, gathering problems on the way instead of stopping at the first."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.problems: list[str] = []

    def config(self, document: dict[str, Any]) -> Config:
        known = {name: key for name, key, _ in keys(Config)}
        notes, problems = translate(document, {"": {*known, *LISTS, PROVIDERS}, **{
            section: {name for name, _, _ in keys(of)} for section, of in SECTIONS.items()}})
        self.problems += problems
        for name in document:
            if name not in known and name not in SECTIONS and name not in LISTS and name != PROVIDERS:
                self.problems.append(_unknown(name, "", [*known, *SECTIONS, *LISTS, PROVIDERS]))
        values = self.values(Config, {name: document[name] for name in known if name in document}, "")
        for name, of in SECTIONS.items():
            table = document.get(name, {})
            if isinstance(table, dict):
                values[name] = of(**self.values(of, table, name + "."))
            else:
                self.problems.append(f"{name} must be a table, written as [{name}]")
        for name, of in LISTS.items():
            if name in document and name != LISTENERS:
                values[name] = tuple(of(**self.values(of, each, f"{name}[{index}]."))
                                     for index, each in enumerate(self.tables(name, document[name])))
        if PROVIDERS in document:
            values[PROVIDERS] = tuple(self.provider(each, f"{PROVIDERS}[{index}].")
                                      for index, each in enumerate(self.tables(PROVIDERS, document[PROVIDERS])))
        if LISTENERS in document:
            values[LISTENERS] = self.listeners(document[LISTENERS])
        elif "tls" in values and values["tls"].certificate:
            values[LISTENERS] = (Listener(), Listener(port=5671, tls="always"))
        return Config(**values, notes=tuple(notes))

    def listeners(self, given: Any) -> tuple[Listener, ...]:
        if given == []:
            self.problems.append("listeners is empty: nobody could connect")
        return tuple(Listener(**self.values(Listener, each, f"listeners[{index}]."))
                     for index, each in enumerate(self.tables(LISTENERS, given)))

    def provider(self, table: dict[str, Any], prefix: str) -> ProviderSettings:
        kind = table.get("kind", "")
        of = PROVIDER_KINDS.get(kind) if isinstance(kind, str) else None
        if of is None:
            self.problems.append(f"{prefix}kind is {kind!r}; it can be {_or(tuple(PROVIDER_KINDS))}")
            return FileUsers()
        return of(**self.values(of, table, prefix))

    def tables(self, name: str, given: Any) -> list[dict[str, Any]]:
        if isinstance(given, list) and all(isinstance(each, dict) for each in given):
            return given
        self.problems.append(f"{name} must be tables, each beginning with [[{name}]]")
        return []

    def values(self, of: type, table: dict[str, Any], prefix: str) -> dict[str, Any]:
        """The values of a table's keys that are right."""
        declared = {name: key for name, key, _ in keys(of)}
        found: dict[str, Any] = {}
        for name, given in table.items():
            if name not in declared:
                self.problems.append(_unknown(name, prefix, list(declared)))
                continue
            try:
                found[name] = self.value(declared[name], given)
            except ValueError as error:
                self.problems.append(f"{prefix}{name} {error}")
        return found

    def value(self, key: Key, given: Any) -> Any:
        """What a key is set to. Raises ValueError, with text to follow the key's name."""
        if key.kind is Kind.BOOLEAN:
            if not isinstance(given, bool):
                raise ValueError(f"is {given!r}; it can be true or false")
            return given
        if key.kind is Kind.TEXTS:
            return _texts(key, given)
        if key.kind is Kind.PATHS:
            return tuple(os.path.join(self.folder, each) for each in _texts(key, given))
        if key.kind is Kind.TABLE:
            if not isinstance(given, dict) or not all(isinstance(each, (str, int, float)) for each in given.values()):
                raise ValueError(f"is {given!r}; it must be a table of texts, numbers, true and false")
            return tuple(given.items())
        if key.kind is Kind.PATH_TABLE:
            if not isinstance(given, dict) or not all(isinstance(each, str) and each for each in given.values()):
                raise ValueError(f"is {given!r}; it must be a table of texts")
            return tuple((name, os.path.join(self.folder, path)) for name, path in given.items())
        if key.kind is Kind.TABLES:
            if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
                raise ValueError(f"is {given!r}; it must be a list of tables")
            return tuple(given)
        if key.kind in (Kind.TEXT, Kind.PATH):
            if not isinstance(given, str):
                raise ValueError(f"is {given!r}; it must be text in quotes")
            if key.choices and given not in key.choices:
                raise ValueError(f'is "{given}"; it can be {_or(key.choices)}{_meant(given, key.choices)}')
            if "\0" in given:
                raise ValueError("has a NUL character in it")
            if len(given) < key.minimum:
                raise ValueError("is empty")
            return os.path.join(self.folder, given) if key.kind is Kind.PATH and given else given
        return _number(key, given)


def _texts(key: Key, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError(f"is {given!r}; it must be a list of texts")
    for each in given:
        if key.choices and each not in key.choices:
            raise ValueError(f'has "{each}" in it; it can have {_or(key.choices)}{_meant(each, key.choices)}')
    if len(set(given)) != len(given):
        raise ValueError("names something twice")
    return tuple(given)


_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_DURATIONS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
_QUANTITY = re.compile(r"(\d{1,18}) ?([A-Za-z]*)", re.ASCII)
_EXAMPLES = {Kind.SIZE: 'a number of bytes or text as "64 MiB" (kB, MB, GB, TB, KiB, MiB, GiB, TiB)',
             Kind.SECONDS: 'a number of seconds or text as "10 s" (s, min, h, d)',
             Kind.NUMBER: "a whole number"}


def _number(key: Key, given: Any) -> int:
    value = given
    if isinstance(given, str) and key.kind is not Kind.NUMBER:
        match = _QUANTITY.fullmatch(given.strip())
        unit = match and (_SIZES.get(match[2].upper()) if key.kind is Kind.SIZE else _DURATIONS.get(match[2]))
        value = int(match[1]) * unit if match and unit else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"is {given!r}; it must be {_EXAMPLES[key.kind]}")
    if value < key.minimum:
        raise ValueError(f"is {given!r}; it must be at least {key.minimum}")
    if value > (key.maximum or 1 << 62):
        raise ValueError(f"is {given!r}; it can be at most {key.maximum or 1 << 62}")
    return value


def _contradictions(config: Config) -> list[str]:
    """What is wrong between keys that are each right."""
    found = []
    found += tls_problems(config.tls, config.certificates, config.listeners)
    places = [(listener.host, listener.port) for listener in config.listeners]
    found += [f"listeners[{index}] has the host and port of another" for index, place in enumerate(places)
              if place[1] and place in places[:index]]
    if not config.virtual_hosts:
        found.append("virtual_hosts is empty: nobody could connect")
    found += [f'virtual_hosts has "{name}" in it; a name has 1 to 255 bytes' for name in config.virtual_hosts
              if not 1 <= len(name.encode("utf-8", "surrogatepass")) <= 255]
    if config.mqtt.virtual_host and config.mqtt.virtual_host not in config.virtual_hosts:
        found.append(f'mqtt.virtual_host is "{config.mqtt.virtual_host}", which is not one of virtual_hosts')
    if not config.authentication.mechanisms and not all(listener.anonymous or listener.mechanisms
                                                        for listener in config.listeners):
        found.append("authentication.mechanisms is empty, and not all listeners are anonymous: nobody could log in")
    found += [f'access.host_acl_files has "{name}" in it, which is not one of virtual_hosts'
              for name, _ in config.access.host_acl_files if name not in config.virtual_hosts]
    found += provider_problems(config.providers)
    known = [FILE, *(provider.name for provider in config.providers)]
    found += [f'listeners[{index}].providers has "{name}" in it, which is none of providers'
              for index, listener in enumerate(config.listeners) for name in listener.providers if name not in known]
    found += limit_problems(config.limit, {listener.name() for listener in config.listeners}, config.virtual_hosts)
    found += gateway_problems(config.link, config.bridge)
    found += [f'bridge {bridge.name}: virtual_host is "{bridge.virtual_host}", which is none of virtual_hosts'
              for bridge in config.bridge if bridge.virtual_host not in ("", *config.virtual_hosts)]
    return found


def _unknown(name: str, prefix: str, known: list[str]) -> str:
    meant = difflib.get_close_matches(name, known, 1, 0.6)
    guess = f"did you mean {prefix}{meant[0]}?" if meant else f"it can be {_or(tuple(known), '')}"
    return f"{prefix}{name} is not a key; {guess}"


def _meant(given: str, choices: tuple[str, ...]) -> str:
    meant = difflib.get_close_matches(given, choices, 1, 0.6)
    return f' (did you mean "{meant[0]}"?)' if meant else ""


def _or(choices: tuple[str, ...], quote: str = '"') -> str:
    quoted = [f"{quote}{choice}{quote}" for choice in choices]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
