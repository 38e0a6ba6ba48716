"""TLS where a provider is the client: whom it trusts."""

from __future__ import annotations

import ssl


def trusting(ca: str) -> ssl.SSLContext:
    """Checks names and issuers. ca: PEM file of these; "": the system's. Raises: ValueError."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise ValueError(f"{ca}: no certificates can be read from it: {error.strerror or error}") from None
