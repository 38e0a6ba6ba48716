"""The keys that say who may come in, and how much of this machine he may use."""

from __future__ import annotations

from dataclasses import dataclass

from dragoman.config_keys import Kind
from dragoman.config_keys import key as _key

MECHANISMS = ("PLAIN", "AMQPLAIN", "EXTERNAL", "XOAUTH2", "OAUTHBEARER", "GSSAPI", "CRAM-MD5", "SCRAM-SHA-1",
              "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class Authentication:
    """Who may log in."""

    users_file: str = _key("", Kind.PATH, "File of names and password verifiers, written by `dragoman user`. "
                           "Empty: only `guest`.")
    mechanisms: tuple[str, ...] = _key(("PLAIN", "AMQPLAIN", "EXTERNAL", "XOAUTH2", "OAUTHBEARER", "GSSAPI"),
                                       Kind.TEXTS, "SASL mechanisms offered to clients of "
                                       "AMQP, as far as there is a provider that can check them; those of SCRAM over "
                                       "TLS with channel binding (`-PLUS`), too. "
                                       "Those of SCRAM are for users that `dragoman user add --scheme` was "
                                       "told them for: many clients choose one as soon as it is offered, so all their "
                                       "users should have it. MQTT's clients may use them in any case, and passwords "
                                       "where this has `PLAIN`.",
                                       choices=MECHANISMS)
    guest: bool = _key(True, Kind.BOOLEAN, "Let in `guest` with the password `guest`, from this machine only.")
    lockout_failures: int = _key(10, Kind.NUMBER, "Failed logins from one address, or of one user from there, within "
                                 "`lockout_seconds`, after which they are refused unheard for as long. 0 for never.")
    lockout_user_failures: int = _key(100, Kind.NUMBER, "Failed logins of one user from anywhere, likewise; from where "
                                      "the user has logged in before it may still do so. 0 for never.")
    lockout_seconds: int = _key(60, Kind.SECONDS, "How long failed logins count, and a lock-out lasts.", minimum=1)
    lockout_loopback: bool = _key(False, Kind.BOOLEAN, "Count failed logins of this machine's own clients, too: for a "
                                  "broker behind a proxy on the same machine.")
    anonymous_user: str = _key("anonymous", Kind.TEXT, "The user that clients without a name act as.", minimum=1)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what, once logged in. Where there are both access rules and permissions, both must allow it; where
    there is neither, everybody may do everything. All files are read again on SIGHUP."""

    acl_file: str = _key("", Kind.PATH, "Access rules in the grammar of qpidd's or Broker-J's ACL files.")
    host_acl_files: tuple[tuple[str, str], ...] = _key((), Kind.PATH_TABLE, "The same for single virtual hosts, by "
                                                       "their names: `{ orders = \"orders.acl\" }`. They decide "
                                                       "before `acl_file`.")
    group_file: str = _key("", Kind.PATH, "Groups of users, in lines as Broker-J has them: `staff.users=alice,bob`.")
    permissions_file: str = _key("", Kind.PATH, "RabbitMQ's permissions, written by `dragoman permission`.")
    scope_prefix: str = _key("", Kind.TEXT, "How the scopes of OAuth 2 tokens begin that are permissions, such as "
                             "`dragoman.` in `dragoman.read:*/orders`. Who has logged in with a token may do what its "
                             "scopes say. Empty: scopes are no permissions.")
    realms: tuple[str, ...] = _key(("QPID",), Kind.TEXTS, "`bob@REALM` and `bob` are the same user, for these realms. "
                                   "The first is that of users without one, where rules have one.")
    impersonators: tuple[str, ...] = _key((), Kind.TEXTS, "Users who may send messages whose user-id is another's.")
