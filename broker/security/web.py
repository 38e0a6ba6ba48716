"""Documents of web servers that logins depend on: an issuer's keys, its answers about tokens.

Everything here waits for the network, so it runs on threads. A server that failed is left alone for a moment, so that
clients that come back all at once do not wait for it one after the other, and is logged when it fails and when it is
back again, not each time.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from broker.security.addresses import is_loopback
from broker.security.trusting import trusting

logger = logging.getLogger(__name__)

SIZE_LIMIT = 1 << 20  # bytes of one document


class Unreachable(Exception):
    """There is no document to be had, and why: for the log."""


class Endpoint:
    """A web server's address, with whether it answers. `fetch` may be called by several threads.

    Raises: ValueError for an address that is not https, except on this machine, and for issuers that cannot be read.
    """

    def __init__(self, provider: str, url: str, ca: str = "", timeout: int = 5, retry: int = 5,
                 clock: Callable[[], float] = time.monotonic) -> None:
        check_url(url)
        self.url = url
        self._provider = provider
        self._timeout = timeout
        self._retry = retry
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at: float | None = None
        self._reason = ""
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if urlsplit(url).scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=trusting(ca)))
        if is_here(url):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def fetch(self, form: bytes | None = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The JSON object that is there; with a form, the answer to it. Raises Unreachable."""
        with self._lock:
            if self._failed_at is not None and self._clock() < self._failed_at + self._retry:
                raise Unreachable(f"{self.url}: {self._reason}, a moment ago")
        try:
            document = self._read(form, headers or {})
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            reason = _reason(error)
            self._changed(reason)
            raise Unreachable(f"{self.url}: {reason}") from None
        self._changed("")
        return document

    def _read(self, form: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(self.url, form, {"Accept": "application/json", **headers})
        end = time.monotonic() + 2 * self._timeout
        data = b""
        with self._opener.open(request, timeout=self._timeout) as response:
            while more := response.read1(65536):
                data += more
                if len(data) > SIZE_LIMIT:
                    raise ValueError(f"the answer has more than {SIZE_LIMIT >> 20} MiB")
                if time.monotonic() > end:
                    raise TimeoutError(f"the answer took longer than {2 * self._timeout} s")
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("the answer is no JSON object")
        return document

    def _changed(self, reason: str) -> None:
        with self._lock:
            before = self._failed_at is not None
            self._failed_at = self._clock() if reason else None
            self._reason = reason
        if reason and not before:
            logger.error("provider %s: %s cannot be used: %s", self._provider, self.url, reason)
        elif before and not reason:
            logger.info("provider %s: %s can be used again", self._provider, self.url)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Secrets go, and keys come, from where the configuration says and from nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def check_url(url: str) -> None:
    """Raises: ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'"{url}" is no address of a web server; write https://HOST/PATH')
    if parts.scheme == "http" and not is_here(url):
        raise ValueError(f'"{url}" is not https: anybody on the way could say what is there')


def is_here(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or is_loopback(host)


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"it answers with status {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, json.JSONDecodeError | RecursionError | UnicodeDecodeError):
        return "the answer is not JSON"
    return str(error) or type(error).__name__
