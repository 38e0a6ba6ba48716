"""The keys for TLS at our own listeners."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dragoman.config_keys import Kind
from dragoman.config_keys import key as _key

if TYPE_CHECKING:
    from dragoman.config import Listener


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates for listeners; PEM files. What changes in the files is taken up within seconds."""

    certificate: str = _key("", Kind.PATH, "Our certificate, followed by those of its issuers. Empty: no TLS.")
    key: str = _key("", Kind.PATH, "The certificate's private key. Empty: it is in the certificate's file.")
    client_ca: str = _key("", Kind.PATH, "Issuers of client certificates, for listeners that name none of their own.")
    client_revocation_lists: tuple[str, ...] = _key(
        (), Kind.PATHS, "Lists of client certificates that their issuers have revoked (PEM). With any, each issuer "
        "needs one, and one that is not out of date.")
    minimum: str = _key("1.2", Kind.TEXT, "The oldest version of TLS that is spoken.", choices=("1.2", "1.3"))
    ciphers: str = _key("", Kind.TEXT, "Ciphers for TLS 1.2, as OpenSSL writes them. Empty: those with forward "
                        "secrecy (ECDHE) and authenticated encryption (AES-GCM, ChaCha20).")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A further certificate, for clients that ask for one of its names (SNI); others get that of `[tls]`."""

    certificate: str = _key("", Kind.PATH, "The certificate, followed by those of its issuers.")
    key: str = _key("", Kind.PATH, "The certificate's private key. Empty: it is in the certificate's file.")
    names: tuple[str, ...] = _key((), Kind.TEXTS, "Host names; `*.example.com` is for any one label before that. "
                                  "Empty: those that are in the certificate.")


@dataclass(frozen=True, slots=True)
class Demand:
    """What a client has to show."""

    kind: str  # "none", "want" or "need"
    authorities: str  # the file of the issuers of its certificate; "" for "none"
    revoked: tuple[str, ...]  # files of their revocation lists


def demand(tls: Tls, listener: Listener) -> Demand:
    """What clients have to show that use TLS at this listener."""
    authorities = listener.client_ca or tls.client_ca
    kind = listener.client_certificates
    if kind == "auto":
        kind = "need" if authorities else "none"
    return Demand(kind, authorities, tls.client_revocation_lists) if kind != "none" else Demand(kind, "", ())


def refuses_plain(tls: Tls, listener: Listener) -> bool:
    """Whether clients without TLS are refused at this listener."""
    return listener.tls == "always" or (listener.tls == "detect" and bool(tls.certificate)
                                        and demand(tls, listener).kind == "need")


def tls_problems(tls: Tls, certificates: Sequence[Certificate], listeners: Sequence[Listener]) -> list[str]:
    """What is wrong between keys that are each right."""
    found = [f"certificates[{index}].certificate is not set" for index, each in enumerate(certificates)
             if not each.certificate]
    found += [f'certificates[{index}].names has "{name}" in it; it can be as "example.com" or "*.example.com"'
              for index, each in enumerate(certificates) for name in each.names if not _NAME.fullmatch(name)]
    if not tls.certificate:
        found += [f"tls.{name} is set, but tls.certificate is not"
                  for name in ("key", "client_ca", "client_revocation_lists") if getattr(tls, name)]
        found += ["certificates has further ones, but tls.certificate is not set"] if certificates else []
    for index, listener in enumerate(listeners):
        where, asked = f"listeners[{index}]", listener.client_certificates in ("want", "need")
        if not tls.certificate and listener.tls == "always":
            found.append(f'{where}.tls is "always", but tls.certificate is not set')
        if listener.tls == "never" and (asked or listener.client_ca):
            found.append(f'{where} asks for client certificates, but its tls is "never"')
        elif not tls.certificate and (asked or listener.client_ca):
            found.append(f"{where} asks for client certificates, but tls.certificate is not set")
        elif asked and not (listener.client_ca or tls.client_ca):
            found.append(f"{where} asks for client certificates, but names no client_ca, nor does tls")
    return found


_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
