"""The password file, and the provider made of it and of `guest`."""

from __future__ import annotations

import codecs
import hmac
import os
import tempfile
from collections.abc import Collection

from broker.security.identity import Identity, Peer
from broker.security.passwords import ARGON2, ScramVerifier, Verifier, new_verifier, parse_verifier
from broker.security.provider import Answer, Provider, Refusal, Run, shown

GUEST = "guest"
CACHE_LIMIT = 10_000  # passwords that were found right, of 32 bytes each


class PasswordFile:
    """A text file with a user a line, `name:verifier` (see broker.security.passwords), blank lines and `#` comments.

    Reading and changing it are separate: `load` reads, `set` and `remove` change what was read, `save` writes it back
    with its comments. A new file is made by `set` and `save` without `load`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines: list[tuple[str, str]] = []  # name ("" for a comment) and the whole line
        self._verifiers: dict[str, Verifier] = {}
        self._stamp: tuple[int, int, int] | None = None  # of the file as read or written last

    def load(self) -> None:
        """Read the file (again). Raises ValueError with file, line and what to do, and then changes nothing."""
        try:
            with open(self.path, "rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                content = file.read().removeprefix(codecs.BOM_UTF8)
        except FileNotFoundError:
            raise ValueError(f"{self.path}: there is no such password file: create it (an empty one lets nobody in) "
                             "or correct its path in the configuration") from None
        except OSError as error:
            raise ValueError(f"{self.path}: the password file cannot be read: {error.strerror}; it must be a file "
                             "that the broker's system user may read") from None
        lines: list[tuple[str, str]] = []
        verifiers: dict[str, Verifier] = {}
        for number, raw in enumerate(content.splitlines(), 1):
            try:
                name, verifier = _parse_line(raw)
                if name in verifiers:
                    raise ValueError(f"user {shown(name)} is there twice: remove one of the lines")
            except ValueError as error:
                raise ValueError(f"{self.path}:{number}: {error}") from None
            lines.append((name, raw.decode("utf-8")))
            if verifier is not None:
                verifiers[name] = verifier
        self._lines, self._verifiers, self._stamp = lines, verifiers, stamp

    def names(self) -> list[str]:
        """The users, in the file's order."""
        return list(self._verifiers)

    def verifier(self, name: str) -> Verifier | None:
        return self._verifiers.get(name)

    def verifiers(self) -> Collection[Verifier]:
        return self._verifiers.values()

    def set(self, name: str, password: str, scheme: str = ARGON2) -> None:
        """Add a user, or give one a new password. Raises ValueError where name, password or scheme cannot be used."""
        self.put(name, new_verifier(password, scheme))

    def put(self, name: str, verifier: Verifier) -> None:
        """Add a user with a verifier made elsewhere, or replace one's. Raises ValueError where the name cannot be
        used."""
        _check_name(name)
        line = (name, f"{name}:{verifier.text}")
        if name in self._verifiers:
            self._lines = [line if kept[0] == name else kept for kept in self._lines]
        else:
            self._lines.append(line)
        self._verifiers[name] = verifier

    def remove(self, name: str) -> None:
        """Raises ValueError when there is no such user."""
        if name not in self._verifiers:
            raise ValueError(f"{self.path}: there is no user {shown(name)}")
        del self._verifiers[name]
        self._lines = [kept for kept in self._lines if kept[0] != name]

    def save(self) -> None:
        """Replace the file, at once and safe against a crash; readable by its owner (and its group, if it was) only.

        Raises ValueError when somebody else changed the file since it was read, and OSError.
        """
        target = os.path.realpath(self.path)
        try:
            before = os.stat(target)
        except FileNotFoundError:
            before = None
        if (before and _stamp(before)) != self._stamp:
            raise ValueError(f"{self.path}: the file was changed since it was read: load it and make the change again")
        folder = os.path.dirname(target)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".new", dir=folder)  # with mode 0600
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                if before is not None:  # an administrator's change must not take the file away from the broker
                    os.fchown(handle, before.st_uid, before.st_gid)
                    os.fchmod(handle, 0o600 | before.st_mode & 0o040)
                file.writelines(line + "\n" for _, line in self._lines)
                file.flush()
                os.fsync(handle)
                stamp = _stamp(os.fstat(handle))
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        self._stamp = stamp
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


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
        return {"PLAIN", "AMQPLAIN", *(each.scheme for each in self._all() if isinstance(each, ScramVerifier))}

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
            answer(refusal or Identity(name))
            return
        if verifier is not None and not password:
            refusal = refusal or Refusal(f"empty password for user {shown(name)}")
        checked = verifier or self._decoy(name)
        if checked is None:
            answer(refusal or Refusal(f"user {shown(name)} has no password", unknown=True))
            return
        self._check(name, password, checked, refusal, answer)

    def scram(self, scheme: str, name: str, peer: Peer) -> tuple[ScramVerifier, Identity] | Refusal:
        refusal = self._refusal(name, peer)
        if refusal is not None:
            return refusal
        verifier = self._verifier(name)
        if isinstance(verifier, ScramVerifier) and verifier.scheme == scheme:
            return verifier, Identity(name)
        return Refusal(f"user {shown(name)} has no {scheme} verifier", unknown=True)

    def scram_forms(self, scheme: str) -> list[tuple[int, int]]:
        return [(each.iterations, len(each.salt)) for each in self._all()
                if isinstance(each, ScramVerifier) and each.scheme == scheme]

    def _refusal(self, name: str, peer: Peer) -> Refusal | None:
        """Why this user may not log in at all, whatever the password; or None if that decides."""
        if self._verifier(name) is None and not (self.guest and name == GUEST):
            return Refusal(f"there is no user {shown(name)}", unknown=True)
        if not peer.loopback and name in self.loopback_users:
            return Refusal(f"user {shown(name)} may log in over loopback only")
        return None

    def _verifier(self, name: str) -> Verifier | None:
        return self.file.verifier(name) if self.file is not None else None

    def _all(self) -> Collection[Verifier]:
        return self.file.verifiers() if self.file is not None else ()

    def _decoy(self, name: str) -> Verifier | None:
        """Some user's verifier, for its cost; always the same one for the same name. None when there are no users."""
        models = list(self._all())
        seed = hmac.digest(self._key, name.encode("utf-8", "surrogatepass"), "sha256")
        return models[int.from_bytes(seed[:8]) % len(models)] if models else None

    def _check(self, name: str, password: bytes, verifier: Verifier, refusal: Refusal | None, answer: Answer) -> None:
        """Refuse after the time that a check takes if there is a reason to, or else by what the check says."""
        parts = (name.encode("utf-8", "surrogatepass"), verifier.text.encode(), (refusal or _NONE).reason.encode())
        digest = hmac.digest(self._key, b"".join(len(part).to_bytes(4) + part for part in parts) + password, "sha256")
        if digest in self._right:
            del self._right[digest]
            self._right[digest] = None
            answer(Identity(name))
            return
        if digest in self._waiting:
            self._waiting[digest].append(answer)
            return
        self._waiting[digest] = [answer]

        def checked(result: object | BaseException) -> None:
            refused = refusal or self._judge(name, verifier, result)
            if refused is None:
                self._right[digest] = None
                if len(self._right) > CACHE_LIMIT:
                    del self._right[next(iter(self._right))]
            for tell in self._waiting.pop(digest):
                tell(refused or Identity(name))

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


def _parse_line(raw: bytes) -> tuple[str, Verifier | None]:
    try:
        line = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text: correct or remove the line") from None
    if not line or line.startswith("#"):
        return "", None
    name, colon, text = line.partition(":")
    if not colon:
        raise ValueError("not of the form name:verifier: put '#' before a comment, or set the user's password again")
    _check_name(name)
    return name, parse_verifier(text)


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
