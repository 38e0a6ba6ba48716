"""What `dragoman tls check` says of a file of certificates."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dragoman.config_tls import Certificate
from dragoman.reasons import reason
from dragoman.tls_files import load

_SOON = timedelta(days=30)
_WEAK = (hashes.MD5, hashes.SHA1)
_RSA_BITS = 2048


def report(given: Certificate, with_key: bool) -> tuple[list[str], list[str]]:
    """Lines for people, and what a client would object to. with_key: whether to look at the key as well."""
    try:
        chain = x509.load_pem_x509_certificates(Path(given.certificate).read_bytes())
        if with_key:
            load(given, "tls")
    except (OSError, ValueError) as error:
        return [given.certificate], [reason(error)]
    ours = chain[0]
    lines = [given.certificate, f"  subject      {_name(ours.subject)}",
             f"  names        {', '.join(_names(ours)) or 'none'}", f"  key          {_kind(ours)}",
             f"  valid        {_time(ours.not_valid_before_utc)} to {_time(ours.not_valid_after_utc)}",
             f"  fingerprint  SHA-256 {ours.fingerprint(hashes.SHA256()).hex(':')}"]
    lines += [f"  issued by    {_name(each.issuer)}" for each in chain]
    lines += [f"  clients have to trust {_name(chain[-1].issuer)}"]
    problems = [*_of_one(ours), *_of_chain(chain)]
    if not _names(ours):
        problems.append("it names no host among its alternative names: clients do not look at the subject any more")
    key = given.key or given.certificate
    if with_key and os.stat(key).st_mode & stat.S_IRWXO:
        problems.append(f"its key {key} can be read by others: chmod 600")
    return lines, problems


def _of_one(certificate: x509.Certificate) -> list[str]:
    found = []
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        found.append(f"no longer valid, since {_time(certificate.not_valid_after_utc)}")
    elif now + _SOON > certificate.not_valid_after_utc:
        found.append(f"valid for {(certificate.not_valid_after_utc - now).days} days only")
    if now < certificate.not_valid_before_utc:
        found.append(f"not valid yet, only from {_time(certificate.not_valid_before_utc)}")
    if isinstance(certificate.signature_hash_algorithm, _WEAK):
        found.append(f"its signature uses {certificate.signature_hash_algorithm.name}")
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_BITS:
        found.append(f"its key has {key.key_size} bits only")
    return found


def _of_chain(chain: list[x509.Certificate]) -> list[str]:
    """What is wrong between a certificate and those of its issuers that follow it."""
    found = []
    for below, above in zip(chain, chain[1:], strict=False):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            found.append(f"{_name(below.subject)} is not issued by what follows it, {_name(above.subject)}")
        found += [f"of its issuer {_name(above.subject)}: {problem}" for problem in _of_one(above)]
    return found


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _name(name: x509.Name) -> str:
    return name.rfc4514_string() or "nobody"


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def _kind(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA, {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"elliptic curve {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey").lstrip("_")
