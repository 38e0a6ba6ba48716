"""What the configuration says of who may come in, made into the objects that decide it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from broker.clock import Clock, Timers
from broker.security.addresses import is_loopback
from broker.security.authenticator import Authenticator
from broker.security.lockout import Lockout
from broker.security.provider import Provider, Run
from broker.security.turns import Turns
from broker.security.users import FileProvider, PasswordFile
from dragoman.config import Config, Listener
from dragoman.config_providers import FILE, FileUsers, ProviderSettings
from dragoman.providers import make
from dragoman.scheduler import LoopAlarm


@dataclass(slots=True)
class Tools:
    """What providers are made with."""

    compute: Run  # for what keeps a processor busy: few at a time
    wait: Run  # for what waits for other machines
    clock: Clock
    lockout: Lockout
    turns: Turns
    secret: bytes  # of which salts for unknown users are made


def _made(settings: ProviderSettings, tools: Tools) -> Provider:
    """Raises: ValueError."""
    if isinstance(settings, FileUsers):
        return FileProvider(tools.compute, _loaded(settings.users_file), guest=False, name=settings.name)
    return make(settings, tools.wait)


def tools(compute: Run, wait: Run, clock: Clock, loop: asyncio.AbstractEventLoop) -> Tools:
    """For a broker's whole life. The timers of logins are their own: they begin before the broker's."""
    alarm = LoopAlarm(loop)
    alarm.clock, alarm.timers = clock, Timers(clock, alarm)
    return Tools(compute, wait, clock, Lockout(alarm.timers), Turns(), os.urandom(32))


class Logins:
    """The providers that a configuration has, and each listener's authenticator. A reload makes new ones."""

    def __init__(self, config: Config, tools: Tools) -> None:
        """Raises: ValueError, for a password file that cannot be read and the like."""
        settings = config.authentication
        self.file = FileProvider(tools.compute, _loaded(settings.users_file) if settings.users_file else None,
                                 guest=settings.guest, name=FILE)
        self.providers: dict[str, Provider] = {FILE: self.file}
        for each in config.providers:
            self.providers[each.name] = _made(each, tools)
        self._settings = settings
        self._tools = tools
        self._authenticators: dict[Listener, Authenticator] = {}

    def of(self, listener: Listener) -> Authenticator:
        """Who may come in by a listener."""
        found = self._authenticators.get(listener)
        if found is None:
            providers = [self.providers[name] for name in listener.providers or self.providers
                         if name in self.providers]
            allowed = list(listener.mechanisms or self._settings.mechanisms)
            if listener.anonymous:
                allowed.append("ANONYMOUS")
            found = self._authenticators[listener] = Authenticator(
                providers, allowed, clear_passwords=listener.clear_passwords,
                anonymous_user=self._settings.anonymous_user if listener.anonymous else "",
                secret=self._tools.secret, lockout=self._tools.lockout, turns=self._tools.turns)
        return found

    def begin(self) -> None:
        """These are it from now on."""
        own = self._settings
        self._tools.lockout.configure(own.lockout_failures, own.lockout_user_failures, own.lockout_seconds,
                                      own.lockout_loopback)

    def close(self) -> None:
        for provider in self.providers.values():
            provider.close()


def without_passwords(config: Config) -> list[str]:
    """The listeners that other machines reach, and that take passwords from none of them: what an update may have
    changed. Where there is SCRAM or CRAM-MD5, they need not be sent."""
    return [listener.name() for listener in config.listeners
            if not any("CRAM" in name for name in listener.mechanisms or config.authentication.mechanisms)
            and not (listener.clear_passwords or listener.host == "localhost" or is_loopback(listener.host))
            and (listener.tls == "never" or not config.tls.certificate)]


def _loaded(path: str) -> PasswordFile:
    file = PasswordFile(path)
    file.load()
    return file
