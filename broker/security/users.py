"""The password file, and the provider made of it and of `guest`."""

from __future__ import annotations

import hmac
import os
from collections.abc import Collection, Sequence
from typing import TypeVar

from broker.security.files import Stamp, read_file, replace_file
from broker.security.identity import Identity, Peer
from broker.security.passwords import (
    ARGON2,
    CRAM_MD5,
    SCRAM_HASHES,
    CramVerifier,
    ScramVerifier,
    Verifier,
    new_verifier,
    parse_verifier,
)
from broker.security.provider import Answer, Provider, Refusal, Run, shown
from broker.security.recent import remember

V = TypeVar("V", bound=Verifier)
GUEST = "guest"
CACHE_LIMIT = 10_000  # passwords that were found right, of 32 bytes each


class User:
    """A user of a password file. Of several verifiers, which are of different schemes, the first is asked about
    passwords that are sent."""

    __slots__ = ("name", "verifiers", "tags", "groups")

    def __init__(self, name: str, verifiers: Sequence[Verifier], tags: Collection[str] = (),
                 groups: Collection[str] = ()) -> None:
        self.name = name
        self.verifiers = tuple(verifiers)
        self.tags = frozenset(tags)
        self.groups = frozenset(groups)

    def line(self) -> str:
        """As the file has it."""
        words = [verifier.text for verifier in self.verifiers]
        words += [f"{key}={','.join(sorted(values))}"
                  for key, values in (("tags", self.tags), ("groups", self.groups)) if values]
        return f"{self.name}:{' '.join(words)}"

    def find(self, kind: type[V], scheme: str) -> V | None:
        """The verifier of a scheme."""
        for verifier in self.verifiers:
            if isinstance(verifier, kind) and verifier.scheme == scheme:
                return verifier
        return None


class PasswordFile:
    """A text file with a user a line, and with blank lines and `#` comments:

        name:verifier [verifier ...] [tags=a,b] [groups=c,d]

    broker/security/passwords.py has the forms of verifiers. Tags are RabbitMQ's ("administrator", "management", ...),
    groups those of access rules.

    Reading and changing it are separate: `load` reads, `set`, `put` and `remove` change what was read, `save` writes
    it back with its comments. A new file is made by `set` and `save` without `load`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines: list[tuple[str, str]] = []  # name ("" for a comment) and the whole line
        self._users: dict[str, User] = {}
        self._forms: dict[str, list[tuple[int, int]]] | None = None
        self._schemes: set[str] | None = None
        self._stamp: Stamp | None = None  # of the file as read or written last

    def load(self) -> None:
        """Read the file (again). Raises ValueError with file, line and what to do, and then changes nothing."""
        try:
            content, stamp = read_file(self.path)
        except FileNotFoundError:
            raise ValueError(f"{self.path}: there is no such password file: create it (an empty one lets nobody in) "
                             "or correct its path in the configuration") from None
        except OSError as error:
            raise ValueError(f"{self.path}: the password file cannot be read: {error.strerror}; it must be a file "
                             "that the broker's system user may read") from None
        lines: list[tuple[str, str]] = []
        users: dict[str, User] = {}
        for number, raw in enumerate(content.splitlines(), 1):
            try:
                user = _parse_line(raw)
                name = user.name if user is not None else ""
                if name in users:
                    raise ValueError(f"user {shown(name)} is there twice: remove one of the lines")
            except ValueError as error:
                raise ValueError(f"{self.path}:{number}: {error}") from None
            lines.append((name, raw.decode("utf-8")))
            if user is not None:
                users[name] = user
        self._lines, self._users, self._stamp = lines, users, stamp
        self._forms = self._schemes = None

    def names(self) -> list[str]:
        """The users, in the file's order."""
        return list(self._users)

    def user(self, name: str) -> User | None:
        return self._users.get(name)

    def users(self) -> Collection[User]:
        return self._users.values()

    def scram_forms(self) -> dict[str, list[tuple[int, int]]]:
        """Iterations and salt sizes of all users' SCRAM verifiers, by scheme."""
        if self._forms is None:
            self._forms = {}
            for user in self._users.values():
                for each in user.verifiers:
                    if isinstance(each, ScramVerifier):
                        self._forms.setdefault(each.scheme, []).append((each.iterations, len(each.salt)))
        return self._forms

    def schemes(self) -> set[str]:
        """All that users' passwords are kept as."""
        if self._schemes is None:
            self._schemes = {each.scheme for user in self._users.values() for each in user.verifiers}
        return self._schemes

    def set(self, name: str, password: str, *schemes: str) -> None:
        """Add a user, or give one a new password, kept as each of these schemes (without any, argon2). Raises
        ValueError where name, password or scheme cannot be used."""
        known = self._users.get(name)
        made = [new_verifier(password, scheme) for scheme in schemes or (ARGON2,)]
        self.put(User(name, made, known.tags, known.groups) if known is not None else User(name, made))

    def put(self, user: User) -> None:
        """Add a user made elsewhere, or replace one. Raises ValueError where its name, tags or groups cannot be used.
        """
        name = user.name
        _check_name(name)
        for word in (*user.tags, *user.groups):
            if not word.isprintable() or not word or " " in word or "," in word:
                raise ValueError(f"{shown(word)} cannot be a tag or group: it must not be empty or hold spaces, ',' or "
                                 "characters that do not print")
        line = (name, user.line())
        if name in self._users:
            self._lines = [line if kept[0] == name else kept for kept in self._lines]
        else:
            self._lines.append(line)
        self._users[name] = user
        self._forms = self._schemes = None

    def remove(self, name: str) -> None:
        """Raises ValueError when there is no such user."""
        if name not in self._users:
            raise ValueError(f"{self.path}: there is no user {shown(name)}")
        del self._users[name]
        self._forms = self._schemes = None
        self._lines = [kept for kept in self._lines if kept[0] != name]

    def save(self) -> None:
        """Replace the file, at once and safe against a crash; readable by its owner (and its group, if it was) only.

        Raises ValueError when somebody else changed the file since it was read, and OSError.
        """
        self._stamp = replace_file(self.path, [line for _, line in self._lines], self._stamp)


class FileProvider(Provider):
    """All who are in a password file.

    `guest` lets user guest in with password guest, unless the file has a guest of its own. `loopback_users` may log in
    over loopback only, whatever their password.
    """

    def __init__(self, run: Run, file: PasswordFile | None = None, *, guest: bool = True,
                 loopback_users: Collection[str] = (GUEST,), name: str = "file") -> None:
        self.name = name
        self.file = file
        self.guest = guest
        self.loopback_users = frozenset(loopback_users)
        self._run = run
        self._key = os.urandom(32)
        self._right: dict[bytes, None] = {}  # digests of what was found right, least recently used first
        self._waiting: dict[bytes, list[Answer]] = {}  # by digest: who waits for a check that is under way

    def mechanisms(self) -> set[str]:
        schemes = self.file.schemes() if self.file is not None else set()
        return {"PLAIN", "AMQPLAIN", *(schemes & {*SCRAM_HASHES, CRAM_MD5})}

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        """At once if the password was found right before, or else later.

        A whole fleet that comes back at once costs one check: the same name and password are never checked twice at
        the same time. A name that is not known costs what a known one does.
        """
        verifier = self._verifier(name)
        refusal = self._refusal(name, peer)
        if verifier is None and self.guest and name == GUEST:  # a password that all know needs no slow check
            if refusal is None and not hmac.compare_digest(password, GUEST.encode()):
                refusal = Refusal(f"wrong password for user {shown(name)}")
            answer(refusal or self._identity(name))
            return
        if verifier is not None and not password:
            refusal = refusal or Refusal(f"empty password for user {shown(name)}")
        checked = verifier or self._decoy(name)
        if checked is None:
            answer(refusal or Refusal(f"user {shown(name)} has no password", unknown=True))
            return
        self._check(name, password, checked, refusal, answer)

    def scram(self, scheme: str, name: str, peer: Peer) -> tuple[ScramVerifier, Identity] | Refusal:
        return self._own(ScramVerifier, scheme, name, peer)

    def cram_md5(self, name: str, peer: Peer) -> tuple[CramVerifier, Identity] | Refusal:
        return self._own(CramVerifier, CRAM_MD5, name, peer)

    def scram_forms(self, scheme: str) -> list[tuple[int, int]]:
        return self.file.scram_forms().get(scheme, []) if self.file is not None else []

    def review(self, identity: Identity, peer: Peer, answer: Answer) -> None:
        """A new password alone is no reason to go."""
        answer(self._refusal(identity.user, peer) or self._identity(identity.user))

    def _own(self, kind: type[V], scheme: str, name: str, peer: Peer) -> tuple[V, Identity] | Refusal:
        """A user's verifier of a scheme, and who it is."""
        refusal = self._refusal(name, peer)
        if refusal is not None:
            return refusal
        user = self.file.user(name) if self.file is not None else None
        verifier = user.find(kind, scheme) if user is not None else None
        if verifier is None:
            return Refusal(f"user {shown(name)} has no {scheme} verifier", unknown=True)
        return verifier, self._identity(name)

    def _refusal(self, name: str, peer: Peer) -> Refusal | None:
        """Why this user may not log in at all, whatever the password; or None if that decides."""
        if self._verifier(name) is None and not (self.guest and name == GUEST):
            return Refusal(f"there is no user {shown(name)}", unknown=True)
        if not peer.loopback and name in self.loopback_users:
            return Refusal(f"user {shown(name)} may log in over loopback only")
        return None

    def _identity(self, name: str) -> Identity:
        """Of somebody who may log in."""
        user = self.file.user(name) if self.file is not None else None
        if user is None:  # guest
            return Identity(name, tags=frozenset({"administrator"}))
        return Identity(name, user.groups, tags=user.tags)

    def _verifier(self, name: str) -> Verifier | None:
        user = self.file.user(name) if self.file is not None else None
        return user.verifiers[0] if user is not None else None

    def _decoy(self, name: str) -> Verifier | None:
        """Some user's verifier, for its cost; always the same one for the same name. None when there are no users."""
        names = self.file.names() if self.file is not None else []
        seed = hmac.digest(self._key, name.encode("utf-8", "surrogatepass"), "sha256")
        return self._verifier(names[int.from_bytes(seed[:8]) % len(names)]) if names else None

    def _check(self, name: str, password: bytes, verifier: Verifier, refusal: Refusal | None, answer: Answer) -> None:
        """Refuse after the time that a check takes if there is a reason to, or else by what the check says."""
        parts = (name.encode("utf-8", "surrogatepass"), verifier.text.encode(), (refusal or _NONE).reason.encode())
        digest = hmac.digest(self._key, b"".join(len(part).to_bytes(4) + part for part in parts) + password, "sha256")
        if digest in self._right:
            remember(self._right, digest, None, CACHE_LIMIT)
            answer(self._identity(name))
            return
        if digest in self._waiting:
            self._waiting[digest].append(answer)
            return
        self._waiting[digest] = [answer]

        def checked(result: object | BaseException) -> None:
            refused = refusal or self._judge(name, verifier, result)
            if refused is None:
                remember(self._right, digest, None, CACHE_LIMIT)
            for tell in self._waiting.pop(digest):
                tell(refused or self._identity(name))

        self._run(lambda: verifier.matches(password), checked)

    def _judge(self, name: str, verifier: Verifier, result: object | BaseException) -> Refusal | None:
        now = self._verifier(name)
        if isinstance(result, BaseException):
            return Refusal(f"the password of user {shown(name)} could not be checked: "
                           f"{str(result) or type(result).__name__}", trouble=True)
        if not result:
            return Refusal(f"wrong password for user {shown(name)}")
        if now is None or now.text != verifier.text:
            return Refusal(f"user {shown(name)} was changed during the login")
        return None


_NONE = Refusal("")


def _check_name(name: str) -> None:
    if not name or ":" in name or not name.isprintable() or name != name.strip() or name.startswith("#"):
        raise ValueError(f"{shown(name)} cannot be a user's name: it must not be empty, begin with '#', begin or end "
                         "with a space, or hold ':' or characters that do not print")


def _parse_line(raw: bytes) -> User | None:
    """None of a blank line and a comment."""
    try:
        line = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text: correct or remove the line") from None
    if not line or line.startswith("#"):
        return None
    name, colon, rest = line.partition(":")
    if not colon:
        raise ValueError("not of the form name:verifier: put '#' before a comment, or set the user's password again")
    _check_name(name)
    lists: dict[str, list[str]] = {}
    verifiers: list[Verifier] = []
    for word in rest.split(" ") if rest else [""]:
        key, _, values = word.partition("=")
        if key in ("tags", "groups") and verifiers:
            if key in lists:
                raise ValueError(f"{key} are there twice: put them into one list")
            lists[key] = values.split(",")
        else:
            verifiers.append(parse_verifier(word))
    schemes = [verifier.scheme for verifier in verifiers]
    if len(set(schemes)) < len(schemes):
        raise ValueError("two verifiers of one scheme: remove one of them")
    if not all(word.isprintable() and word for values in lists.values() for word in values):
        raise ValueError("an empty tag or group, or one that does not print: correct the list")
    return User(name, verifiers, lists.get("tags", ()), lists.get("groups", ()))
