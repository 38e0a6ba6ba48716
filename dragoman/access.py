"""What the configuration says of who may do what, made into the broker's policy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from broker.broker import Broker
from broker.security import qpid_acl
from broker.security.groups import load_groups
from broker.security.guard import Judge, Rules
from broker.security.permissions import PermissionFile, PermissionJudge
from broker.security.qpid_acl import AclFile, AclJudge
from dragoman.config_security import Access

logger = logging.getLogger(__name__)

T = TypeVar("T")


def _read(read: Callable[[str], T], path: str, problems: list[str]) -> T | None:
    """What a file says; None without a path, and when it cannot be used, which is then among the problems."""
    try:
        return read(path) if path else None
    except ValueError as error:
        problems.append(str(error))
        return None


def _permissions(path: str) -> PermissionFile:
    file = PermissionFile(path)
    file.load()
    return file


class Sources:
    """The files of access rules and permissions, as they are now."""

    def __init__(self, settings: Access) -> None:
        """Raises: ValueError, with file and line; a line for each file that cannot be used."""
        self.settings = settings
        problems: list[str] = []
        self.acl = _read(qpid_acl.load, settings.acl_file, problems)
        hosts = {name: _read(qpid_acl.load, path, problems) for name, path in settings.host_acl_files}
        self.hosts = {name: file for name, file in hosts.items() if file is not None}
        self.groups = _read(load_groups, settings.group_file, problems) or {}
        for file in self.files:
            for rule in file.rules:  # a group's rights are not those of a user who is called like it
                rule.is_group = rule.is_group or any(rule.who in groups for groups in self.groups.values())
        self.permissions: PermissionFile | None = None
        if settings.permissions_file or settings.scope_prefix:
            self.permissions = _read(_permissions, settings.permissions_file, problems) or PermissionFile("")
        if problems:
            raise ValueError("\n".join(problems))
        self.asks_names = any(rule.asks_names() for file in self.files for rule in file.rules)

    @property
    def files(self) -> list[AclFile]:
        return [*([self.acl] if self.acl is not None else []), *self.hosts.values()]

    def groups_of(self) -> dict[str, frozenset[str]]:
        """The groups of each user, of all files."""
        found = dict(self.groups)
        for file in self.files:
            for user, groups in file.groups_of().items():
                found[user] = found.get(user, frozenset()) | groups
        return found

    def rules(self, broker: Broker | None) -> Rules:
        settings = self.settings
        judges: list[Judge] = []
        if self.files:
            judges.append(AclJudge(self.acl, self.hosts))
        if self.permissions is not None:
            judges.append(PermissionJudge(self.permissions, settings.realms, settings.scope_prefix))
        return Rules(broker, judges, groups=self.groups_of(), realms=list(settings.realms),
                     impersonators=frozenset(settings.impersonators))

    def described(self) -> str:
        """For the line that a broker starts with."""
        parts = [f"the {file.dialect} rules of {file.name}" for file in self.files]
        if self.settings.permissions_file:
            parts.append(f"the permissions of {self.settings.permissions_file}")
        if self.settings.scope_prefix:
            parts.append(f"tokens' scopes {self.settings.scope_prefix}...")
        if not parts:
            return "everything, to whoever has logged in: there are no access rules"
        return "what is allowed by " + ", and by ".join(parts)


class FileRules(Rules):
    """The rules of the configured files; they can be read again at any time."""

    def __init__(self, broker: Broker, settings: Access) -> None:
        """Raises: ValueError."""
        super().__init__(broker, [])
        self.clock = broker.clock
        self.changed: Callable[[], None] | None = None  # called when the files were read again
        self.take(Sources(settings))

    def take(self, sources: Sources) -> None:
        """Have what is in files that were read."""
        self.sources = sources
        self.read_at = self.clock.now
        self.change(sources.rules(self.broker))
        for file in sources.files:
            for note in file.notes:
                logger.warning("%s", note)
        if self.changed is not None:
            self.changed()

    def rules(self) -> tuple[str, int, int]:
        names = [file.name for file in self.sources.files]
        if self.sources.settings.permissions_file:
            names.append(self.sources.settings.permissions_file)
        return ", ".join(names), self.read_at, self.denied

    def reload(self) -> None:
        try:
            sources = Sources(self.sources.settings)
        except ValueError as error:
            for problem in str(error).splitlines():
                logger.error("access rules are not reloaded: %s", problem)
            raise
        self.take(sources)
        logger.info("access rules are read again: may do: %s", sources.described())
