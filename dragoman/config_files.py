"""Whether the files that a configuration names can be used: what reading the configuration alone does not find."""

from __future__ import annotations

from broker.security.users import PasswordFile
from dragoman.config import Config, ConfigError, load
from dragoman.tls import Certificates


def load_and_check(path: str | None) -> Config:
    """Read a configuration (without a path, the defaults). Raises ConfigError with everything that is wrong."""
    config = load(path)
    problems = [*_check_tls(config), *_check_users(config.authentication.users_file)]
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return config


def _check_tls(config: Config) -> list[str]:
    try:
        Certificates(config)
    except ValueError as error:
        return str(error).splitlines()
    return []


def _check_users(path: str) -> list[str]:
    try:
        if path:
            PasswordFile(path).load()
    except ValueError as error:
        return [f"authentication.users_file: {error}"]
    return []
