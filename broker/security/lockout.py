"""Those who guess are kept waiting, and after a number of failures they are refused unheard for a while.

Failures are counted for each address, each user, and each user from each address:

* an address with too many of them may not log in at all, but for users that have logged in from there before: one
  device with a wrong password does not lock out the others behind the same router;
* a user with too many from one address may not log in from that address;
* a user with too many from anywhere may log in only from where it has done so before: a stranger cannot lock it out
  from there, and from elsewhere only for as long as he goes on.

Refused attempts count no more, so all of that ends by itself. A refusal is told only after a delay, which grows from
250 ms by the failures before it. It also hides how long the check took, and with that, whether there is such a user.

Memory is bounded: names and addresses are kept as digests, and of too many the oldest are forgotten.
"""

from __future__ import annotations

import hashlib
import logging
import os

from broker.clock import Timers
from broker.security.addresses import source_of
from broker.security.identity import Identity, Peer
from broker.security.provider import Answer, Refusal, shown
from broker.security.recent import remember

logger = logging.getLogger(__name__)

STEP = 250  # ms: the first delay, and what others are a multiple of
LONGEST = 4000  # ms
ENTRIES = 50_000  # of each kind


class _Count:
    """Failures of one address, user, or user from an address."""

    __slots__ = ("failures", "until", "locked")

    def __init__(self, until: int) -> None:
        self.failures = 0
        self.until = until  # ms since the epoch: when they are forgotten
        self.locked = False


class Lockout:
    """The failures of all listeners. `failures` of an address, or of a user from it, or `user_failures` of a user
    within `seconds` lock it out for `seconds`; 0 for never. `loopback`: clients of this machine are counted, too."""

    def __init__(self, timers: Timers, failures: int = 10, user_failures: int = 100, seconds: int = 60,
                 loopback: bool = False) -> None:
        self.configure(failures, user_failures, seconds, loopback)
        self._timers = timers
        self._clock = timers.clock
        self._key = os.urandom(16)
        self._addresses: dict[bytes, _Count] = {}
        self._users: dict[bytes, _Count] = {}
        self._pairs: dict[bytes, _Count] = {}
        self._known: dict[bytes, None] = {}  # pairs that have logged in

    def configure(self, failures: int, user_failures: int, seconds: int, loopback: bool) -> None:
        self.failures = failures
        self.user_failures = user_failures
        self.seconds = seconds
        self.loopback = loopback

    @property
    def now(self) -> int:
        """ms since the epoch."""
        return self._clock.now

    def refusal(self, user: str, peer: Peer) -> Refusal | None:
        """Why somebody is not even heard."""
        if peer.loopback and not self.loopback:
            return None
        source = source_of(peer.address)
        if self._locked(self._pairs, self._digest(user, source)):
            return Refusal(f"user {shown(user)} is locked out from {source}")
        if self._digest(user, source) in self._known:
            return None
        if self._locked(self._addresses, self._digest(source)):
            return Refusal(f"{source} is locked out")
        if self._locked(self._users, self._digest(user)):
            return Refusal(f"user {shown(user)} is locked out, but for where it has logged in before")
        return None

    def conclude(self, user: str, result: Identity | Refusal, peer: Peer, began: int, answer: Answer) -> None:
        """Tell how a login came out: a refusal later. began: when the check began, ms since the epoch.

        Whoever was locked out in the meantime, by what he tried at the same time, is refused all the same.
        """
        if peer.loopback and not self.loopback:
            answer(result)
            return
        locked = self.refusal(user, peer)
        if locked is not None:
            self._tell(locked, began, LONGEST, answer)
        elif isinstance(result, Refusal):
            self._tell(result, began, STEP if result.trouble else self._failed(user, peer), answer)
        else:
            self._succeeded(user, peer)
            answer(result)

    def _tell(self, refusal: Refusal, began: int, delay: int, answer: Answer) -> None:
        """Later, so many ms after the login began; if that is over, some multiple of a step later still."""
        late = max(0, self._clock.now - began - delay)
        self._timers.at(began + delay + -(-late // STEP) * STEP, lambda: answer(refusal))

    def _succeeded(self, user: str, peer: Peer) -> None:
        pair = self._digest(user, source_of(peer.address))
        self._pairs.pop(pair, None)
        remember(self._known, pair, None, ENTRIES)

    def _failed(self, user: str, peer: Peer) -> int:
        """Count a failure; give the delay of its answer, ms."""
        source = source_of(peer.address)
        pair = self._count(self._pairs, self._digest(user, source), self.failures,
                           f"user {shown(user)} is locked out from {source}")
        address = self._count(self._addresses, self._digest(source), self.failures, f"{source} is locked out")
        if user:  # a token or certificate may not say whose it is
            self._count(self._users, self._digest(user), self.user_failures,
                        f"user {shown(user)} is locked out, but for where it has logged in before")
        return min(LONGEST, STEP << min(max(pair, address) - 1, 10))

    def _count(self, counts: dict[bytes, _Count], key: bytes, most: int, what: str) -> int:
        now = self._clock.now
        count = counts.get(key)
        if count is None or count.until <= now:
            count = _Count(now + self.seconds * 1000)
        remember(counts, key, count, ENTRIES)
        count.failures += 1
        if most and count.failures >= most and not count.locked:
            count.locked = True
            count.until = now + self.seconds * 1000
            logger.warning("%s for %d s: %d logins have failed", what, self.seconds, count.failures)
        return count.failures

    def _locked(self, counts: dict[bytes, _Count], key: bytes) -> bool:
        count = counts.get(key)
        return count is not None and count.locked and count.until > self._clock.now

    def _digest(self, *parts: str) -> bytes:
        """Of a user's name as directories see it, who do not tell Alice from alice, and an address."""
        joined = "\0".join(part.strip().casefold() for part in parts).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(joined, digest_size=16, key=self._key).digest()
