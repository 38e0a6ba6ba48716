"""Verifiers of passwords: their text forms, what they match, what is refused."""

from __future__ import annotations

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.security.passwords import CRAM_MD5, SCHEMES, new_verifier, parse_verifier, saslprep

# Made by the package scramp 1.5.0, an implementation of SCRAM that shares nothing with ours.
SCRAM_SHA_256 = ("SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$nQpbZ77WudtqufPwikHXGRt6g2QJ4zns8bZLw273DRM="
                 ":jn2amWP1q1h+jgjy0YTO14S6/F02SV7taipOeB7ef20=")
FOREIGN = [
    ("SCRAM-SHA-1$4096:MDEyMzQ1Njc4OWFiY2RlZg==$rPJ7iPSJer+bnDr9PCWJNRIA68M=:rcHjOyVIe4jH3uaHsm83lApzxlo=", "pencil"),
    (SCRAM_SHA_256, "pencil"),
    ("SCRAM-SHA-512$5000:MDEyMzQ1Njc4OWFiY2RlZg==$27dspe93acY/ecLNXIMRt//dNeJn4AjBfmcqKrzA3FcMn2XJbP/EaxxOL7OMYr87YejR"
     "FaBZra27F/mwOKMVlQ==:VAWm1P2Z0HfvKH4ByGLSF4uhaxPagxrqTBXLYj6Ju+d/N/pwKqMv+8Wn2OozyLIjm24uh2bnHj8gf24Zn57JzQ==",
     "pencil"),
    ("SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$2431zhUYS1X6DMxIacQAjJ3H3U0GuMao2FZkOqSIcsA="
     ":KXGA4P3XhDkDvTJc3MsN9/R0zydfyVP6ba7MenxVLlE=", "I\u00adX \u2168"),  # SASLprep makes "IX IX" of it
    ("CRAM-MD5$e02d374fde0dc75a17a557039a3a5338c7743304777dccd376f332bee68d2cf6", "test"),  # Dovecot's, of its manual
    (argon2.PasswordHasher(memory_cost=512, time_cost=1).hash("pencil"), "pencil"),
]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("password", ["secret", "p\u00e4ss w\u00f6rt", "\u5bc6\u7801", "x" * 5000, "a\u0007bell"])
def test_a_new_verifier_matches_its_password_and_no_other(scheme: str, password: str) -> None:
    made = new_verifier(password, scheme)
    again = parse_verifier(made.text)
    assert (again.scheme, again.text) == (scheme, made.text)
    assert again.matches(password.encode())
    for other in (password.encode() + b"x", password.encode()[:-1], b"", b"\xff\xfe not UTF-8"):
        assert not again.matches(other)


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != CRAM_MD5])  # which has no salt
def test_every_verifier_has_its_own_salt_and_hides_the_password(scheme: str) -> None:
    made = [new_verifier("correct horse", scheme).text for _ in range(2)]
    assert made[0] != made[1]
    assert "correct" not in made[0]


@pytest.mark.parametrize("text, password", FOREIGN, ids=range(len(FOREIGN)))
def test_verifiers_that_others_made_are_read(text: str, password: str) -> None:
    verifier = parse_verifier(text)
    assert verifier.text == text
    assert verifier.matches(password.encode())
    assert not verifier.matches(password.encode() + b"2")


def test_argon2_is_the_default_in_a_form_that_others_read() -> None:
    made = new_verifier("secret")
    assert made.text.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert argon2.PasswordHasher().verify(made.text, "secret")


@pytest.mark.parametrize("password", ["", "nul\0inside", "\ud800"])
def test_passwords_that_cannot_be_sent_are_refused(password: str) -> None:
    for scheme in SCHEMES:
        with pytest.raises(ValueError, match="a password must"):
            new_verifier(password, scheme)


def test_an_unknown_scheme_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'md5': use one of argon2, SCRAM-SHA-1, SCRAM-SHA-256, SCRAM-SHA-512"):
        new_verifier("secret", "md5")


SALT, HASH = "A" * 22, "A" * 43


@pytest.mark.parametrize("text, says", [
    ("hunter2", "never kept in clear"),
    ("", "never kept in clear"),
    (f"$argon2i$v=19$m=64,t=1,p=1${SALT}${HASH}", "not a verifier"),
    (f"$argon2id$v=16$m=64,t=1,p=1${SALT}${HASH}", "not a verifier"),
    (f"$argon2id$v=19$m=64,t=0,p=1${SALT}${HASH}", "out of bounds"),
    (f"$argon2id$v=19$m=64,t=1,p=9${SALT}${HASH}", "out of bounds"),  # argon2 needs 8 KiB a lane
    (f"$argon2id$v=19$m=99999999,t=1,p=1${SALT}${HASH}", "out of bounds"),
    (f"$argon2id$v=19$m=64,t=101,p=1${SALT}${HASH}", "out of bounds"),
    (f"$argon2id$v=19$m=64,t=1,p=1$AAAA${HASH}", "salt must have"),
    (f"$argon2id$v=19$m=64,t=1,p=1${SALT}$AAAA", "a hash 16 to 64"),
    (f"$argon2id$v=19$m=64,t=1,p=1${SALT}A${HASH}A"[:-3] + "AAA=", "not a verifier"),
    (f"$argon2id$v=19$m=64,t=1,p=1$AAAAA${HASH}", "damaged base64"),
    (SCRAM_SHA_256.replace("256", "224"), "unknown scheme SCRAM-SHA-224"),
    (SCRAM_SHA_256.replace("256", "512"), "its keys 64"),
    (SCRAM_SHA_256.replace("4096", "0"), "1 to 10000000"),
    (SCRAM_SHA_256.replace("4096", "10000001"), "1 to 10000000"),
    (SCRAM_SHA_256.replace("MDEyMzQ1Njc4OWFiY2RlZg==", "AAAA"), "salt must have"),
    (SCRAM_SHA_256.replace("MDEyMzQ1Njc4OWFiY2RlZg==", "A=AA"), "damaged base64"),
    (SCRAM_SHA_256 + ":x", "not a verifier"),
    (SCRAM_SHA_256 + "\n", "not a verifier"),
])
def test_what_is_not_a_verifier_is_refused_and_not_repeated(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_verifier(text)
    assert not text or text not in str(caught.value)


@given(st.one_of(st.text(), st.from_regex(r"(\$argon2id\$v=19\$m=\d{1,5},t=\d,p=\d\$|SCRAM-SHA-(1|256)\$\d+:)"
                                          r"[A-Za-z0-9+/=$:]{0,99}", fullmatch=True)))
def test_any_text_is_a_verifier_or_a_value_error(text: str) -> None:
    try:
        verifier = parse_verifier(text)
    except ValueError:
        return
    assert parse_verifier(verifier.text).text == verifier.text


@pytest.mark.parametrize("text, made", [  # RFC 4013, section 3
    ("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")])
def test_saslprep(text: str, made: str) -> None:
    assert saslprep(text) == made


@pytest.mark.parametrize("text", ["\u0007", "\u06271", "\u0627a\u0627", "\ud800", "\ufffd"])
def test_saslprep_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        saslprep(text)
