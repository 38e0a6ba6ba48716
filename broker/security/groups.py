"""Files of groups, as Broker-J has them: a line a group, `staff.users=alice,bob`; blank lines, comments with `#`."""

from __future__ import annotations

from broker.security.files import read_text

_SUFFIX = ".users"


def load_groups(path: str) -> dict[str, frozenset[str]]:
    """The groups of each user. Raises ValueError, with file and line."""
    found: dict[str, set[str]] = {}
    seen = set()
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.strip()
        if not line or line.startswith(("#", "!")):
            continue
        key, equals, users = line.partition("=")
        key = key.strip()
        if not equals or not key.endswith(_SUFFIX) or key == _SUFFIX:
            raise ValueError(f"{path}:{number}: a group is written: NAME.users=USER,USER")
        group = key.removesuffix(_SUFFIX)
        if group in seen:
            raise ValueError(f"{path}:{number}: there is a group {group!r} already")
        seen.add(group)
        for user in users.split(","):
            if user.strip():
                found.setdefault(user.strip(), set()).add(group)
    return {user: frozenset(groups) for user, groups in found.items()}
