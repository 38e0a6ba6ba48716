"""Whether the files that a configuration names can be used: what reading the configuration alone does not find."""

from __future__ import annotations

import ssl
from pathlib import Path

from broker.security.users import PasswordFile
from dragoman.config import Config, ConfigError, load
from dragoman.config_security import Tls


def load_and_check(path: str | None) -> Config:
    """Read a configuration (without a path, the defaults). Raises ConfigError with everything that is wrong."""
    config = load(path)
    problems = [*_check_tls(config.tls), *_check_users(config.authentication.users_file)]
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return config


def reason(error: BaseException) -> str:
    """What went wrong, without the number that Python puts before it."""
    if isinstance(error, ssl.SSLError) and error.reason:
        if error.reason == "WRONG_VERSION_NUMBER":  # whatever came, it is no record of TLS
            return "the other side does not speak TLS"
        detail = f": {error.verify_message}" if isinstance(error, ssl.SSLCertVerificationError) else ""
        return error.reason.replace("_", " ").lower() + detail
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _check_tls(tls: Tls) -> list[str]:
    if not tls.certificate:
        return []
    problems = [problem for problem in (_unreadable("tls.certificate", tls.certificate),
                                        _unreadable("tls.key", tls.key),
                                        _unreadable("tls.client_ca", tls.client_ca)) if problem]
    problems = problems or [problem for problem in (_no_pem("tls.certificate", tls.certificate, b"CERTIFICATE-----"),
                                                    _no_pem("tls.key", tls.key or tls.certificate, b"PRIVATE KEY-----"),
                                                    _no_pem("tls.client_ca", tls.client_ca, b"CERTIFICATE-----"))
                            if problem]
    if problems:
        return problems
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key or None, password=lambda: "")  # never asks at the terminal
    except (OSError, ValueError) as error:
        problems.append(f"tls.certificate {tls.certificate} and its key cannot be used: {reason(error)}")
    try:
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
    except (OSError, ValueError) as error:
        problems.append(f"tls.client_ca {tls.client_ca} cannot be used: {reason(error)}")
    return problems


def _no_pem(key: str, path: str, mark: bytes) -> str:
    """The problem with what is in a file, "" without one: OpenSSL only says `PEM lib`."""
    content = Path(path).read_bytes() if path else mark
    what = "certificate" if mark == b"CERTIFICATE-----" else "private key"
    if mark not in content:
        return f"{key}: there is no {what} in PEM form in {path}"
    if what == "private key" and b"ENCRYPTED" in content:
        return f"{key}: the private key in {path} is protected by a passphrase; `openssl pkey` writes it without"
    return ""


def _check_users(path: str) -> list[str]:
    try:
        if path:
            PasswordFile(path).load()
    except ValueError as error:
        return [f"authentication.users_file: {error}"]
    return []


def _unreadable(key: str, path: str) -> str:
    """The problem with a file, "" without one."""
    try:
        if path:
            open(path, "rb").close()
    except OSError as error:
        return f"{key} {path} cannot be read: {error.strerror}"
    return ""
