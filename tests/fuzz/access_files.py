"""What says who may do what, as targets of fuzzing: ACL files, permissions, other brokers' files of users."""

from __future__ import annotations

from collections.abc import Iterable

from broker.security.permissions import PermissionFile
from broker.security.qpid_acl import parse
from interop.migration.user_files import read_users
from tests.fuzz.files import file_of

ACL = (b"""# qpidd's
group admins alice@QPID bob
acl allow admins all all
acl deny-log all delete queue name=a.*
acl allow carol create queue name=tmp* durable=false queuemaxsizeupperlimit=1000
acl allow carol publish exchange name=amq.topic routingkey=a.# host=10.0.0.0/8
quota connections 5 all
acl deny all all
""", b"""CONFIG DEFAULTDENY=true
GROUP staff alice "b o b"
ACL ALLOW staff ACCESS VIRTUALHOST from_network="10.0.0.0/8,192.168.*"
ACL ALLOW-LOG ALL CONSUME QUEUE NAME="q*" ATTRIBUTES="a,b"
10 ACL DENY-LOG ALL ALL ALL
""")


def acl(data: bytes) -> None:
    """Raises: ValueError."""
    parse(data.decode("utf-8", "replace"))


def permissions(data: bytes) -> None:
    """Raises: ValueError."""
    with file_of(data) as path:
        PermissionFile(path).load()


def users(data: bytes) -> None:
    """Raises: NotUnderstood."""
    read_users(data)


def seeds_users() -> Iterable[bytes]:
    page = bytes(12) + (0x061561).to_bytes(4, "little") + bytes(4) + (512).to_bytes(4, "little") + bytes(488)
    return [b"guest:guest\n", b"VERSION=3\nformat=bytevalue\ntype=hash\nHEADER=END\n 6775\n 6775\nDATA=END\n", page * 2,
            b'{"authenticationproviders": [{"type": "Plain", "users": [{"name": "u", "type": "managed", "password": "p"'
            b'}]}, {"type": "SCRAM-SHA-256", "users": [{"name": "v", "password": "AAAA,AAAA,AAAA,4096"}]}]}']
