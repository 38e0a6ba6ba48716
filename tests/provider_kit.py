"""What the tests of providers share: threads that are none, a clock that is set, questions with one answer."""

from __future__ import annotations

from collections.abc import Callable

from broker.security.identity import Identity, Peer
from broker.security.provider import Provider, Refusal


class Clock:
    """Seconds, as the tests want them."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Threads:
    """Runs what is to run on a thread at once, or when told to; or fails to."""

    def __init__(self, now: bool = True) -> None:
        self.now = now
        self.queue: list[Callable[[], None]] = []
        self.count = 0
        self.fails: Exception | None = None

    def run(self, work: Callable[[], object], done: Callable[[object | BaseException], None]) -> None:
        def both() -> None:
            try:
                result = self.fails or work()
            except Exception as error:  # as a thread's future does
                result = error
            done(result)
        self.count += 1
        self.queue.append(both)
        if self.now:
            self.flush()

    def flush(self) -> None:
        while self.queue:
            self.queue.pop(0)()


def by_password(provider: Provider, name: str, password: bytes, peer: Peer | None = None) -> Identity | Refusal:
    answers: list[Identity | Refusal] = []
    provider.check_password(name, password, peer or Peer(), answers.append)
    (answer,) = answers
    return answer


def by_token(provider: Provider, token: str, name: str = "", peer: Peer | None = None) -> Identity | Refusal:
    answers: list[Identity | Refusal] = []
    provider.check_token(name, token, peer or Peer(), answers.append)
    (answer,) = answers
    return answer


def by_certificate(provider: Provider, certificate: bytes, wanted: str = "") -> Identity | Refusal:
    answers: list[Identity | Refusal] = []
    provider.check_certificate(wanted, Peer(tls=True, certificate=certificate), answers.append)
    (answer,) = answers
    return answer


def identity(answer: Identity | Refusal) -> Identity:
    assert isinstance(answer, Identity), answer.reason
    return answer


def refusal(answer: Identity | Refusal) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer
