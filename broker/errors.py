"""What can go wrong when the broker is asked for something, in terms of no dialect.

A front-end turns each class into its dialect's error and decides what it costs: the text is for the user.
"""

from __future__ import annotations


class BrokerError(Exception):
    """Base of all below; `str()` is a text for the client."""


class NotFound(BrokerError):
    """No such queue, exchange or virtual host."""


class AccessRefused(BrokerError):
    """The client may not do this, or the name is reserved."""


class Forbidden(AccessRefused):
    """The client has no right to this: somebody else may have it."""


class LimitReached(BrokerError):
    """The client, or all together, have as many of this as is allowed."""


class RateReached(LimitReached):
    """The client does this too often; later it may."""


class ResourceLocked(BrokerError):
    """The queue belongs to another connection."""


class PreconditionFailed(BrokerError):
    """It exists and is different, or is in use, or an argument is not possible."""


class NotAllowed(BrokerError):
    """Not permitted at all by the rules of the protocol or of this broker."""


class NotImplementedHere(BrokerError):
    """A feature that this broker does not have."""


class CommandInvalid(BrokerError):
    """A request that makes no sense, such as an exchange type that does not exist."""


class IllegalState(BrokerError):
    """Not at this point: what it is asked of is not in the state for it."""


class InvalidArgument(BrokerError):
    """A value that is not allowed, of a request that makes sense."""
