"""How we use TLS where we are the client: whom we trust, and which certificate we show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trust:
    """Files in PEM form; empty or None where there is none."""

    ca: str | None = None  # the issuers that are trusted; none: whom the system trusts
    certificate: str | None = None  # our own
    key: str | None = None  # its key; none: the certificate's file has it
    verify: bool = True  # without, anybody may be on the other side

    def context(self) -> ssl.SSLContext:
        """Raises: ValueError, with what is wrong."""
        if self.key and not self.certificate:
            raise ValueError("a key needs its certificate")
        try:
            made = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise ValueError(f"{self.ca}: {_reason(error)}") from None
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate:
            try:
                made.load_cert_chain(self.certificate, self.key or None, password=lambda: "")  # never asks
            except (OSError, ValueError) as error:
                hint = "" if self.key else "; a key that is elsewhere has to be named"
                raise ValueError(f"{self.certificate}: it and its key cannot be used: {_reason(error)}{hint}") from None
        if not self.verify:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        return made


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not in PEM form").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
