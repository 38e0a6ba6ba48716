"""Users of other brokers, read from the files that they keep them in:

* qpidd's database of Cyrus SASL (qpidd.sasldb): the file itself, which is a hash of Berkeley DB, or what db_dump or
  `db_dump -p` prints of it; it has passwords in clear
* Broker-J's config.json: providers of type SCRAM-SHA-1, SCRAM-SHA-256 and Plain, and the groups of ManagedGroupProvider
* Broker-J's files of type PlainPasswordFile: a `name:password` a line
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from typing import Any

from broker.security.passwords import SCRAM_HASHES, ScramVerifier, parse_verifier

_MAGIC = 0x061561  # of a Berkeley DB hash, at offset 12 of its first page
_HASH_PAGES = (2, 13)  # types of pages with entries: unsorted, sorted
_KEYDATA = 1  # the type of an entry that is on the page itself
_OLD_ITERATIONS = 4096  # of Broker-J's that does not say how many


class NotUnderstood(Exception):
    """It is none of these files; the text says what is wrong."""


class FoundUser:
    """A user with a password in clear, or a verifier; or with neither, and the reason."""

    __slots__ = ("name", "password", "verifier", "groups", "problem")

    def __init__(self, name: str, password: str = "", verifier: ScramVerifier | None = None, problem: str = "") -> None:
        self.name = name
        self.password = password
        self.verifier = verifier
        self.groups: set[str] = set()
        self.problem = problem


def read_users(content: bytes) -> list[FoundUser]:
    """The users of a file of whichever kind, in its order. Raises NotUnderstood."""
    if content[12:16] in (_MAGIC.to_bytes(4, "little"), _MAGIC.to_bytes(4, "big")):
        return _of_sasldb(_database(content))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise NotUnderstood("it is neither text nor a database of Cyrus SASL") from None
    if text.startswith("VERSION="):
        return _of_sasldb(_dump(text))
    if text.lstrip().startswith("{"):
        return _of_config(text)
    return _of_lines(text)


# -- Cyrus SASL


def _of_sasldb(pairs: Iterator[tuple[bytes, bytes]]) -> list[FoundUser]:
    """Its keys are user, realm and property, with NUL characters between them."""
    found: dict[str, FoundUser] = {}
    for key, value in pairs:
        user, _, rest = key.partition(b"\0")
        realm, _, what = rest.partition(b"\0")
        if what != b"userPassword":
            continue
        try:
            name, password = user.decode("utf-8"), value.decode("utf-8")
        except UnicodeDecodeError:
            name, password = user.decode("utf-8", "replace"), ""
        if name in found:
            found[name].problem = f"it is there in several realms, such as {realm.decode('utf-8', 'replace')}"
        else:
            found[name] = FoundUser(name, password, problem="" if password else "its password is no text")
    return list(found.values())


def _dump(text: str) -> Iterator[tuple[bytes, bytes]]:
    """What db_dump prints: a header, and then keys and values in turn, each with a space before it."""
    head, end, body = text.partition("HEADER=END\n")
    if not end:
        raise NotUnderstood("it begins like the output of db_dump, but its header has no end")
    printed = "format=print" in head.splitlines()
    values = [_dumped(line[1:], printed) for line in body.splitlines() if line.startswith(" ")]
    if len(values) % 2:
        raise NotUnderstood("the output of db_dump is not whole: its last key has no value")
    return zip(values[::2], values[1::2], strict=True)


def _dumped(line: str, printed: bool) -> bytes:
    try:
        if not printed:
            return bytes.fromhex(line)
        return re.sub(rb"\\([0-9a-f]{2}|\\)", lambda found: b"\\" if found[1] == b"\\" else bytes.fromhex(
            found[1].decode("ascii")), line.encode("utf-8"))
    except ValueError:
        raise NotUnderstood("a line of the output of db_dump is neither hexadecimal nor printed text") from None


def _database(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The pairs that are on the pages of a Berkeley DB hash; larger ones, which SASL has none of, are left out."""
    order: Any = "little" if content[12:16] == _MAGIC.to_bytes(4, "little") else "big"
    size = int.from_bytes(content[20:24], order)
    if size < 512 or size > 65536 or size & (size - 1) or len(content) < size or content[24]:
        raise NotUnderstood("the database is damaged, or encrypted")
    for at in range(size, len(content) - size + 1, size):
        page = content[at:at + size]
        count = int.from_bytes(page[20:22], order)
        if page[25] not in _HASH_PAGES:
            continue
        places = [int.from_bytes(page[26 + 2 * index:28 + 2 * index], order) for index in range(count)]
        ends = [size, *places]
        if count % 2 or any(not 26 + 2 * count <= place < end for place, end in zip(places, ends, strict=False)):
            raise NotUnderstood("the database is damaged")
        entries = [page[place:end] for place, end in zip(places, ends, strict=False)]
        for key, value in zip(entries[::2], entries[1::2], strict=True):
            if key[0] == _KEYDATA == value[0]:
                yield key[1:], value[1:]


# -- Broker-J


def _of_lines(text: str) -> list[FoundUser]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not colon or not name:
            raise NotUnderstood(f"line {number} is not name:password, nor is it a file of another kind that is known")
        found.append(FoundUser(name.strip(), password, problem="" if password else "it has no password"))
    return found


def _of_config(text: str) -> list[FoundUser]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"it is no JSON: {error}") from None
    found: dict[str, FoundUser] = {}
    for provider in _parts(document, "authenticationproviders"):
        kind = str(provider.get("type"))
        for part in _parts(provider, "users"):
            user = _managed(kind, str(part.get("name")), str(part.get("password")))
            if user.name in found:
                found[user.name].problem = found[user.name].problem or "it is there in several providers"
            else:
                found[user.name] = user
    for provider in _parts(document, "groupproviders"):
        for group in _parts(provider, "groups"):
            for member in _parts(group, "groupmembers"):
                if str(member.get("name")) in found:
                    found[str(member.get("name"))].groups.add(str(group.get("name")))
    if not found:
        raise NotUnderstood("there are no users in it: a provider of another type may name the file that has them")
    return list(found.values())


def _parts(document: Any, name: str) -> list[dict[str, Any]]:
    parts = document.get(name) if isinstance(document, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _managed(kind: str, name: str, kept: str) -> FoundUser:
    if kind == "Plain":
        return FoundUser(name, kept)
    if kind not in SCRAM_HASHES:
        return FoundUser(name, problem=f"its password is kept as {kind[:32]}, which is not known here")
    try:
        return FoundUser(name, verifier=_scram(kind, kept))
    except (ValueError, IndexError, binascii.Error):
        return FoundUser(name, problem="what is kept of its password is damaged, or encrypted")


def _scram(kind: str, kept: str) -> ScramVerifier:
    """Of `salt,,storedKey,serverKey,iterations`; older ones end before the iterations, and the oldest have the salted
    password only. Raises ValueError, IndexError."""
    fields = kept.split(",")
    salt = base64.b64decode(fields[0], validate=True)
    if len(fields) == 2:
        hash_name = SCRAM_HASHES[kind]
        salted = base64.b64decode(fields[1], validate=True)
        stored = hashlib.new(hash_name, hmac.digest(salted, b"Client Key", hash_name)).digest()
        server = hmac.digest(salted, b"Server Key", hash_name)
    else:
        stored, server = (base64.b64decode(field, validate=True) for field in fields[2:4])
    iterations = int(fields[4]) if len(fields) > 4 else _OLD_ITERATIONS
    checked = parse_verifier(ScramVerifier(kind, iterations, salt, stored, server).text)
    assert isinstance(checked, ScramVerifier)
    return checked
