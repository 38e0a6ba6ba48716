"""TLS for those who connect to us: which certificate a client is shown, what it must show, and what comes of it.

`Certificates` has those of the configuration, and takes them up anew when their files change. A client that names the
host it wants (SNI, RFC 6066, section 3) is shown the certificate for that name, else the first. A connection keeps the
certificates that it began with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from broker.security.files import Stamp, stamp_of
from broker.security.identity import Peer
from dragoman.config import Config, Listener
from dragoman.config_tls import Certificate, Demand, demand
from dragoman.tls_files import CERTIFICATE, CRL, Loaded, load, read, trust

logger = logging.getLogger(__name__)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2, in OpenSSL's words: with forward secrecy and authenticated encryption only, as all of TLS 1.3 is."""

CLIENT: ContextVar[socket.socket] = ContextVar("CLIENT")
"""The socket of the client that a handshake is about to begin with."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"none": ssl.CERT_NONE, "want": ssl.CERT_OPTIONAL, "need": ssl.CERT_REQUIRED}
_DAY = 86_400_000
_WARNINGS = (0, 7, 30)
"""The log warns when a certificate has less than so many days."""
_FAR = 999  # nothing to warn of


class TlsPeer(Peer):
    """The other end of a TLS connection."""

    def __init__(self, address: str, listener: str, loopback: bool, connection: ssl.SSLObject) -> None:
        super().__init__(address, listener, loopback, True, connection.getpeercert(True) or b"")
        self._connection = connection

    def channel_binding(self, kind: str) -> bytes:
        connection = self._connection
        if kind == "tls-server-end-point" and isinstance(connection.context, Context):
            return connection.context.loaded.binding
        # With TLS 1.3 there is no tls-unique (RFC 8446, appendix C.5), and a resumed session does not bind (RFC 7627).
        # tls-exporter (RFC 9266) takes what Python's ssl does not give.
        if kind == "tls-unique" and connection.version() == "TLSv1.2" and not connection.session_reused:
            return connection.get_channel_binding("tls-unique") or b""
        return b""


class Handshake(ssl.SSLObject):
    """The TLS of one connection. If its handshake fails, the client gets the alert that says why: the event loop
    closes the socket without writing it."""

    outgoing: ssl.MemoryBIO
    client: socket.socket

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                self.client.send(self.outgoing.read())
            raise


class Context(ssl.SSLContext):
    """What one certificate is shown with."""

    sslobject_class = Handshake
    loaded: Loaded

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, *args, **options)
        assert isinstance(made, Handshake)
        made.outgoing = outgoing
        made.client = CLIENT.get()
        return made


class Certificates:
    """Those of a configuration; none if it has no `tls.certificate`."""

    def __init__(self, config: Config) -> None:
        """Raises: ValueError, with a line for each problem."""
        self._tls = config.tls
        self._given = given(config)
        self._demands = [*dict.fromkeys(demand(config.tls, each) for each in config.listeners)] if self._given else []
        self._trusts = {each.authorities: ("client_ca", CERTIFICATE) for each in self._demands if each.authorities}
        for each in self._demands:
            self._trusts.update(dict.fromkeys(each.revoked, ("tls.client_revocation_lists", CRL)))
        self._files = sorted({*(path for _, each in self._given for path in (each.certificate, each.key) if path),
                              *self._trusts})
        self._told: dict[bytes, int] = {}  # by certificate: of _WARNINGS the last one given
        self._seen = self._state()
        self._settled = True
        self._loaded: dict[str, Loaded] = {}  # by section of the configuration, the default one first
        self._trusted: dict[str, bytes] = {}  # by file
        self._contexts: dict[Demand, Context] = {}
        problems = self._load()
        if problems:
            raise ValueError("\n".join(problems))

    def context(self, listener: Listener) -> Context | None:
        """What a client of this listener begins TLS with; None if there is no TLS."""
        if listener.tls == "never":
            return None
        return self._contexts.get(demand(self._tls, listener))

    def tick(self, now: int) -> None:
        """About once a second: take up files that have changed, once they no longer do. What cannot be used is told
        and not taken up. Warn of certificates that have ended or soon will."""
        state = self._state()
        if state != self._seen:  # a certificate may be there before its key
            self._seen, self._settled = state, False
        elif not self._settled:
            self._settled = True
            for problem in self._load():
                logger.error("the old one stays: %s", problem)
        for loaded in self._loaded.values():
            self._tell(loaded, now)

    def _state(self) -> list[Stamp | None]:
        """What tells whether a file has changed, also one behind a symbolic link."""
        found: list[Stamp | None] = []
        for path in self._files:
            try:
                found.append(stamp_of(os.stat(path)))
            except OSError:
                found.append(None)
        return found

    def _load(self) -> list[str]:
        """Take up each file that can be used; the problems with the others. Raises: ValueError."""
        problems: list[str] = []
        for where, each in self._given:
            try:
                self._loaded[where] = load(each, where)
            except ValueError as error:
                problems += str(error).splitlines()
        for path, (key, kind) in self._trusts.items():
            try:
                self._trusted[path] = read(key, path, kind)
            except ValueError as error:
                problems.append(str(error))
        if len(self._loaded) == len(self._given) and len(self._trusted) == len(self._trusts):
            self._contexts = {each: self._chosen(each) for each in self._demands}
        self._told = {each.der: self._told[each.der] for each in self._loaded.values() if each.der in self._told}
        return problems

    def _chosen(self, wanted: Demand) -> Context:
        """The context of the default certificate, which gives way to those of the others. Raises: ValueError."""
        made = [self._context(each, wanted) for each in self._loaded.values()]
        named: dict[str, Context] = {}
        for each in made:
            for name in each.loaded.names:
                named.setdefault(name, each)

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if name is not None:
                name = name.lower().rstrip(".")
                chosen = named.get(name) or named.get("*." + name.partition(".")[2])
                if chosen is not None:
                    connection.context = chosen

        if len(made) > 1:
            made[0].sni_callback = choose
        return made[0]

    def _context(self, loaded: Loaded, wanted: Demand) -> Context:
        """Raises: ValueError."""
        made = Context(ssl.PROTOCOL_TLS_SERVER)
        made.loaded = loaded
        made.minimum_version = _VERSIONS[self._tls.minimum]
        made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        made.set_alpn_protocols(["mqtt"])  # the one name that is registered of what is spoken here
        try:
            made.set_ciphers(self._tls.ciphers or CIPHERS)
        except ssl.SSLError:
            raise ValueError(f'tls.ciphers is "{self._tls.ciphers}", of which OpenSSL has none') from None
        loaded.give_to(made)
        if wanted.authorities:
            trust(made, self._trusted[wanted.authorities])
        for path in wanted.revoked:
            trust(made, self._trusted[path])
            made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        made.verify_mode = _VERIFY[wanted.kind]
        return made

    def _tell(self, loaded: Loaded, now: int) -> None:
        """Log what a certificate is for, and each time its end has come nearer."""
        days = (loaded.ends - now) // _DAY
        warning = next((each for each in _WARNINGS if days < each), _FAR)
        if self._told.get(loaded.der) == warning:
            return
        self._told[loaded.der] = warning
        what = f"{loaded.file}, for {', '.join(loaded.names) or 'no name'}"
        if now < loaded.begins:
            logger.warning("certificate %s: valid only from %s", what, _day(loaded.begins))
        if warning == _FAR:
            logger.info("certificate %s: valid until %s", what, _day(loaded.ends))
        elif warning == 0:
            logger.error("certificate %s: no longer valid, since %s", what, _day(loaded.ends))
        else:
            logger.warning("certificate %s: valid until %s only, which is in less than %d days", what,
                           _day(loaded.ends), warning)


def given(config: Config) -> list[tuple[str, Certificate]]:
    """All certificates that are named, the default one first, each with its section of the configuration."""
    if not config.tls.certificate:
        return []
    return [("tls", Certificate(config.tls.certificate, config.tls.key)),
            *((f"certificates[{index}]", each) for index, each in enumerate(config.certificates))]


def _day(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
