"""The sources of users that a configuration can have: the keys of `[[providers]]`, by kind."""

from __future__ import annotations

from dataclasses import dataclass

from dragoman.config_keys import Kind
from dragoman.config_keys import key as _key

FILE = "file"
"""The name of the provider that `[authentication]` makes."""


@dataclass(frozen=True, slots=True)
class FileUsers:
    """A further password file."""

    name: str = _key("", Kind.TEXT, "What logs and `listeners.providers` call it.")
    kind: str = _key("file", Kind.TEXT, "This kind.", choices=("file",))
    users_file: str = _key("", Kind.PATH, "File of names and password verifiers, written by `dragoman user`.")


@dataclass(frozen=True, slots=True)
class LdapUsers:
    """Users of an LDAP directory."""

    name: str = _key("", Kind.TEXT, "What logs and `listeners.providers` call it.")
    kind: str = _key("ldap", Kind.TEXT, "This kind.", choices=("ldap",))
    servers: tuple[str, ...] = _key((), Kind.TEXTS, "Addresses, `ldaps://HOST`, `ldap://HOST` or with `:PORT`, in the "
                                    "order in which they are tried.")
    start_tls: bool = _key(True, Kind.BOOLEAN, "Use TLS on the connections to `ldap://`. Without it passwords are to "
                           "be read on the way.")
    ca: str = _key("", Kind.PATH, "Issuers of the servers' certificates, in PEM. Empty: those that the system trusts.")
    bind_dn: str = _key("", Kind.TEXT, "Who searches for users and groups. Empty: an anonymous client.")
    bind_password_file: str = _key("", Kind.PATH, "File with the password for that, and nothing else.")
    base: str = _key("", Kind.TEXT, "Below which entry users are searched.")
    filter: str = _key("(uid={user})", Kind.TEXT, "What finds a user's entry; `{user}` is the name that the client "
                       "gave.")
    user_dn: str = _key("", Kind.TEXT, "Instead of a search: the name to log in to the directory with, made of "
                        "`{user}`, such as `uid={user},ou=people,dc=example,dc=org` or `{user}@example.org`.")
    name_attribute: str = _key("uid", Kind.TEXT, "The attribute that says what the user is called here. A directory "
                               "does not tell `Alice` from `alice`, access rules do. Empty: as the client wrote it.")
    group_base: str = _key("", Kind.TEXT, "Below which entry groups are searched. Empty: they are not.")
    group_filter: str = _key("(|(member={dn})(uniqueMember={dn})(memberUid={user}))", Kind.TEXT, "What finds a "
                             "user's groups; `{dn}` is the name of the user's entry, `{user}` the user's.")
    group_attribute: str = _key("cn", Kind.TEXT, "The attribute that says what a group is called.")
    member_of: str = _key("", Kind.TEXT, "An attribute of the user's entry with the names of its groups' entries, such "
                          "as `memberOf`; the first part of each is the group's name.")
    timeout: int = _key(5, Kind.SECONDS, "How long a server may take for each step.", minimum=1, maximum=300)
    retry: int = _key(5, Kind.SECONDS, "How long a server that failed is left alone.")
    cache: int = _key(60, Kind.SECONDS, "How long an answer that let somebody in counts. 0: the directory is asked "
                      "each time.")
    cache_users: int = _key(10_000, Kind.NUMBER, "Answers that are kept.", minimum=1)


@dataclass(frozen=True, slots=True)
class OAuth2Users:
    """Users by tokens of OAuth 2."""

    name: str = _key("", Kind.TEXT, "What logs and `listeners.providers` call it.")
    kind: str = _key("oauth2", Kind.TEXT, "This kind.", choices=("oauth2",))
    issuer: str = _key("", Kind.TEXT, "Whose tokens count: their claim `iss`, to the letter.")
    audience: tuple[str, ...] = _key((), Kind.TEXTS, "Whom tokens must be for: one of these must be in their claim "
                                     "`aud`.")
    keys_url: str = _key("", Kind.TEXT, "Where the issuer's keys are, as a JSON Web Key Set. Empty: where the issuer "
                         "says at `ISSUER/.well-known/openid-configuration`.")
    keys_file: str = _key("", Kind.PATH, "The same, as a file.")
    keys_seconds: int = _key(3600, Kind.SECONDS, "How often keys are fetched, besides when a token names one that is "
                             "not known.", minimum=1)
    algorithms: tuple[str, ...] = _key(("RS256", "ES256", "PS256", "EdDSA"), Kind.TEXTS, "Algorithms of signatures "
                                       "that count.", choices=("RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
                                                               "ES256", "ES384", "ES512", "EdDSA"))
    leeway: int = _key(30, Kind.SECONDS, "By how much the issuer's clock may differ from ours.", maximum=3600)
    user_claims: tuple[str, ...] = _key(("sub",), Kind.TEXTS, "Claims that may name the user; the first that is there "
                                        "does.")
    groups_claim: str = _key("groups", Kind.TEXT, "The claim with the user's groups; `realm_access.roles` is `roles` "
                             "within `realm_access`.")
    scopes_claims: tuple[str, ...] = _key(("scope", "scp"), Kind.TEXTS, "Claims with the token's scopes.")
    resource_server_id: str = _key("", Kind.TEXT, "Who we are in scopes that give tags: `ID.tag:administrator`. Empty: "
                                   "`tag:administrator` does. What scopes allow is for `access.scope_prefix` to say.")
    introspection_url: str = _key("", Kind.TEXT, "Where the issuer's server is asked about tokens (RFC 7662): about "
                                  "all, or, when there are keys, those that are no JSON Web Tokens.")
    client_id: str = _key("", Kind.TEXT, "Who we are to that server.")
    client_secret_file: str = _key("", Kind.PATH, "File with the secret for that, and nothing else.")
    passwords: bool = _key(True, Kind.BOOLEAN, "A JSON Web Token may be sent as a password, with any name, as clients "
                           "of RabbitMQ do.")
    ca: str = _key("", Kind.PATH, "Issuers of these servers' certificates, in PEM. Empty: those that the system "
                   "trusts.")
    timeout: int = _key(5, Kind.SECONDS, "How long a server may take for each step.", minimum=1, maximum=300)
    retry: int = _key(30, Kind.SECONDS, "The shortest time between two fetches of keys.", minimum=1)
    cache: int = _key(60, Kind.SECONDS, "How long what the server said of a token counts. 0: it is asked each time.")
    cache_tokens: int = _key(10_000, Kind.NUMBER, "Answers that are kept.", minimum=1)


@dataclass(frozen=True, slots=True)
class CertificateUsers:
    """Users by their client certificates."""

    name: str = _key("", Kind.TEXT, "What logs and `listeners.providers` call it.")
    kind: str = _key("certificates", Kind.TEXT, "This kind.", choices=("certificates",))
    login_from: str = _key("common_name", Kind.TEXT, "Where the user's name is, as RabbitMQ's `ssl_cert_login_from`. "
                           "`name_at_domain` is qpidd's: `CN@DC.DC` of the subject.",
                           choices=("common_name", "distinguished_name", "subject_alternative_name", "name_at_domain"))
    san_type: str = _key("dns", Kind.TEXT, "Which kind of alternative name, as `ssl_cert_login_san_type`.",
                         choices=("dns", "email", "uri", "ip"))
    san_index: int = _key(0, Kind.NUMBER, "Which one of that kind, as `ssl_cert_login_san_index`; 0 is the first.")
    pattern: str = _key("", Kind.TEXT, "A regular expression that the whole name must fit.")
    rewrite: str = _key("", Kind.TEXT, "What the user is called then; `\\1` stands for the pattern's first group. "
                        "Empty: the name as it is.")
    groups_from: str = _key("", Kind.TEXT, "An attribute of the subject whose values are the user's groups.",
                            choices=("", "OU", "O"))
    issuers: str = _key("", Kind.PATH, "Those who sign the certificates themselves, in PEM. Empty: all that "
                        "`tls.client_ca` lets in.")
    revocation_lists: tuple[str, ...] = _key((), Kind.PATHS, "Lists of revoked certificates of these issuers, in PEM "
                                             "or DER, read again when they change.")
    stale_lists: str = _key("refuse", Kind.TEXT, "What of certificates whose issuer's list is missing or out of date.",
                            choices=("refuse", "accept"))


@dataclass(frozen=True, slots=True)
class KerberosUsers:
    """Users of Kerberos, by SASL GSSAPI."""

    name: str = _key("", Kind.TEXT, "What logs and `listeners.providers` call it.")
    kind: str = _key("kerberos", Kind.TEXT, "This kind.", choices=("kerberos",))
    keytab: str = _key("", Kind.PATH, "File of the broker's keys. Empty: the system's, `/etc/krb5.keytab`.")
    principal: str = _key("", Kind.TEXT, "Who the broker is to clients, such as `amqp/broker.example.org@EXAMPLE.ORG`. "
                          "Empty: any that the keytab has.")
    realms: tuple[str, ...] = _key((), Kind.TEXTS, "Realms whose users are let in. Empty: all that the broker's realm "
                                   "trusts.")
    strip_realm: bool = _key(False, Kind.BOOLEAN, "Call `alice@REALM` just `alice`; there must be one realm.")


ProviderSettings = FileUsers | LdapUsers | OAuth2Users | CertificateUsers | KerberosUsers
PROVIDER_KINDS: dict[str, type[ProviderSettings]] = {
    "file": FileUsers, "ldap": LdapUsers, "oauth2": OAuth2Users, "certificates": CertificateUsers,
    "kerberos": KerberosUsers}
"""Each kind's keys; dragoman/security.py and dragoman/providers.py have what makes a provider of them."""


def provider_problems(providers: tuple[ProviderSettings, ...]) -> list[str]:
    """What is wrong between keys that are each right."""
    found = []
    names = [provider.name for provider in providers]
    for index, provider in enumerate(providers):
        where = f"providers[{index}]"
        if not provider.name:
            found.append(f"{where}.name is missing")
        elif provider.name == FILE or provider.name in names[:index]:
            found.append(f'{where}.name is "{provider.name}", which is the name of '
                         + ("another" if provider.name != FILE else "what [authentication] says"))
        if isinstance(provider, FileUsers) and not provider.users_file:
            found.append(f"{where}.users_file is missing")
        if isinstance(provider, OAuth2Users) and provider.keys_url and provider.keys_file:
            found.append(f"{where} has keys_url and keys_file; one of them is enough")
    return found
