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


ProviderSettings = FileUsers
PROVIDER_KINDS: dict[str, type[ProviderSettings]] = {"file": FileUsers}
"""Each kind's keys; dragoman/security.py has what makes a provider of them."""


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
    return found
