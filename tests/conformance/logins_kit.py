"""The broker that clients of all languages log in to: with passwords, certificates, a revoked one, and as nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from broker.security.users import PasswordFile
from tests.authority import Authority, pem
from tests.tls_kit import Setting, issue, setting

LISTENERS = """
[[listeners]]
port = 0
client_certificates = "want"
anonymous = true
[[listeners]]
port = 0
tls = "always"
"""
CONFIG = """
client_ca = "{folder}/ca.pem"
[authentication]
users_file = "{folder}/users"
mechanisms = ["EXTERNAL", {mechanisms}, "PLAIN", "AMQPLAIN"]
[[providers]]
name = "cards"
kind = "certificates"
issuers = "{folder}/ca.pem"
revocation_lists = ["{folder}/revoked.pem"]
"""


@contextmanager
def logins(folder: Path, challenges: Sequence[str]) -> Iterator[Setting]:
    """It knows `shop` by the password `secret`, and the certificates till.pem and, revoked, lost.pem. challenges: the
    mechanisms that it offers beside EXTERNAL, PLAIN and AMQPLAIN. Its log must be without tracebacks in the end."""
    authority = Authority("Test CA")
    issue(authority, folder / "till.pem", "till", ())
    lost = issue(authority, folder / "lost.pem", "lost", ())
    (folder / "revoked.pem").write_bytes(pem(authority.revoke(lost)))
    file = PasswordFile(str(folder / "users"))
    file.set("shop", "secret", *challenges)
    file.save()
    names = ", ".join(f'"{each}"' for each in challenges)
    with setting(folder, CONFIG.format(folder=folder, mechanisms=names), LISTENERS, authority) as made:
        yield made
        assert "Traceback" not in made.broker.log()
