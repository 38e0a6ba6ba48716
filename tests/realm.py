"""A realm of Kerberos: MIT's KDC, started beside ours, with a few principals.

    with realm(tmp_path) as made:                    # sets KRB5_CONFIG for this process and those that it starts
        Kerberos("realm", KerberosSettings(str(made.keytab)), run)
        made.tickets("alice")                        # the file of her tickets

The broker is amqp/localhost; alice and bob have the password "secret".
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers import Peer, PeerMissing, free_ports, listening

REALM = "EXAMPLE.ORG"
SERVICE = f"amqp/localhost@{REALM}"
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"

_CONFIG = """
[libdefaults]
default_realm = {realm}
dns_lookup_realm = false
dns_lookup_kdc = false
dns_canonicalize_hostname = false
rdns = false
udp_preference_limit = 1
[realms]
{realm} = {{
    kdc = 127.0.0.1:{port}
}}
"""

_KDC = """
[kdcdefaults]
kdc_listen = 127.0.0.1:{port}
kdc_tcp_listen = 127.0.0.1:{port}
[realms]
{realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/acl
}}
"""


class Realm:
    """What clients and servers of it need."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.keytab = folder / "broker.keytab"

    def tickets(self, user: str) -> Path:
        """A file with the user's tickets, as kinit gets them."""
        path = self.folder / f"{user}.tickets"
        subprocess.run(["kinit", "-c", f"FILE:{path}", user], input=b"secret\n", env=self.environment, check=True,
                       capture_output=True)
        return path


@contextmanager
def realm(folder: Path) -> Iterator[Realm]:
    """Raises PeerMissing, PeerFailed."""
    for program in ("krb5kdc", "kdb5_util", "kadmin.local", "kinit"):
        if shutil.which(program, path=PATH) is None:
            raise PeerMissing("Kerberos is not installed: apt-get install krb5-kdc krb5-admin-server krb5-user")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    (folder / "krb5.conf").write_text(_CONFIG.format(realm=REALM, port=port))
    (folder / "kdc.conf").write_text(_KDC.format(realm=REALM, port=port, folder=folder))
    settings = {"KRB5_CONFIG": str(folder / "krb5.conf"), "KRB5_KDC_PROFILE": str(folder / "kdc.conf"),
                "KRB5RCACHENAME": f"dfl:{folder}"}
    made = Realm(folder, {**os.environ, "PATH": PATH, **settings})

    def run(*command: str) -> None:
        subprocess.run(command, env=made.environment, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    run("kdb5_util", "create", "-s", "-P", "master", "-r", REALM)
    for user in ("alice", "bob"):
        run("kadmin.local", "-q", f"addprinc -pw secret {user}")
    for service in (SERVICE, "other/localhost"):
        run("kadmin.local", "-q", f"addprinc -randkey {service}")
    run("kadmin.local", "-q", f"ktadd -k {made.keytab} {SERVICE}")
    before = {name: os.environ.get(name) for name in settings}
    peer = Peer("127.0.0.1", port, folder / "output.log", made.environment, [])
    try:
        os.environ.update(settings)
        peer.begin(["krb5kdc", "-n", "-r", REALM, "-P", str(folder / "pid")], lambda: listening(port))
        yield made
    finally:
        peer.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
