"""Users by their client certificates (SASL EXTERNAL, MQTT over TLS): who a certificate is for, and whether it still is.

TLS has verified the certificate against the listener's issuers before. Here it is made a user's name, and looked up in
revocation lists (RFC 5280, section 5). A provider may have issuers of its own: it then knows certificates that one of
these signed itself and no others, so that several providers can share a listener.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID, NameOID

from broker.security.files import Stamp, read_file, stamp_of
from broker.security.identity import Identity, Peer
from broker.security.provider import Answer, Provider, Refusal, Run, is_name, shown

logger = logging.getLogger(__name__)

COMMON_NAME, DISTINGUISHED_NAME = "common_name", "distinguished_name"
ALTERNATIVE_NAME, NAME_AT_DOMAIN = "subject_alternative_name", "name_at_domain"
USER_FROM = (COMMON_NAME, DISTINGUISHED_NAME, ALTERNATIVE_NAME, NAME_AT_DOMAIN)
"""Where a user's name is in a certificate. The first three are RabbitMQ's (`ssl_cert_login_from`), the last is what
qpidd makes of the subject: CN@DC.DC."""

NAME_KINDS = ("dns", "email", "uri", "ip")
"""Kinds of alternative names, by RabbitMQ's words (`ssl_cert_login_san_type`)."""

NAME_LIMIT = 1024  # characters of a user's name, which may be a distinguished one

UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
              x509.UnsupportedGeneralNameType)
"""What the library raises for what is no certificate or list, or an odd one."""

_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_LIST = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """What certificates are good for whom."""

    user_from: str = COMMON_NAME
    name_kind: str = "dns"  # of alternative names
    name_index: int = 0  # which of those of that kind
    pattern: str = ""  # what a name must be, as a whole; a regular expression
    rewrite: str = ""  # what it becomes then: \1 stands for the pattern's first group; "": the name as it is
    groups_from: str = ""  # an attribute of the subject whose values are groups: "OU" or "O"
    issuers: str = ""  # PEM file of those who sign the certificates themselves; "": whoever TLS trusts
    revocation_lists: tuple[str, ...] = ()  # files, PEM or DER, of these issuers
    stale_lists: str = "refuse"  # or "accept": what of certificates whose issuer's list is missing or out of date


class Certificates(Provider):
    """Users by certificates.

    Raises: ValueError for settings and files that cannot be used.
    """

    def __init__(self, name: str, settings: CertificateSettings, run: Run,
                 now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)) -> None:
        self.name = name
        self._settings = settings
        self._run = run
        self._now = now
        _check(settings)
        self._pattern = re.compile(settings.pattern, re.DOTALL)
        self._issuers = _read_issuers(settings.issuers) if settings.issuers else []
        self._lists = [RevocationList(path, self._issuers, name) for path in settings.revocation_lists]

    def mechanisms(self) -> set[str]:
        return {"EXTERNAL"}

    def check_certificate(self, wanted: str, peer: Peer, answer: Answer) -> None:
        if not peer.certificate:
            answer(Refusal("the client has shown no certificate", unknown=True))
            return

        def checked(found: object | BaseException) -> None:
            answer(found if isinstance(found, Identity | Refusal) else
                   Refusal(f"the certificate cannot be used: {type(found).__name__}: {found}", trouble=True))
        self._run(lambda: self._judge(wanted, peer.certificate), checked)  # lists may have to be read again

    def review(self, identity: Identity, peer: Peer, answer: Answer) -> None:
        """Who was let in may stay beyond the end of his certificate, or of a list, but not when it was revoked."""
        def checked(found: object | BaseException) -> None:
            if isinstance(found, Identity) or isinstance(found, Refusal) and not found.trouble:
                answer(found)
            else:
                answer(identity)
        self._run(lambda: self._judge(identity.user, peer.certificate, late=True), checked)

    def _judge(self, wanted: str, data: bytes, late: bool = False) -> Identity | Refusal:
        """late: the certificate may have ended."""
        try:
            certificate = x509.load_der_x509_certificate(data)
            name = user_name(certificate, self._settings)
            groups = frozenset(_values(certificate.subject, self._settings.groups_from))
        except UNREADABLE as error:
            return Refusal(f"the certificate cannot be read: {error}")
        issuers = [each for each in self._issuers if issued(certificate, each)]
        if self._issuers and not issuers:
            return Refusal(f"the certificate of {shown(name)} is by none of the issuers here", unknown=True)
        if not is_name(name, NAME_LIMIT):
            return Refusal(f"the certificate has no {self._settings.user_from}, or one that is no name: {shown(name)}",
                           unknown=not name)
        user = self._rewritten(name)
        if not user:
            return Refusal(f"{shown(name)} in the certificate is not of the pattern", unknown=True)
        if wanted not in ("", user):
            return Refusal(f"the client asks to be {shown(wanted)} with the certificate of {shown(user)}")
        if not late and (reason := self._expired(certificate)):
            return Refusal(f"the certificate of {shown(user)} {reason}")
        return self._revoked(certificate, user) or Identity(user, groups, provider=self.name)

    def _rewritten(self, name: str) -> str:
        if not self._settings.pattern:
            return name
        found = self._pattern.fullmatch(name)
        if found is None:
            return ""
        return found.expand(self._settings.rewrite) if self._settings.rewrite else name

    def _expired(self, certificate: x509.Certificate) -> str:
        now = self._now()
        if now > certificate.not_valid_after_utc:
            return "has expired"
        return "is not valid yet" if now < certificate.not_valid_before_utc else ""

    def _revoked(self, certificate: x509.Certificate, user: str) -> Refusal | None:
        for each in self._lists:
            each.refresh()
        ours = [found for each in self._lists for found in each.lists if found.issuer == certificate.issuer]
        if any(_lists(each, certificate) for each in ours):
            return Refusal(f"the certificate of {shown(user)} is revoked")
        now = self._now()
        if not self._lists or self._settings.stale_lists == "accept" or any(_current(each, now) for each in ours):
            return None
        what = "whose revocation list is out of date" if ours else "without a revocation list"
        return Refusal(f"the certificate of {shown(user)} is by an issuer {what}", trouble=True)


class RevocationList:
    """A file of revocation lists, read again when it has changed.

    One that is not as it should be is not taken: what was read before counts further, until it is out of date.

    Raises: ValueError for a file that cannot be used to begin with.
    """

    def __init__(self, path: str, issuers: list[x509.Certificate], provider: str) -> None:
        self.lists: list[x509.CertificateRevocationList] = []
        self._path = path
        self._issuers = issuers
        self._provider = provider
        self._stamp: Stamp | None = None
        self._read()

    def refresh(self) -> None:
        try:
            stamp = stamp_of(os.stat(self._path))
            if stamp == self._stamp:
                return
            self._stamp = stamp  # so that a bad file is complained of once
            self._read()
        except OSError as error:
            if self._stamp is not None:
                logger.error("provider %s: %s cannot be read: %s; what it said before counts further", self._provider,
                             self._path, error.strerror)
            self._stamp = None
        except ValueError as error:
            logger.error("provider %s: %s; what the file said before counts further", self._provider, error)
        else:
            logger.info("provider %s: %s was read again", self._provider, self._path)

    def _read(self) -> None:
        """Raises: ValueError."""
        try:
            data, self._stamp = read_file(self._path)
        except OSError as error:
            raise ValueError(f"{self._path}: cannot be read: {error.strerror}") from None
        try:
            lists = [x509.load_pem_x509_crl(each) for each in _LIST.findall(data)] or [x509.load_der_x509_crl(data)]
        except UNREADABLE:
            raise ValueError(f"{self._path}: is no revocation list, in PEM or DER") from None
        for each in lists:
            reason = _unfit(each, self._issuers)
            if reason:
                raise ValueError(f"{self._path}: a revocation list in it {reason}")
        self.lists = lists


def user_name(certificate: x509.Certificate, settings: CertificateSettings) -> str:
    """Who a certificate is for, "" if it does not say. Raises one of UNREADABLE."""
    if settings.user_from == DISTINGUISHED_NAME:
        return certificate.subject.rfc4514_string()
    if settings.user_from == ALTERNATIVE_NAME:
        names = _alternative_names(certificate, settings.name_kind)
        return names[settings.name_index] if len(names) > settings.name_index else ""
    common = _values(certificate.subject, "CN")
    if len(common) != 1:  # of several it is open which one counts
        return ""
    domain = ".".join(_values(certificate.subject, "DC")) if settings.user_from == NAME_AT_DOMAIN else ""
    return f"{common[0]}@{domain}" if domain else common[0]


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether an issuer signed a certificate itself."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


_ATTRIBUTES = {"CN": NameOID.COMMON_NAME, "DC": NameOID.DOMAIN_COMPONENT, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
               "O": NameOID.ORGANIZATION_NAME}


def _values(subject: x509.Name, attribute: str) -> list[str]:
    if not attribute:
        return []
    return [str(each.value) for each in subject.get_attributes_for_oid(_ATTRIBUTES[attribute])]


def _alternative_names(certificate: x509.Certificate, kind: str) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    if kind == "ip":
        return [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    of: dict[str, type[x509.DNSName] | type[x509.RFC822Name] | type[x509.UniformResourceIdentifier]] = {
        "dns": x509.DNSName, "email": x509.RFC822Name, "uri": x509.UniformResourceIdentifier}
    return list(names.get_values_for_type(of[kind]))


def _lists(revoked: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    return revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def _current(revoked: x509.CertificateRevocationList, now: datetime.datetime) -> bool:
    until = revoked.next_update_utc
    return until is not None and revoked.last_update_utc <= now <= until


def _unfit(revoked: x509.CertificateRevocationList, issuers: Iterable[x509.Certificate]) -> str:
    """Why a list must not be used, or "": it is none of our issuers', or does not tell all (RFC 5280, section 5.2)."""
    try:
        signers = [each for each in issuers if each.subject == revoked.issuer]
        # A key that is not for signatures raises TypeError, which is one of UNREADABLE.
        if not any(revoked.is_signature_valid(each.public_key()) for each in signers):  # type: ignore[arg-type]
            return "is not signed by any of the issuers"
        for extension in revoked.extensions:
            if extension.critical and extension.oid != ExtensionOID.ISSUING_DISTRIBUTION_POINT:
                return f"has a part that is not understood: {extension.oid.dotted_string}"
            if isinstance(extension.value, x509.IssuingDistributionPoint):
                part = extension.value
                if part.indirect_crl or part.only_contains_ca_certs or part.only_contains_attribute_certs \
                        or part.only_some_reasons:
                    return "does not list all that its issuer has revoked"
    except UNREADABLE as error:
        return f"cannot be checked: {error}"
    return ""


def _read_issuers(path: str) -> list[x509.Certificate]:
    """Raises: ValueError."""
    try:
        with open(path, "rb") as file:
            found = [x509.load_pem_x509_certificate(each) for each in _CERTIFICATE.findall(file.read())]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UNREADABLE as error:
        raise ValueError(f"{path}: a certificate in it is damaged: {error}") from None
    if not found:
        raise ValueError(f"{path}: there is no certificate in it; it must be in PEM")
    return found


def _check(settings: CertificateSettings) -> None:
    """Raises: ValueError."""
    if settings.revocation_lists and not settings.issuers:
        raise ValueError("revocation_lists is set, but issuers is not: nobody could tell whether the lists are genuine")
    if settings.rewrite and not settings.pattern:
        raise ValueError("rewrite is set, but pattern is not")
    try:
        re.compile(settings.pattern).sub(settings.rewrite, "")
    except (re.error, IndexError) as error:
        raise ValueError(f"pattern or rewrite is not right: {error}") from None
