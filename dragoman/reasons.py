"""What went wrong, in words for people."""

from __future__ import annotations

import ssl


def reason(error: BaseException) -> str:
    """What went wrong, without the number that Python puts before it."""
    if isinstance(error, ssl.SSLError) and error.reason:
        if error.reason == "WRONG_VERSION_NUMBER":  # whatever came, it is no record of TLS
            return "the other side does not speak TLS"
        detail = f": {error.verify_message}" if isinstance(error, ssl.SSLCertVerificationError) else ""
        return error.reason.replace("_", " ").lower() + detail
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
