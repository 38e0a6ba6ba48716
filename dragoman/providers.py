"""Providers that need packages of their own, made of what the configuration says of them.

The packages are imported when a configuration has such a provider, and not before: an installation needs those that it
uses, and a broker in a test suite starts without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broker.security.provider import Provider, Run
from dragoman.config_providers import CertificateUsers, KerberosUsers, LdapUsers, OAuth2Users


def make(settings: LdapUsers | OAuth2Users | CertificateUsers | KerberosUsers, run: Run) -> Provider:
    """run: for what waits for other machines. Raises: ValueError, for settings, files and packages."""
    try:
        return MAKERS[settings.kind](settings, run)
    except ModuleNotFoundError as error:
        raise ValueError(f"provider {settings.name}: the package {error.name} is not installed: "
                         f"pip install 'dragoman[{settings.kind}]'") from None
    except ValueError as error:
        raise ValueError(f"provider {settings.name}: {error}") from None


def _ldap(own: LdapUsers, run: Run) -> Provider:
    from broker.security.ldap import Ldap, LdapSettings
    return Ldap(own.name, LdapSettings(
        own.servers, own.start_tls, own.ca, own.bind_dn, _secret(own.bind_password_file), own.user_dn, own.base,
        own.filter, own.name_attribute, own.group_base, own.group_filter, own.group_attribute, own.member_of,
        own.timeout, own.retry, own.cache, own.cache_users), run)


def _oauth2(own: OAuth2Users, run: Run) -> Provider:
    from broker.security.oauth2 import OAuth2, OAuth2Settings
    from broker.security.tokens import Claims
    claims = Claims(own.issuer, own.audience, own.user_claims, own.groups_claim, own.scopes_claims,
                    own.resource_server_id, own.leeway)
    return OAuth2(own.name, OAuth2Settings(
        claims, own.keys_url or own.keys_file, own.algorithms, own.introspection_url, own.client_id,
        _secret(own.client_secret_file), own.passwords, own.ca, own.timeout, own.keys_seconds, own.retry, own.cache,
        own.cache_tokens), run)


def _certificates(own: CertificateUsers, run: Run) -> Provider:
    from broker.security.certificates import Certificates, CertificateSettings
    return Certificates(own.name, CertificateSettings(
        own.login_from, own.san_type, own.san_index, own.pattern, own.rewrite, own.groups_from, own.issuers,
        own.revocation_lists, own.stale_lists), run)


def _kerberos(own: KerberosUsers, run: Run) -> Provider:
    from broker.security.kerberos import Kerberos, KerberosSettings
    return Kerberos(own.name, KerberosSettings(own.keytab, own.principal, own.realms, own.strip_realm), run)


MAKERS: dict[str, Callable[[Any, Run], Provider]] = {"ldap": _ldap, "oauth2": _oauth2, "certificates": _certificates,
                                                     "kerberos": _kerberos}


def _secret(path: str) -> bytes:
    """What is in a file, without the end of its line. Raises: ValueError."""
    if not path:
        return b""
    try:
        with open(path, "rb") as file:
            secret = file.read(4096).rstrip(b"\r\n")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    if not secret:
        raise ValueError(f"{path}: there is no secret in it")
    return secret
