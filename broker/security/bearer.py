"""The mechanisms that send a token of OAuth 2: OAUTHBEARER (RFC 7628), and XOAUTH2, which is Google's and older.

    OAUTHBEARER    n,a=alice,^Ahost=...^Aauth=Bearer TOKEN^A^A
    XOAUTH2        user=alice^Aauth=Bearer TOKEN^A^A

A client that is refused is first sent JSON about it (RFC 7628, section 3.2.2), answers with ^A or nothing, and then
learns that it has failed. What it is sent is the same whatever is wrong with the token.
"""

from __future__ import annotations

import re

from broker.security.mechanism import Challenge, Done, Failure, Mechanism, Success, saslname, text
from broker.security.provider import Refusal

_GS2 = re.compile(r"[ny],(?:a=([^,\0]*))?,", re.ASCII)  # RFC 5801, section 4; there is no binding to channels here
_PAIR = re.compile(r"([A-Za-z]+)=([\t\r\n -~]*)", re.ASCII)

_REFUSED = {"OAUTHBEARER": b'{"status":"invalid_token"}', "XOAUTH2": b'{"status":"401","schemes":"bearer"}'}


class Bearer(Mechanism):
    """One response, with the token."""

    __slots__ = ()

    def respond(self, response: bytes | None, done: Done) -> None:
        if response is None:
            done(Challenge(b""))
            return
        try:
            user, token = parse_bearer(text(response, self.name), self.name)
        except ValueError as error:
            done(Failure(str(error)))
            return
        self.authenticator.check_token(user, token, self.peer, lambda result: done(
            Failure(result.reason, _REFUSED[self.name]) if isinstance(result, Refusal) else Success(result)))


def parse_bearer(message: str, mechanism: str) -> tuple[str, str]:
    """The user that the client says it is ("" if it does not), and its token. Raises ValueError."""
    first, *parts = message.split("\1")
    if len(parts) < 3 or parts[-2:] != ["", ""]:
        raise ValueError(f"{mechanism}: the response does not end with two characters of 1")
    if mechanism == "OAUTHBEARER":
        header = _GS2.fullmatch(first)
        if not header:
            raise ValueError(f"{mechanism}: the response does not begin with n, or n,a=USER,")
        user = saslname(header[1] or "", mechanism)
    else:
        name, equals, user = first.partition("=")
        if name != "user" or not equals:
            raise ValueError(f"{mechanism}: the response does not begin with user=")
    values: dict[str, str] = {}
    for part in parts[:-2]:
        pair = _PAIR.fullmatch(part)
        if not pair or pair[1].lower() in values:
            raise ValueError(f"{mechanism}: a part of the response is there twice or is not NAME=VALUE")
        values[pair[1].lower()] = pair[2]
    scheme, _, token = values.get("auth", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ValueError(f"{mechanism}: there is no bearer's token in the response")
    return user, token.strip()
