"""Whether the files that a configuration names can be used: what reading the configuration alone does not find."""

from __future__ import annotations

import errno
import os

from broker.security.users import PasswordFile
from dragoman.access import Sources
from dragoman.config import Config, ConfigError, load
from dragoman.config_providers import FileUsers, ProviderSettings
from dragoman.config_security import Access
from dragoman.providers import make
from dragoman.tls import Certificates


def load_and_check(path: str | None) -> Config:
    """Read a configuration (without a path, the defaults). Raises ConfigError with everything that is wrong."""
    config = load(path)
    problems = [*_check_tls(config), *_check_users(config.authentication.users_file),
                *_check_providers(config.providers), *_check_access(config.access),
                *_check_log(config.log.file)]
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


def _check_providers(providers: tuple[ProviderSettings, ...]) -> list[str]:
    problems = []
    for each in providers:
        try:
            if isinstance(each, FileUsers):
                PasswordFile(each.users_file).load()
            else:
                make(each, lambda work, done: None)
        except ValueError as error:
            problems.append(str(error))
    return problems


def _check_log(path: str) -> list[str]:
    """The file itself may not be there yet, and is not made by looking."""
    if path and not os.path.isdir(os.path.dirname(path) or "."):
        return [f"log.file {path}: cannot be opened: {os.strerror(errno.ENOENT)}"]
    return [f"log.file {path}: cannot be opened: {os.strerror(errno.EISDIR)}"] if os.path.isdir(path) else []


def _check_access(access: Access) -> list[str]:
    try:
        Sources(access)
    except ValueError as error:
        return [f"access: {problem}" for problem in str(error).splitlines()]
    return []
