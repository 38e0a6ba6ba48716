"""What the configuration says of who may come in, made into the objects that decide it."""

from __future__ import annotations

import ssl

from broker.security.users import PasswordFile, Users
from dragoman.config import Config
from dragoman.scheduler import PasswordChecks


def load_users(config: Config, checks: PasswordChecks) -> Users:
    """Raises: ValueError for a password file that cannot be read."""
    settings = config.authentication
    file = None
    if settings.users_file:
        file = PasswordFile(settings.users_file)
        file.load()
    anonymous = settings.anonymous_user if any(listener.anonymous for listener in config.listeners) else ""
    return Users(checks.run, file, guest=settings.guest, anonymous=anonymous)


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Raises: ValueError for certificates that cannot be used."""
    tls = config.tls
    if not tls.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key or None)
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"tls: {tls.certificate}: {getattr(error, 'strerror', None) or error}") from None
    return context
