"""A small issuer of certificates, for a first trial: its own certificate, one for the broker, and ones for clients."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY, SERVER = "ca", "server"
"""How the files of the issuer's and the broker's certificates begin."""

_HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_YEARS = 10  # of the issuer
_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


class Issuer:
    """In a folder: `ca.pem` and `ca-key.pem`, made when they are not there."""

    def __init__(self, folder: Path) -> None:
        """Raises: OSError; ValueError if what is there is no issuer of ours."""
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate, key = self.files(AUTHORITY)
        if not certificate.exists() and not key.exists():
            self._key = ec.generate_private_key(ec.SECP256R1())
            called = f"Dragoman trial on {socket.gethostname()}"[:64]
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])
            builder = _builder(name, name, self._key.public_key(), _YEARS * 365)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
            self.certificate = builder.sign(self._key, hashes.SHA256())
            self._write(AUTHORITY, self.certificate, self._key)
        else:
            self.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
            loaded = load_pem_private_key(key.read_bytes(), None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey) or \
                    loaded.public_key() != self.certificate.public_key():
                raise ValueError(f"{key} does not belong to {certificate}")
            self._key = loaded

    def files(self, name: str) -> tuple[Path, Path]:
        """Of a certificate and its key."""
        return self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"

    def server(self, names: Sequence[str], days: int) -> list[str]:
        """A certificate for the broker; its names, which are this machine's and those given. Raises: OSError,
        ValueError."""
        wanted = list(dict.fromkeys(["localhost", socket.gethostname(), "127.0.0.1", "::1", *names]))
        alternatives = x509.SubjectAlternativeName([_general_name(each) for each in wanted])
        self._issue(SERVER, wanted[-1] if names else wanted[0], days, ExtendedKeyUsageOID.SERVER_AUTH, alternatives)
        return wanted

    def names(self) -> set[str]:
        """Those of the broker's certificate. Raises: OSError, ValueError."""
        found = x509.load_pem_x509_certificate(self.files(SERVER)[0].read_bytes())
        try:
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return set()
        return {str(each.value) for each in names}

    def client(self, name: str, days: int, renew: bool) -> bool:
        """A certificate for a client, whose common name is the user. Whether it was made: one that is there stays,
        unless it is to be renewed. Raises: OSError, ValueError."""
        if not name or len(name) > 64 or "/" in name or name in (AUTHORITY, SERVER) or name.startswith("."):
            raise ValueError(f"{name!r} cannot be the name of a client and of its files")
        if not renew and all(each.exists() for each in self.files(name)):
            return False
        self._issue(name, name, days, ExtendedKeyUsageOID.CLIENT_AUTH, None)
        return True

    def _issue(self, file: str, name: str, days: int, use: x509.ObjectIdentifier,
               alternatives: x509.SubjectAlternativeName | None) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
        builder = _builder(subject, self.certificate.subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage("digital_signature"), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        self._write(file, builder.sign(self._key, hashes.SHA256()), key)

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        public, private = self.files(name)
        # The key first: a broker that uses these files takes them up once both are there.
        _write(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        _write(public, certificate.public_bytes(Encoding.PEM), 0o644)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey,
             days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - timedelta(hours=1),
                                   now + timedelta(days=days))
    return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{each: each in uses for each in _USES})


def _general_name(text: str) -> x509.GeneralName:
    """Raises: ValueError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no host name: write it in letters of ASCII, others as xn--...")
    return x509.DNSName(text)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file at once, with these rights from its beginning."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    new.replace(path)
