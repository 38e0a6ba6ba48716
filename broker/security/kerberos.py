"""Users of Kerberos: tickets of a realm's server (RFC 4121), for SASL GSSAPI (RFC 4752).

The broker has a key in a keytab; clients show tickets that are made for it. This is authentication only: no security
layer is offered, TLS is for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gssapi
from gssapi.exceptions import GSSError

from broker.security.identity import Identity, Peer
from broker.security.provider import Negotiation, Provider, Refusal, Run, is_name, shown

NO_LAYER = 1  # of RFC 4752, section 3.3: the bit for "no security layer"


@dataclass(frozen=True, slots=True)
class KerberosSettings:
    """Whose tickets are good."""

    keytab: str = ""  # file of our keys; "": the system's
    principal: str = ""  # who we are, such as amqp/broker.example.org@EXAMPLE.ORG; "": any that the keytab has
    realms: tuple[str, ...] = ()  # realms of users; (): all that our realm trusts
    strip_realm: bool = False  # alice@REALM is called alice


class Kerberos(Provider):
    """Users of Kerberos. Raises: ValueError for settings and keytabs that cannot be used."""

    def __init__(self, name: str, settings: KerberosSettings, run: Run) -> None:
        self.name = name
        self._settings = settings
        self._run = run
        if settings.strip_realm and len(settings.realms) != 1:
            raise ValueError("strip_realm is set, but realms does not have one realm: users of several would be one")
        store = {"keytab": f"FILE:{settings.keytab}"} if settings.keytab else None
        try:
            who = gssapi.Name(settings.principal, gssapi.NameType.kerberos_principal) if settings.principal else None
            self._credentials = gssapi.Credentials(name=who, usage="accept", mechs=[gssapi.MechType.kerberos],
                                                   store=store)
        except GSSError as error:
            raise ValueError(f"keytab {settings.keytab or 'of the system'} cannot be used: {_said(error)}") from None

    def mechanisms(self) -> set[str]:
        return {"GSSAPI"}

    def negotiation(self, peer: Peer) -> Negotiation | Refusal:
        return _Login(self._run, self._credentials, self._settings, self.name)


class _Login(Negotiation):
    """One client's. First come the tokens of the context, then the client's answer to what layers we offer."""

    def __init__(self, run: Run, credentials: gssapi.Credentials, settings: KerberosSettings, provider: str) -> None:
        self._run = run
        self._settings = settings
        self._provider = provider
        self._context = gssapi.SecurityContext(creds=credentials, usage="accept")
        self._context.__DEFER_STEP_ERRORS__ = False  # else the client is told what is wrong with its ticket
        self._offered = False

    def respond(self, response: bytes, answer: Callable[[bytes | Identity | Refusal], None]) -> None:
        def done(found: object | BaseException) -> None:
            if isinstance(found, GSSError):
                answer(Refusal(f"the ticket cannot be used: {_said(found)}"))
            elif isinstance(found, bytes | Identity | Refusal):
                answer(found)
            else:
                answer(Refusal(f"the ticket could not be checked: {type(found).__name__}: {found}", trouble=True))
        self._run(lambda: self._step(response), done)

    def _step(self, response: bytes) -> bytes | Identity | Refusal:
        """On a thread. Raises GSSError."""
        if self._offered:
            return self._user(self._context.unwrap(response).message)
        if not self._context.complete:
            token = self._context.step(response)
            if token or not self._context.complete:
                return bytes(token or b"")
        elif response:
            return Refusal("GSSAPI: a response where an empty one was due")
        if not self._context.actual_flags & gssapi.RequirementFlag.integrity:
            return Refusal("GSSAPI: the client's context does not keep messages whole")
        self._offered = True
        return bytes(self._context.wrap(bytes([NO_LAYER, 0, 0, 0]), False).message)

    def _user(self, choice: bytes) -> Identity | Refusal:
        """Who it is, of the client's choice of a layer and the name that it asks for."""
        if len(choice) < 4 or choice[0] != NO_LAYER:
            return Refusal("GSSAPI: the client has chosen a security layer, which is not offered")
        principal = str(self._context.initiator_name)
        name, _, realm = principal.rpartition("@")
        if self._settings.realms and realm not in self._settings.realms:
            return Refusal(f"{shown(principal)} is of a realm that is not let in", unknown=True)
        user = name if self._settings.strip_realm else principal
        if not name or not is_name(user):
            return Refusal(f"{shown(user)} cannot be a user's name")
        wanted = choice[4:].decode("utf-8", "replace")
        if wanted not in ("", user, principal):
            return Refusal(f"the client asks to be {shown(wanted)} with the ticket of {shown(principal)}")
        return Identity(user, provider=self._provider)


def _said(error: GSSError) -> str:
    return " ".join(str(error).split())
