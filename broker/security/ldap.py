"""Users of an LDAP directory (RFC 4511): found by a search and proved by a bind, with their groups.

Either somebody else looks the user up first (a service account, or nobody, where the directory lets anonymous clients
search), and then we bind as what was found; or the name of the bind is made of the user's own name by a template. The
user is then called what the directory calls it: to a directory "Alice" and "alice " are the same, to access rules not.

A directory that does not answer refuses everybody: if it were a directory that does not know them, the next provider
could let in somebody by a name that is the directory's to give.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import re
import secrets
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import ldap3
from ldap3.core.exceptions import LDAPException
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn

from broker.security.identity import Identity, Peer
from broker.security.provider import Answer, Provider, Refusal, Run, is_name, shown
from broker.security.recent import remember
from broker.security.trusting import trusting

logger = logging.getLogger(__name__)

WAITING_LIMIT = 1000  # different logins that are being looked up
GROUPS_LIMIT = 1000  # groups of one user that are asked for

# Results of RFC 4511, section 4.1.9 that mean something to us.
_SUCCESS, _SIZE_LIMIT_EXCEEDED, _NO_SUCH_OBJECT, _INVALID_CREDENTIALS = 0, 4, 32, 49
_UNABLE = frozenset({51, 52})  # busy, unavailable


@dataclass(frozen=True, slots=True)
class LdapSettings:
    """How a directory is asked. {user} and {dn} stand for the user's name and for its entry's, escaped as they must be
    where they are put."""

    urls: tuple[str, ...]  # ldap://host[:port] or ldaps://host[:port], in the order in which they are tried
    start_tls: bool = True  # for ldap://
    ca: str = ""  # PEM file of the issuers of the servers' certificates; "": the system's
    bind_dn: str = ""  # who searches; "": nobody, unless there is a user_dn
    bind_password: bytes = field(default=b"", repr=False)
    user_dn: str = ""  # binds as this, made of {user}, without a search before
    base: str = ""  # where users are searched
    filter: str = "(uid={user})"
    name_attribute: str = "uid"  # what the user is called; "": as the client calls it
    group_base: str = ""  # where groups are searched; "": not at all
    group_filter: str = "(|(member={dn})(uniqueMember={dn})(memberUid={user}))"
    group_attribute: str = "cn"
    member_of: str = ""  # an attribute of the user's entry with the names of groups' entries, such as memberOf
    timeout: int = 5  # seconds, for each step
    retry: int = 5  # seconds for which a server that does not answer is not tried again
    cache_seconds: int = 60  # how long an answer that let somebody in counts; 0: it is asked each time
    cache_users: int = 10_000


class Ldap(Provider):
    """A directory. `run` should have threads of its own: each may wait for a server for some time.

    Raises: ValueError for settings that cannot be used.
    """

    def __init__(self, name: str, settings: LdapSettings, run: Run,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._settings = settings
        self._run = run
        self._clock = clock
        self._servers = Servers(name, settings, clock)
        self._key = os.urandom(32)
        self._known: dict[bytes, tuple[float, Identity]] = {}  # by digest, oldest first: until when, and who
        self._waiting: dict[bytes, list[Answer]] = {}  # by digest: who waits for an answer that is under way
        _check(settings)

    def mechanisms(self) -> set[str]:
        return {"PLAIN", "AMQPLAIN"}

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        if not is_name(name):
            answer(Refusal(f"{shown(name)} is no name for a directory", unknown=True))
            return
        if not password or b"\0" in password:  # an empty one binds as nobody, and succeeds: RFC 4513, section 5.1.2
            answer(Refusal(f"empty password for user {shown(name)}, or one with a NUL in it"))
            return
        encoded = name.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._key, len(encoded).to_bytes(4) + encoded + password, "sha256")
        known = self._known.get(digest)
        if known is not None and known[0] > self._clock():
            answer(known[1])
        elif digest in self._waiting:
            self._waiting[digest].append(answer)
        elif len(self._waiting) >= WAITING_LIMIT:
            answer(Refusal("too many logins wait for the directory", trouble=True))
        else:
            self._waiting[digest] = [answer]
            self._run(lambda: self._look_up(name, password), lambda found: self._found(digest, found))

    def close(self) -> None:
        self._known.clear()

    def _found(self, digest: bytes, found: object | BaseException) -> None:
        outcome: Identity | Refusal
        if isinstance(found, Identity | Refusal):
            outcome = found
        else:
            outcome = Refusal(f"the directory could not be asked: {type(found).__name__}: {found}", trouble=True)
        self._known.pop(digest, None)
        if isinstance(outcome, Identity) and self._settings.cache_seconds:
            until = self._clock() + self._settings.cache_seconds
            remember(self._known, digest, (until, outcome), self._settings.cache_users)
        for tell in self._waiting.pop(digest):
            tell(outcome)

    # What follows runs on a thread.

    def _look_up(self, name: str, password: bytes) -> Identity | Refusal:
        reasons = []
        for server in self._servers.to_try():
            try:
                with _Session(server, self._settings) as session:
                    outcome = session.log_in(name, password)
            except (LDAPException, OSError, _Unable) as error:
                reasons.append(f"{server.url}: {_reason(error)}")
                self._servers.down(server, _reason(error))
                continue
            self._servers.up(server)
            if isinstance(outcome, Refusal):
                return outcome
            user, groups = outcome
            return Identity(user, groups, provider=self.name)
        return Refusal(f"the directory cannot be reached: {'; '.join(reasons) or 'tried a moment ago'}", trouble=True)


class _Unable(Exception):
    """The server answers that it cannot do what it is there for."""


class Server:
    """One of a directory's servers."""

    def __init__(self, url: str, settings: LdapSettings) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ldap", "ldaps") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f'"{url}" is no address of a directory; write ldaps://HOST, ldap://HOST or with :PORT')
        self.url = url
        self.down_until = 0.0  # on the clock, as seconds; 0: it is not down
        secure = parts.scheme == "ldaps"
        self.start_tls = settings.start_tls and not secure
        tls = _Tls(parts.hostname, settings.ca) if secure or self.start_tls else None
        self.server = ldap3.Server(parts.hostname, parts.port or (636 if secure else 389), use_ssl=secure, tls=tls,
                                   connect_timeout=settings.timeout, get_info=ldap3.NONE)


class Servers:
    """Which of a directory's servers answer. Used by several threads."""

    def __init__(self, name: str, settings: LdapSettings, clock: Callable[[], float]) -> None:
        self._name = name
        self._all = [Server(url, settings) for url in settings.urls]
        self._retry = settings.retry
        self._clock = clock
        self._lock = threading.Lock()

    def to_try(self) -> list[Server]:
        """Those that answer, then those that did not, except a moment ago."""
        now = self._clock()
        with self._lock:
            return sorted((each for each in self._all if each.down_until <= now), key=lambda each: each.down_until)

    def down(self, server: Server, reason: str) -> None:
        """It did not answer. Logged when it did before."""
        with self._lock:
            was_up, server.down_until = not server.down_until, self._clock() + self._retry
            left = sum(1 for each in self._all if not each.down_until)
        if was_up:
            logger.error("provider %s: %s cannot be used: %s; %s", self._name, server.url, reason,
                         "others can" if left else "nobody can log in by it for now")

    def up(self, server: Server) -> None:
        """It answered. Logged when it did not before."""
        with self._lock:
            was_down, server.down_until = bool(server.down_until), 0.0
        if was_down:
            logger.info("provider %s: %s can be used again", self._name, server.url)


class _Tls(ldap3.Tls):  # type: ignore[misc]  # the library has no types
    """TLS by Python's own check of names and issuers, in place of the library's."""

    def __init__(self, host: str, ca: str) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._host = host
        self._context = trusting(ca)

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=self._host)


class _Session:
    """One connection to a server, for one login."""

    def __init__(self, server: Server, settings: LdapSettings) -> None:
        self._settings = settings
        self._connection = ldap3.Connection(server.server, receive_timeout=settings.timeout, read_only=True,
                                            auto_referrals=False, check_names=False, client_strategy=ldap3.SYNC)
        try:
            self._connection.open(read_server_info=False)
            if server.start_tls:
                self._connection.start_tls(read_server_info=False)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        """Whatever state it is in; a server that is gone is no news, and the library leaves it its socket then."""
        with contextlib.suppress(LDAPException, OSError):
            self._connection.unbind()
        if self._connection.socket is not None:
            self._connection.socket.close()

    def log_in(self, name: str, password: bytes) -> tuple[str, frozenset[str]] | Refusal:
        """The user's name and groups. Raises LDAPException, OSError and _Unable when the server is not to be used."""
        return self._by_template(name, password) if self._settings.user_dn else self._by_search(name, password)

    def _by_template(self, name: str, password: bytes) -> tuple[str, frozenset[str]] | Refusal:
        """The directory says the same of an unknown user and of a wrong password, so another provider may be asked."""
        settings = self._settings
        bind_name = _filled(settings.user_dn, {"user": escape_rdn(name)})
        result = self._bind(bind_name, password)
        if result != _SUCCESS:
            return self._refused(name, result, unknown=result in (_INVALID_CREDENTIALS, _NO_SUCH_OBJECT))
        if settings.bind_dn and (failed := self._bind_as_service()):
            return failed
        if settings.base:
            found = self._find(name)
        elif settings.name_attribute or settings.member_of:
            found = self._one(name, bind_name, "(objectClass=*)", ldap3.BASE)
        else:
            found = bind_name, {}
        if isinstance(found, Refusal):
            return Refusal(f"{found.reason}, although it has logged in there")
        if "=" in bind_name and _canonical(found[0]) != _canonical(bind_name):  # what is no DN cannot be compared
            return Refusal(f"user {shown(name)} has logged in as another entry than the search finds")
        return self._described(name, *found)

    def _by_search(self, name: str, password: bytes) -> tuple[str, frozenset[str]] | Refusal:
        if failed := self._bind_as_service():
            return failed
        found = self._find(name)
        if isinstance(found, Refusal):
            if found.unknown:  # takes as long as a user who is known
                self._bind(f"cn={secrets.token_hex(8)},{self._settings.base}", password)
            return found
        dn, attributes = found
        result = self._bind(dn, password)
        if result != _SUCCESS:
            return self._refused(name, result, unknown=False)
        if self._settings.group_base and (failed := self._bind_as_service()):
            return failed
        return self._described(name, dn, attributes)

    def _refused(self, name: str, result: int, unknown: bool) -> Refusal:
        if result == _INVALID_CREDENTIALS:
            return Refusal(f"wrong password for user {shown(name)}", unknown)
        return Refusal(f"the directory refuses user {shown(name)}: {self._said()}", unknown)

    def _bind_as_service(self) -> Refusal | None:
        settings = self._settings
        result = self._bind(settings.bind_dn, settings.bind_password)
        if result != _SUCCESS:
            raise _Unable(f"{settings.bind_dn or 'an anonymous client'} cannot log in to search: {self._said()}")
        return None

    def _find(self, name: str) -> tuple[str, dict[str, list[str]]] | Refusal:
        settings = self._settings
        return self._one(name, settings.base, _filled(settings.filter, {"user": escape_filter_chars(name)}),
                         ldap3.SUBTREE)

    def _one(self, name: str, base: str, condition: str, scope: str) -> tuple[str, dict[str, list[str]]] | Refusal:
        """The user's entry: its name and the attributes that we want."""
        wanted = [each for each in (self._settings.name_attribute, self._settings.member_of) if each]
        found = self._search(base, condition, scope, wanted, 2)
        if not found:
            return Refusal(f"the directory has no user {shown(name)}", unknown=True)
        if len(found) > 1:
            return Refusal(f"the directory has several entries for user {shown(name)}")
        return found[0]

    def _described(self, name: str, dn: str, attributes: dict[str, list[str]]) -> tuple[str, frozenset[str]] | Refusal:
        settings = self._settings
        user = name
        if settings.name_attribute:
            names = attributes.get(settings.name_attribute.lower(), [])
            if not names:
                return Refusal(f"the entry of user {shown(name)} has no {settings.name_attribute} to be seen")
            user = next((each for each in names if each.strip().casefold() == name.strip().casefold()), min(names))
        groups = {_first_name(each) for each in attributes.get(settings.member_of.lower(), [])}
        if settings.group_base:
            condition = _filled(settings.group_filter,
                                {"dn": escape_filter_chars(dn), "user": escape_filter_chars(user)})
            wanted = settings.group_attribute
            for _, found in self._search(settings.group_base, condition, ldap3.SUBTREE, [wanted], GROUPS_LIMIT):
                groups.update(found.get(wanted.lower(), []))
        return user, frozenset(groups)

    # The protocol's operations.

    def _bind(self, dn: str, password: bytes) -> int:
        connection = self._connection
        if dn:
            connection.rebind(dn, password, ldap3.SIMPLE, read_server_info=False)
        else:
            connection.rebind(authentication=ldap3.ANONYMOUS, read_server_info=False)
        return self._result()

    def _search(self, base: str, condition: str, scope: str, attributes: list[str],
                most: int) -> list[tuple[str, dict[str, list[str]]]]:
        """Entries: their names, and their attributes by small letters."""
        connection = self._connection
        connection.search(base, condition, scope, attributes=attributes or [ldap3.NO_ATTRIBUTES], size_limit=most,
                          time_limit=self._settings.timeout)
        expected = {_SUCCESS, _SIZE_LIMIT_EXCEEDED} | ({_NO_SUCH_OBJECT} if scope == ldap3.BASE else set())
        if self._result() not in expected:
            raise _Unable(f"it cannot search {base}: {self._said()}")
        return [(entry["dn"], {name.lower(): [_text(value) for value in values]
                               for name, values in entry["raw_attributes"].items()})
                for entry in connection.response or [] if entry["type"] == "searchResEntry"]

    def _result(self) -> int:
        code = int((self._connection.result or {}).get("result", -1))
        if code in _UNABLE or code < 0:
            raise _Unable(self._said())
        return code

    def _said(self) -> str:
        result = self._connection.result or {}
        return " ".join(filter(None, [str(result.get("description", "no answer")), str(result.get("message", ""))]))


def _filled(template: str, values: dict[str, str]) -> str:
    """A template with its words replaced, all at once: what a value contains is replaced no more."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)


def _canonical(dn: str) -> str:
    """The name of an entry in a form to compare. Escapes stay escapes: a comma in a value is no end of it."""
    plain = re.sub(r"\\([0-9A-Fa-f]{2})", lambda each: "\\" + chr(int(each[1], 16)), dn)
    return re.sub(r"\s*(?<!\\)([,+=])\s*", r"\1", plain).casefold()


def _first_name(dn: str) -> str:
    """What a group is called, of the name of its entry (RFC 4514): cn=staff,ou=groups,... is staff."""
    found = re.match(r"[^=]*=((?:\\.|[^,+\\])*)", dn)
    if found is None:
        return dn
    value = re.sub(rb"\\([0-9A-Fa-f]{2})|\\(.)", lambda each: bytes.fromhex(each[1].decode()) if each[1] else each[2],
                   found[1].encode())
    return _text(value)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _check(settings: LdapSettings) -> None:
    """Raises: ValueError."""
    if not settings.urls:
        raise ValueError("urls is empty: there is no server to ask")
    if settings.user_dn and "{user}" not in settings.user_dn:
        raise ValueError("user_dn has no {user} in it: everybody would be the same")
    if not settings.user_dn and (not settings.base or "{user}" not in settings.filter):
        raise ValueError("users cannot be searched: set base, and a filter with {user} in it, or user_dn")
    if bool(settings.bind_dn) != bool(settings.bind_password):
        raise ValueError("of bind_dn and bind_password_file one is set without the other")
