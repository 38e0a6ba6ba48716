"""OpenLDAP's slapd, started beside ours, with some users and groups.

    with slapd(tmp_path) as peer:            # LDAP on peer.port, ldaps on peer.tls_port with a certificate
        Ldap("directory", LdapSettings((f"ldap://127.0.0.1:{peer.port}",), ...), run)

alice (password wonderland) is in groups staff and, by memberUid, in posix; bob (builder) is in staff; "o'(m*)\\,"
(special) has a name that needs escapes everywhere, and is in odd; twin is there twice. The service account is SERVICE,
with the password service.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.peers import Peer, PeerMissing, free_ports, listening

SUFFIX = "dc=example,dc=org"
SERVICE = f"cn=service,{SUFFIX}"
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"

_MODULES = Path("/usr/lib/ldap")
_SCHEMAS = Path("/etc/ldap/schema")

_CONFIG = """
{schemas}
modulepath {modules}
moduleload back_mdb
moduleload memberof
allow bind_anon_cred
{tls}
database mdb
suffix "{suffix}"
rootdn "cn=root,{suffix}"
directory {data}
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=groups,{suffix}" by dn.exact="{service}" read by * none
access to * by dn.exact="{service}" read by self read by anonymous {anonymous} by * none
"""

_ENTRIES = f"""
dn: {SUFFIX}
objectClass: domain
dc: example

dn: {SERVICE}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: service
userPassword: service

dn: ou=people,{SUFFIX}
objectClass: organizationalUnit
ou: people

dn: ou=others,{SUFFIX}
objectClass: organizationalUnit
ou: others

dn: ou=groups,{SUFFIX}
objectClass: organizationalUnit
ou: groups

dn: uid=alice,ou=people,{SUFFIX}
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
mail: alice@example.org
memberOf: cn=staff,ou=groups,{SUFFIX}
userPassword: wonderland

dn: uid=bob,ou=people,{SUFFIX}
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
userPassword: builder

dn: uid=o'(m*)\\\\\\,,ou=people,{SUFFIX}
objectClass: inetOrgPerson
uid: o'(m*)\\,
cn: Odd
sn: O
userPassword: special

dn: cn=twin,ou=people,{SUFFIX}
objectClass: inetOrgPerson
uid: twin
cn: twin
sn: T
userPassword: twin

dn: cn=twin,ou=others,{SUFFIX}
objectClass: inetOrgPerson
uid: twin
cn: twin
sn: T
userPassword: twin

dn: cn=staff,ou=groups,{SUFFIX}
objectClass: groupOfNames
cn: staff
member: uid=alice,ou=people,{SUFFIX}
member: uid=bob,ou=people,{SUFFIX}

dn: cn=odd,ou=groups,{SUFFIX}
objectClass: groupOfNames
cn: odd
member: uid=o'(m*)\\\\\\,,ou=people,{SUFFIX}

dn: cn=posix,ou=groups,{SUFFIX}
objectClass: posixGroup
cn: posix
gidNumber: 1000
memberUid: alice
"""


class Slapd(Peer):
    """A running slapd. `tls_port` is 0 without a certificate. After `stop` or `kill`, `start` has it go on."""

    tls_port = 0

    def start(self) -> None:
        """Raises PeerFailed."""
        program = shutil.which("slapd", path=PATH) or ""
        places = f"ldap://127.0.0.1:{self.port}/" + (f" ldaps://127.0.0.1:{self.tls_port}/" if self.tls_port else "")
        self.begin([program, "-f", str(self.log.parent / "slapd.conf"), "-h", places, "-d", "0"],
                   lambda: listening(self.port))


@contextmanager
def slapd(folder: Path, certificate: Path | None = None, anonymous: str = "read") -> Iterator[Slapd]:
    """Debian's slapd with its data in `folder`. With a certificate (PEM, with its key) it takes ldaps and StartTLS.
    anonymous: what a client that has not logged in may do: "read" or "auth".

    Raises PeerMissing, PeerFailed.
    """
    if shutil.which("slapd", path=PATH) is None or shutil.which("slapadd", path=PATH) is None:
        raise PeerMissing("OpenLDAP's server is not installed: apt-get install slapd")
    folder = folder.resolve()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    port, tls_port = free_ports(2)
    schemas = "\n".join(f"include {_SCHEMAS / name}.schema" for name in ("core", "cosine", "nis", "inetorgperson"))
    tls = f"TLSCertificateFile {certificate}\nTLSCertificateKeyFile {certificate}" if certificate is not None else ""
    (folder / "slapd.conf").write_text(_CONFIG.format(schemas=schemas, modules=_MODULES, tls=tls, suffix=SUFFIX,
                                                      data=folder / "data", service=SERVICE, anonymous=anonymous))
    (folder / "entries.ldif").write_text(_ENTRIES)
    subprocess.run([shutil.which("slapadd", path=PATH) or "", "-q", "-f", str(folder / "slapd.conf"), "-l",
                    str(folder / "entries.ldif")], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    peer = Slapd("127.0.0.1", port, folder / "output.log", {}, [])
    peer.tls_port = tls_port if certificate is not None else 0
    with ExitStack() as stack:
        stack.callback(peer.stop)
        peer.start()
        yield peer
