"""Certificates in PEM files: what is in them, and what is wrong with them, in words."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.config_tls import Certificate
from dragoman.reasons import reason

_KINDS = {"CERTIFICATE": "certificate", "PRIVATE KEY": "private key", "X509 CRL": "revocation list"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A certificate that can be used, with its key beside it."""

    certificate: str  # the file; the certificates of issuers follow ours
    key: str  # the file
    der: bytes  # ours alone
    names: tuple[str, ...]  # hosts that it is for, in lower case; "*.example.com" for any one label before that
    begins: int  # ms since the epoch
    ends: int  # ms since the epoch
    binding: bytes  # tls-server-end-point (RFC 5929, section 4.1); b"" where that is not defined


def load(given: Certificate, where: str) -> Loaded:
    """Read the files of a certificate. `where` is the section of the configuration that names them.

    Raises: ValueError, with a line for each problem.
    """
    key = given.key or given.certificate
    problems = [*filter(None, [unreadable(f"{where}.certificate", given.certificate),
                               unreadable(f"{where}.key", given.key)])]
    try:
        problems = problems or [*filter(None, [absent(f"{where}.certificate", given.certificate, "CERTIFICATE"),
                                               _no_key(f"{where}.key", key)])]
        if not problems:
            # OpenSSL asks at the terminal for a passphrase if nobody else answers
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(given.certificate, key, password=lambda: "")
            return _describe(given, key)
    except Exception as error:  # those of x509 have no class in common
        raise ValueError(f"{where}.certificate {given.certificate} and its key cannot be used: "
                         f"{reason(error)}") from None
    raise ValueError("\n".join(problems))


def unreadable(key: str, path: str) -> str:
    """The problem with a file, "" without one."""
    try:
        if path:
            open(path, "rb").close()
    except OSError as error:
        return f"{key} {path} cannot be read: {error.strerror}"
    return ""


def absent(key: str, path: str, kind: str) -> str:
    """The problem with what is in a file that is to have a PEM block of this kind, "" without one: OpenSSL only says
    `PEM lib`."""
    if f"{kind}-----".encode() not in Path(path).read_bytes():
        return f"{key}: there is no {_KINDS[kind]} in PEM form in {path}"
    return ""


def _no_key(key: str, path: str) -> str:
    missing = absent(key, path, "PRIVATE KEY")
    if missing:
        return missing
    if b"ENCRYPTED" in Path(path).read_bytes():
        return f"{key}: the private key in {path} is protected by a passphrase; `openssl pkey` writes it without"
    return ""


def _describe(given: Certificate, key: str) -> Loaded:
    """Raises: OSError, and whatever there may be wrong with a certificate."""
    from cryptography import x509  # takes its time to load, and a broker without TLS needs none of it
    from cryptography.hazmat.primitives.serialization import Encoding

    ours = x509.load_pem_x509_certificates(Path(given.certificate).read_bytes())[0]
    return Loaded(given.certificate, key, ours.public_bytes(Encoding.DER), given.names or _names(ours),
                  int(ours.not_valid_before_utc.timestamp() * 1000), int(ours.not_valid_after_utc.timestamp() * 1000),
                  _binding(ours))


def _names(ours: Any) -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = ours.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = found.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [str(each.value) for each in ours.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return tuple(name.lower().rstrip(".") for name in names)


def _binding(ours: Any) -> bytes:
    """A hash of the certificate, by what its signature hashes with, or SHA-256 in place of MD5 and SHA-1."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes

    try:
        hashed = ours.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return b""
    if hashed is None:  # Ed25519, Ed448: RFC 5929 leaves those undefined
        return b""
    if isinstance(hashed, hashes.MD5 | hashes.SHA1):
        hashed = hashes.SHA256()
    made: bytes = ours.fingerprint(hashed)
    return made
