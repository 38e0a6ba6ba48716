"""Files for TLS: what is in them, and what is wrong with them, in words.

What can be used is kept in memory, so that a file that is damaged later takes away nothing, and contexts can be made
anew at any time.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dragoman.config_tls import Certificate
from dragoman.reasons import reason

CERTIFICATE, KEY, CRL = "CERTIFICATE", "PRIVATE KEY", "X509 CRL"  # kinds of blocks in PEM files
_KINDS = {CERTIFICATE: "certificate", KEY: "private key", CRL: "revocation list"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A certificate that can be used, with its key."""

    file: str  # which has it; the certificates of its issuers follow it there
    der: bytes  # the certificate alone
    names: tuple[str, ...]  # hosts that it is for, in lower case; "*.example.com" for any one label before that
    begins: int  # ms since the epoch
    ends: int  # ms since the epoch
    binding: bytes  # tls-server-end-point (RFC 5929, section 4.1); b"" where that is not defined
    chain: bytes = field(repr=False)  # the file
    key: bytes = field(repr=False)  # the key's file

    def give_to(self, context: ssl.SSLContext) -> None:
        """Have it shown by this context. Raises: OSError, ValueError."""
        with _as_file(self.chain) as chain, _as_file(self.key) as key:
            context.load_cert_chain(chain, key, password=lambda: "")  # or OpenSSL asks for one at the terminal


def load(given: Certificate, where: str) -> Loaded:
    """Read the files of a certificate. `where` is the section of the configuration that names them.

    Raises: ValueError, with a line for each problem.
    """
    problems = []
    contents = []
    for name, path, kind in (("certificate", given.certificate, CERTIFICATE),
                             ("key", given.key or given.certificate, KEY)):
        try:
            contents.append(read(f"{where}.{name}", path, kind))
        except ValueError as error:
            problems.append(str(error))
            if not given.key:
                break  # the same file
    if problems:
        raise ValueError("\n".join(problems))
    try:
        made = _describe(given, *contents)
        made.give_to(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except Exception as error:  # those of x509 have no class in common
        raise ValueError(f"{where}.certificate {given.certificate} and its key cannot be used: "
                         f"{reason(error)}") from None
    return made


def read(key: str, path: str, kind: str) -> bytes:
    """The content of a file that is to have a block of this kind. Raises: ValueError."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ValueError(f"{key} {path} cannot be read: {error.strerror}") from None
    if f"{kind}-----".encode() not in content:  # OpenSSL would only say `PEM lib`
        raise ValueError(f"{key}: there is no {_KINDS[kind]} in PEM form in {path}")
    if kind == KEY and b"ENCRYPTED" in content:
        raise ValueError(f"{key}: the private key in {path} is protected by a passphrase; `openssl pkey` writes it "
                         "without")
    if kind != KEY:
        try:
            trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), content)
        except (OSError, ValueError) as error:
            raise ValueError(f"{key} {path} cannot be used: {reason(error)}") from None
    return content


def trust(context: ssl.SSLContext, content: bytes) -> None:
    """Have a context check by these issuers, or revocation lists. Raises: OSError, ValueError."""
    with _as_file(content) as path:
        context.load_verify_locations(path)


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A file with this content: the ssl module reads keys and revocation lists from nothing else."""
    number = os.memfd_create("pem")
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def _describe(given: Certificate, chain: bytes, key: bytes) -> Loaded:
    """Raises whatever there may be wrong with a certificate."""
    from cryptography import x509  # takes its time to load, and a broker without TLS needs none of it
    from cryptography.hazmat.primitives.serialization import Encoding

    ours = x509.load_pem_x509_certificates(chain)[0]
    names = tuple(name.lower().rstrip(".") for name in given.names) or _names(ours)
    return Loaded(given.certificate, ours.public_bytes(Encoding.DER), names,
                  int(ours.not_valid_before_utc.timestamp() * 1000), int(ours.not_valid_after_utc.timestamp() * 1000),
                  _binding(ours), chain, key)


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
