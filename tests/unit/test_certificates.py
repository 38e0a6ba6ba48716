"""Users by certificates: whose name a certificate has, and whether it is good still."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from broker.security.certificates import Certificates, CertificateSettings
from broker.security.identity import Identity, Peer
from broker.security.provider import Provider, Refusal
from tests.authority import Authority, der, pem
from tests.provider_kit import Threads, by_certificate, identity, refusal

CA = Authority("Test CA")
SUBJECT = x509.Name([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
                     x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "org"),
                     x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Shop, Inc."),
                     x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "tills"),
                     x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "stock"),
                     x509.NameAttribute(NameOID.COMMON_NAME, "till-1")])
NAMES = [x509.DNSName("till-1.example.org"), x509.DNSName("till.example.org"), x509.RFC822Name("till@example.org"),
         x509.UniformResourceIdentifier("spiffe://example.org/till")]
TILL, _ = CA.issue(SUBJECT, NAMES)


def ask(certificate: x509.Certificate, wanted: str = "", **settings: Any) -> Identity | Refusal:
    made = Certificates("cards", CertificateSettings(**settings), Threads().run)
    return by_certificate(made, der(certificate), wanted)


@pytest.mark.parametrize(("settings", "user"), [
    ({}, "till-1"),
    ({"user_from": "common_name"}, "till-1"),
    ({"user_from": "distinguished_name"}, "CN=till-1,OU=stock,OU=tills,O=Shop\\, Inc.,DC=org,DC=example"),
    ({"user_from": "name_at_domain"}, "till-1@example.org"),
    ({"user_from": "subject_alternative_name"}, "till-1.example.org"),
    ({"user_from": "subject_alternative_name", "name_index": 1}, "till.example.org"),
    ({"user_from": "subject_alternative_name", "name_kind": "email"}, "till@example.org"),
    ({"user_from": "subject_alternative_name", "name_kind": "uri"}, "spiffe://example.org/till"),
    ({"pattern": r"till-(\d+)", "rewrite": r"t\1"}, "t1"),
    ({"pattern": r"till-\d+"}, "till-1")])
def test_the_user_of_a_certificate(settings: dict[str, object], user: str) -> None:
    found = identity(ask(TILL, **settings))
    assert (found.user, found.provider) == (user, "cards")


@pytest.mark.parametrize("settings", [
    {"user_from": "subject_alternative_name", "name_index": 2},
    {"user_from": "subject_alternative_name", "name_kind": "ip"},
    {"pattern": "till"}, {"pattern": "ill-1"}, {"pattern": "(x?)till-1", "rewrite": r"\1"}])
def test_a_certificate_that_is_for_nobody_here(settings: dict[str, object]) -> None:
    assert refusal(ask(TILL, **settings)).unknown


@pytest.mark.parametrize("names", [[], ["a", "b"], ["a\0b"], ["a\nb"]])
def test_a_subject_that_is_no_name(names: list[str]) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in names])
    refusal(ask(CA.issue(subject)[0]))


def test_groups_of_the_subject() -> None:
    assert identity(ask(TILL)).groups == frozenset()
    assert identity(ask(TILL, groups_from="OU")).groups == {"tills", "stock"}


def test_who_a_client_asks_to_be_is_who_the_certificate_is_for() -> None:
    assert identity(ask(TILL, "till-1")).user == "till-1"
    assert not refusal(ask(TILL, "admin")).unknown


def test_no_certificate_or_none_that_can_be_read() -> None:
    made = Certificates("cards", CertificateSettings(), Threads().run)
    assert refusal(by_certificate(made, b"")).unknown
    for data in (b"\x30\x00", b"x", der(TILL)[:-10]):
        refusal(by_certificate(made, data))


@given(st.binary(max_size=40), st.integers(0, len(der(TILL)) - 1))
def test_damaged_certificates_raise_nothing(junk: bytes, at: int) -> None:
    made = Certificates("cards", CertificateSettings(issuers=""), Threads().run)
    by_certificate(made, der(TILL)[:at] + junk + der(TILL)[at + len(junk):])


@pytest.mark.parametrize(("age", "reason"), [(20, "has expired"), (-1, "is not valid yet")])
def test_a_certificate_out_of_its_time(age: int, reason: str) -> None:
    answer = refusal(ask(CA.issue("till-2", age=age)[0]))
    assert (answer.reason, answer.unknown) == (f"the certificate of 'till-2' {reason}", False)


def test_only_the_issuers_that_are_named_count(tmp_path: Path) -> None:
    impostor = Authority("Test CA")  # of the same name, with another key
    issuers = str(CA.save(tmp_path / "ca.pem"))
    assert identity(ask(TILL, issuers=issuers)).user == "till-1"
    assert refusal(ask(impostor.issue("till-1")[0], issuers=issuers)).unknown
    assert refusal(ask(Authority("Other").issue("till-1")[0], issuers=issuers)).unknown


@pytest.fixture
def issuers(tmp_path: Path) -> str:
    return str(CA.save(tmp_path / "ca.pem"))


def lists(tmp_path: Path, issuers: str, *files: bytes, **more: Any) -> Certificates:
    paths = []
    for index, data in enumerate(files):
        paths.append(tmp_path / f"{index}.crl")
        paths[-1].write_bytes(data)
    settings = CertificateSettings(issuers=issuers, revocation_lists=tuple(map(str, paths)), **more)
    return Certificates("cards", settings, Threads().run)


@pytest.mark.parametrize("form", [pem, der])
def test_a_revoked_certificate(tmp_path: Path, issuers: str, form: Callable[..., bytes]) -> None:
    other, _ = CA.issue("till-2")
    made = lists(tmp_path, issuers, form(CA.revoke(other)))
    assert identity(by_certificate(made, der(TILL))).user == "till-1"
    answer = refusal(by_certificate(made, der(other)))
    assert (answer.reason, answer.unknown) == ("the certificate of 'till-2' is revoked", False)


def replace(path: Path, data: bytes) -> None:
    (path.parent / "new").write_bytes(data)
    os.replace(path.parent / "new", path)


def test_a_list_that_changes_is_read_again(tmp_path: Path, issuers: str, caplog: pytest.LogCaptureFixture) -> None:
    made = lists(tmp_path, issuers, pem(CA.revoke()))
    assert isinstance(by_certificate(made, der(TILL)), Identity)
    path = tmp_path / "0.crl"
    replace(path, pem(CA.revoke(TILL)))
    assert "is revoked" in refusal(by_certificate(made, der(TILL))).reason
    caplog.clear()
    for bad in (b"junk", pem(Authority("Test CA").revoke())):  # the old list counts further
        replace(path, bad)
        for _ in range(2):
            assert "is revoked" in refusal(by_certificate(made, der(TILL))).reason
    path.unlink()
    for _ in range(2):
        assert "is revoked" in refusal(by_certificate(made, der(TILL))).reason
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    replace(path, pem(CA.revoke()))
    assert isinstance(by_certificate(made, der(TILL)), Identity)


def test_a_list_out_of_date_refuses_by_choice(tmp_path: Path, issuers: str) -> None:
    old = pem(CA.revoke(age=3))
    assert "out of date" in refusal(by_certificate(lists(tmp_path, issuers, old), der(TILL))).reason
    assert isinstance(by_certificate(lists(tmp_path, issuers, old, stale_lists="accept"), der(TILL)), Identity)
    revoked = lists(tmp_path, issuers, pem(CA.revoke(TILL, age=3)), stale_lists="accept")
    assert "is revoked" in refusal(by_certificate(revoked, der(TILL))).reason
    assert isinstance(by_certificate(lists(tmp_path, issuers, old, pem(CA.revoke())), der(TILL)), Identity)


def test_who_was_let_in_stays_unless_the_certificate_is_known_to_be_bad(tmp_path: Path, issuers: str) -> None:
    old, _ = CA.issue("till-1", age=20)
    for files, certificate, stays in (
            ([CA.revoke(TILL)], TILL, False), ([CA.revoke(TILL, age=3)], TILL, False), ([CA.revoke()], TILL, True),
            ([CA.revoke(age=3)], TILL, True), ([CA.revoke()], old, True), ([CA.revoke(old)], old, False),
            ([], Authority("Other").issue("till-1")[0], False), ([], CA.issue("till-2")[0], False)):
        answers: list[Identity | Refusal] = []
        before = Identity("till-1")
        lists(tmp_path, issuers, *map(pem, files)).review(before, Peer(certificate=der(certificate)), answers.append)
        assert isinstance(answers[0], Identity) == stays, answers


def test_an_issuer_without_a_list_refuses_by_choice(tmp_path: Path) -> None:
    other = Authority("Other")
    both = tmp_path / "both.pem"
    both.write_bytes(pem(CA.certificate) + pem(other.certificate))
    answer = refusal(by_certificate(lists(tmp_path, str(both), pem(other.revoke())), der(TILL)))
    assert "an issuer without a revocation list" in answer.reason
    assert answer.trouble


def test_settings_that_cannot_be_used(tmp_path: Path, issuers: str) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk")
    crl = tmp_path / "list"
    crl.write_bytes(pem(Authority("Test CA", ec.generate_private_key(ec.SECP256R1())).revoke()))
    for settings in ({"issuers": str(junk)}, {"issuers": str(tmp_path / "none")}, {"pattern": "("},
                     {"rewrite": "x"}, {"pattern": "x", "rewrite": r"\1"}, {"revocation_lists": (str(crl),)},
                     {"issuers": issuers, "revocation_lists": (str(junk),)},
                     {"issuers": issuers, "revocation_lists": (str(tmp_path / "none"),)},
                     {"issuers": issuers, "revocation_lists": (str(crl),)}):  # it is signed by another key
        with pytest.raises(ValueError, match=r"\w"):
            Certificates("cards", CertificateSettings(**settings), Threads().run)


def test_it_answers_for_certificates_only() -> None:
    made: Provider = Certificates("cards", CertificateSettings(), Threads().run)
    assert made.mechanisms() == {"EXTERNAL"}
    answers: list[Identity | Refusal] = []
    made.check_password("till-1", b"x", Peer(certificate=der(TILL)), answers.append)
    assert refusal(answers[0]).unknown
