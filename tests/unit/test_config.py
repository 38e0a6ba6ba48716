"""dragoman.config and what is made of its declarations."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman import config
from dragoman.config import SECTIONS, Config, ConfigError, Listener, Tls, load, parse
from dragoman.config_keys import Key, Kind, keys
from dragoman.config_providers import FileUsers
from dragoman.config_text import MARK, reference, show, written
from dragoman.config_tls import Certificate

ROOT = Path(__file__).resolve().parents[2]


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text, "d.toml")
    assert str(raised.value) == "\n".join(raised.value.problems)
    return raised.value.problems


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None) == parse("") == Config()
    assert Config().listeners == (Listener("127.0.0.1", 5672, tls="detect", anonymous=False),)


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "d.toml"
    file.write_text("""
        virtual_hosts = ["/", "shop"]
        shutdown_seconds = "1 min"
        [[listeners]]
        host = "::"
        port = 0
        anonymous = true
        [limits]
        message_size = "2 MiB"
        queue_memory_bytes = 1000
        [authentication]
        mechanisms = ["AMQPLAIN"]
        """)
    made = load(file)
    assert made.virtual_hosts == ("/", "shop")
    assert made.shutdown_seconds == 60
    assert made.listeners == (Listener("::", 0, tls="detect", anonymous=True),)
    assert (made.limits.message_size, made.limits.queue_memory_bytes) == (2 << 20, 1000)
    assert made.authentication.mechanisms == ("AMQPLAIN",)
    assert (made.limits.memory, made.log, made.store) == (0, Config().log, Config().store)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('[store]\npath = "data"\n[log]\nfile = "/var/log/d.log"\n')
    made = load(tmp_path / "d.toml")
    assert made.store.path == str(tmp_path / "data")
    assert made.log.file == "/var/log/d.log"
    assert made.tls.certificate == ""


def test_tls_brings_a_second_listener_unless_listeners_are_named() -> None:
    both = parse('[tls]\ncertificate = "c.pem"').listeners
    assert both == (Listener(), Listener(port=5671, tls="always"))
    assert parse('[tls]\ncertificate = "c.pem"\n[[listeners]]\nport = 1').listeners == (Listener(port=1),)
    assert parse('[tls]\ncertificate = "c.pem"').tls == Tls("c.pem")


@pytest.mark.parametrize(("text", "bytes_"), [
    ("5", 5), ("5 B", 5), ("5KiB", 5120), ("5 kB", 5000), ("64 MiB", 64 << 20), ("1 GB", 10**9), ("2 TiB", 2 << 40)])
def test_sizes(text: str, bytes_: int) -> None:
    assert parse(f'[limits]\nmemory = "{text}"').limits.memory == bytes_


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), ("5 s", 5), ("2 min", 120), ("1h", 3600), ("1 d", 86400)])
def test_durations(text: str, seconds: int) -> None:
    assert parse(f'shutdown_seconds = "{text}"').shutdown_seconds == seconds


@pytest.mark.parametrize(("text", "expected"), [
    ("[limits]\nconections = 5", "limits.conections is not a key; did you mean limits.connections?"),
    ("virtual_host = []", "virtual_host is not a key; did you mean virtual_hosts?"),
    ("[[listeners]]\nprot = 1", "listeners[0].prot is not a key; did you mean listeners[0].port?"),
    ("[store]\nzzz = 1", "store.zzz is not a key; it can be kind, path or map_size"),
    ("[limits]\nmemory = '3 XB'", "limits.memory is '3 XB'; it must be a number of bytes or text as \"64 MiB\" "
                                  "(kB, MB, GB, TB, KiB, MiB, GiB, TiB)"),
    ("[limits]\nhandshake_seconds = '10 ms'", "limits.handshake_seconds is '10 ms'; it must be a number of seconds "
                                              'or text as "10 s" (s, min, h, d)'),
    ("[limits]\nconnections = '5'", "limits.connections is '5'; it must be a whole number"),
    ("[limits]\nconnections = true", "limits.connections is True; it must be a whole number"),
    ("[limits]\nconnections = 0", "limits.connections is 0; it must be at least 1"),
    ("[[listeners]]\nport = 65536", "listeners[0].port is 65536; it can be at most 65535"),
    ("[amqp091]\nframe_max = 100", "amqp091.frame_max is 100; it must be at least 4096"),
    ("[log]\nlevel = 'inf'", 'log.level is "inf"; it can be "debug", "info", "warning" or "error" '
                             '(did you mean "info"?)'),
    ("[authentication]\nmechanisms = ['PLAIM']", 'authentication.mechanisms has "PLAIM" in it; it can have "PLAIN", '
                                                 '"AMQPLAIN", "EXTERNAL", "XOAUTH2", "OAUTHBEARER", "GSSAPI", '
                                                 '"CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256" or '
                                                 '"SCRAM-SHA-512" (did you mean "PLAIN"?)'),
    ("[authentication]\nguest = 1", "authentication.guest is 1; it can be true or false"),
    ("[log]\nfile = 1", "log.file is 1; it must be text in quotes"),
    ('[log]\nfile = "a\\u0000"', "log.file has a NUL character in it"),
    ("virtual_hosts = '/'", "virtual_hosts is '/'; it must be a list of texts"),
    ("virtual_hosts = ['a', 'a']", "virtual_hosts names something twice"),
    ("virtual_hosts = []", "virtual_hosts is empty: nobody could connect"),
    ("virtual_hosts = ['']", 'virtual_hosts has "" in it; a name has 1 to 255 bytes'),
    ("listeners = []", "listeners is empty: nobody could connect"),
    ("listeners = 5", "listeners must be tables, each beginning with [[listeners]]"),
    ("limits = 5", "limits must be a table, written as [limits]"),
    ("[tls]\nkey = 'k'", "tls.key is set, but tls.certificate is not"),
    ("[[listeners]]\ntls = 'always'", 'listeners[0].tls is "always", but tls.certificate is not set'),
    ("[[listeners]]\nclient_ca = 'a'", "listeners[0] asks for client certificates, but tls.certificate is not set"),
    ("[[listeners]]\ntls = 'never'\nclient_certificates = 'want'\n[tls]\ncertificate = 'c'",
     'listeners[0] asks for client certificates, but its tls is "never"'),
    ("[[listeners]]\nclient_certificates = 'need'\n[tls]\ncertificate = 'c'",
     "listeners[0] asks for client certificates, but names no client_ca, nor does tls"),
    ("[[certificates]]\ncertificate = 'c'", "certificates has further ones, but tls.certificate is not set"),
    ("[[certificates]]\n[tls]\ncertificate = 'c'", "certificates[0].certificate is not set"),
    ("[[certificates]]\ncertificate = 'c'\nnames = ['a', 'b.*.c']\n[tls]\ncertificate = 'c'",
     'certificates[0].names has "b.*.c" in it; it can be as "example.com" or "*.example.com"'),
    ("[[listeners]]\n[[listeners]]", "listeners[1] has the host and port of another"),
    ("[authentication]\nmechanisms = []", "authentication.mechanisms is empty, and not all listeners are anonymous: "
                                          "nobody could log in"),
    ("[authentication]\nanonymous_user = ''", "authentication.anonymous_user is empty"),
    ("[store]\npath = ''", "store.path is empty"),
])
def test_what_is_wrong_is_said_with_what_is_allowed(text: str, expected: str) -> None:
    assert problems(text) == [f"d.toml: {expected}"]


def test_all_problems_are_named_at_once() -> None:
    assert len(problems("a = 1\n[log]\nlevel = 1\nformat = 2\n[store]\nmap_size = 1")) == 4


def test_a_file_that_is_not_toml_or_not_there(tmp_path: Path) -> None:
    assert problems("x =")[0].startswith("d.toml: is not TOML: Invalid value")
    with pytest.raises(ConfigError, match="nothere.toml: cannot be read: No such file"):
        load(tmp_path / "nothere.toml")
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match="is not UTF-8 text, at byte 2"):
        load(tmp_path / "latin")
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse("x = " + "[" * 5000)


def test_needing_restart() -> None:
    old = Config()
    new = parse("virtual_hosts = ['a']\n[[listeners]]\nport = 1\n[store]\nkind = 'memory'\n"
                "[log]\nlevel = 'debug'\n[limits]\nmemory = 1")
    assert config.needing_restart(old, new) == ["listeners", "virtual_hosts", "store.kind"]
    assert config.needing_restart(new, new) == []


def test_what_changes_of_a_listener_at_its_place_needs_no_restart() -> None:
    places = "[[listeners]]\nport = 1\n[[listeners]]\nport = 2\n"
    old = parse(places)
    new = parse(places + "client_certificates = 'want'\nclient_ca = 'a'\n[tls]\ncertificate = 'c'")
    assert config.needing_restart(old, new) == []
    assert config.until_restart(old, new).listeners == new.listeners
    moved = parse("[[listeners]]\nport = 1\n[[listeners]]\nport = 3\ntls = 'never'")
    assert config.needing_restart(old, moved) == ["listeners"]
    assert config.until_restart(old, moved).listeners == old.listeners


# What a key may hold, and how it may be written.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def values_of(name: str, key: Key) -> st.SearchStrategy[Any]:
    if key.kind is Kind.BOOLEAN:
        return st.booleans()
    if key.kind is Kind.TEXTS:
        choice = st.sampled_from(key.choices) if key.choices else TEXTS.filter(lambda text: text != "")
        return st.lists(choice, min_size=1, max_size=3, unique=True).map(tuple)
    if key.kind in (Kind.TEXT, Kind.PATH):
        return st.sampled_from(key.choices) if key.choices else TEXTS.filter(lambda text: text != "")
    if key.kind in (Kind.PATHS, Kind.PATH_TABLE):
        return st.just(())
    return st.integers(key.minimum, key.maximum or 1 << 40)


def section_of(of: type) -> st.SearchStrategy[Any]:
    return st.builds(of, **{name: values_of(name, key) for name, key, _ in keys(of)})


def without_contradiction(listener: Listener) -> Listener:
    return replace(listener, client_certificates="none", client_ca="") if listener.tls == "never" else listener


CONFIGS = st.builds(
    Config, listeners=st.lists(section_of(Listener).map(without_contradiction), min_size=1, max_size=3,
                               unique_by=lambda each: each.port).map(tuple),
    virtual_hosts=values_of("virtual_hosts", dict((name, key) for name, key, _ in keys(Config))
                            ["virtual_hosts"]),
    shutdown_seconds=st.integers(0, 1 << 40), **{name: section_of(of) for name, of in SECTIONS.items()}) \
    .map(lambda made: replace(made, mqtt=replace(made.mqtt, virtual_host=made.virtual_hosts[-1]),
                              listeners=tuple(replace(each, providers=("file", "more")) for each in made.listeners),
                              certificates=(Certificate("c.pem", names=("one.example", "*.two.example")),),
                              providers=(FileUsers("more", users_file="users"),)))


@given(CONFIGS)
@settings(max_examples=150)
def test_what_show_writes_reads_as_the_same(made: Config) -> None:
    assert parse(show(made), folder="") == made


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)),
       st.sampled_from([None, *SECTIONS, "listeners", "virtual_hosts"]), st.data())
@settings(max_examples=300)
def test_wrong_documents_only_ever_give_a_config_error(value: Any, name: str | None, data: st.DataObject) -> None:
    of = SECTIONS.get(name or "", Config)
    key = data.draw(st.sampled_from([each for each, _, _ in keys(of)]))
    document = {name or key: value if data.draw(st.booleans()) else {key: value}}
    reader = config._Reader("")
    made = reader.config(document)
    assert isinstance(made, Config)


@given(st.text(max_size=200))
def test_arbitrary_text_only_ever_gives_a_config_error(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        assert error.problems


def test_every_key_says_what_it_is() -> None:
    for of in [Config, Listener, *SECTIONS.values()]:
        assert keys(of)
        for name, key, default in keys(of):
            assert key.help.endswith(".") and len(key.help) > 10, name
            assert isinstance(default, tuple if key.kind in (Kind.TEXTS, Kind.PATHS, Kind.PATH_TABLE)
                              else bool if key.kind is Kind.BOOLEAN
                              else str if key.kind in (Kind.TEXT, Kind.PATH) else int), name


def test_written() -> None:
    assert written(Kind.SIZE, 64 << 20) == '"64 MiB"'
    assert written(Kind.SIZE, 1000) == "1000"
    assert written(Kind.SECONDS, 10) == '"10 s"'
    assert written(Kind.SECONDS, 0) == "0"
    assert written(Kind.TEXT, 'a"\x7f') == '"a\\"\\u007F"'


def test_show_says_what_differs_from_the_defaults() -> None:
    text = show(parse("[log]\nlevel = 'debug'"))
    assert 'level = "debug"  # default: "info"' in text
    assert text.count("# default:") == 1
    assert tomllib.loads(text)["limits"]["connections"] == 65536


def test_the_documentation_is_that_of_the_code() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page.partition(MARK)[2].strip() == reference().strip(), "`make docs` writes it anew"


def test_a_table_of_paths() -> None:
    made = parse('[access]\nhost_acl_files = { "/" = "all.acl" }', folder="/etc")
    assert made.access.host_acl_files == (("/", "/etc/all.acl"),)
    assert parse(show(made), folder="/etc").access == made.access
    for wrong, problem in (('"all.acl"', "must be a table of texts"), ("{ a = 1 }", "must be a table of texts"),
                           ('{ a = "a.acl" }', "not one of virtual_hosts")):
        with pytest.raises(ConfigError, match=problem):
            parse(f"[access]\nhost_acl_files = {wrong}")
