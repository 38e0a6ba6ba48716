"""The mechanisms without a secret of their own: ANONYMOUS (RFC 4505), and EXTERNAL (RFC 4422, appendix A), where the
client's certificate, which TLS has checked, says who it is."""

from __future__ import annotations

from broker.security.mechanism import Challenge, Done, Failure, Mechanism, finish, text


class Anonymous(Mechanism):
    __slots__ = ()

    def respond(self, response: bytes | None, done: Done) -> None:
        done(finish(self.authenticator.anonymous(self.peer)))  # the trace information is of no use


class External(Mechanism):
    """One response: the user that the client wants to be, empty for the one that its certificate names."""

    __slots__ = ()

    def respond(self, response: bytes | None, done: Done) -> None:
        if response is None:
            done(Challenge(b""))
            return
        try:
            wanted = text(response, self.name)
        except ValueError as error:
            done(Failure(str(error)))
            return
        if "\0" in wanted:
            done(Failure("EXTERNAL: a NUL character in the response"))
            return
        self.authenticator.check_certificate(wanted, self.peer, lambda result: done(finish(result)))
