"""Certificates made in the tests: an issuer, what it issues, and what it revokes.

    authority = Authority("Test CA")
    authority.save(folder / "ca.pem")
    certificate, key = authority.issue("localhost", names=[x509.DNSName("localhost")])
    save(folder / "server.pem", certificate, key)
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
"""What a server on this machine is called."""

_DAY = datetime.timedelta(days=1)


class Authority:
    """An issuer of certificates."""

    def __init__(self, name: str, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._builder(self.subject, self.key.public_key(), 0).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(self.key, hashes.SHA256())

    def save(self, path: Path) -> Path:
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, subject: str | x509.Name, names: Sequence[x509.GeneralName] = (),
              age: int = 0) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate and its key. subject: a common name, or a whole name; age: days by which it is shifted."""
        key = ec.generate_private_key(ec.SECP256R1())
        if isinstance(subject, str):
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        builder = self._builder(subject, key.public_key(), age)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()), key

    def revoke(self, *certificates: x509.Certificate, age: int = 0) -> x509.CertificateRevocationList:
        """A revocation list with these. age: days by which it is shifted; it is good for one day."""
        now = datetime.datetime.now(datetime.UTC) - age * _DAY
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.subject)
        builder = builder.last_update(now - datetime.timedelta(minutes=5)).next_update(now + _DAY)
        for each in certificates:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(each.serial_number).revocation_date(now).build())
        return builder.sign(self.key, hashes.SHA256())

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, age: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC) - age * _DAY
        return x509.CertificateBuilder(self.subject, subject, key, x509.random_serial_number(),
                                       now - datetime.timedelta(minutes=5), now + 10 * _DAY)


def pem(certificate: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def der(certificate: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def save(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Path:
    """A PEM file with both."""
    path.write_bytes(pem(certificate) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path
