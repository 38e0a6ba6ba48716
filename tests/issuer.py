"""An issuer of tokens, made in the tests: keys, JSON Web Tokens, and a web server for keys and introspection.

    with Issuer() as issuer:
        OAuth2("tokens", OAuth2Settings(Claims(issuer.url, ("dragoman",))), run)
        issuer.token(sub="alice")          # good for an hour; other claims change it or leave out (None)
"""

from __future__ import annotations

import base64
import functools
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs

from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

AUDIENCE = "dragoman"
KINDS = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "Ed25519": "OKP", "EdDSA": "OKP", "HS256": "oct"}


@functools.cache
def new_key(kind: str, key_id: str) -> Key:
    """A private key: always the same for the same arguments."""
    parameters: Any = {"kid": key_id, "use": "sig"}
    if kind == "RSA":
        return RSAKey.generate_key(2048, parameters)
    if kind == "EC":
        return ECKey.generate_key("P-256", parameters)
    return OKPKey.generate_key("Ed25519", parameters)


class Issuer:
    """An issuer with one key of each kind. `counts` has the requests by path; `status` is what is answered, if not
    200; `answer` is sent instead of a document; `tokens` is what the introspection endpoint knows."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.generation = "1"
        self.counts: dict[str, int] = {}
        self.status = 200
        self.answer: bytes | None = None
        self.tokens: dict[str, dict[str, Any]] = {}
        self.credentials = "Basic " + base64.b64encode(b"broker:s%25cret").decode("ascii")
        self._server = _Server(self)
        self.url = f"http{'s' if context else ''}://localhost:{self._server.server_port}"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Issuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def key(self, kind: str) -> Key:
        return new_key(kind, f"{kind}-{self.generation}")

    def key_set(self) -> dict[str, Any]:
        return {"keys": [self.key(kind).as_dict(private=False) for kind in ("RSA", "EC", "OKP")]}

    def token(self, algorithm: str = "ES256", key: Key | None = None, header: dict[str, Any] | None = None,
              **claims: Any) -> str:
        """A token of this issuer for us. None leaves a claim out."""
        values = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 3600, **claims}
        key = key or self.key(KINDS[algorithm])
        payload = json.dumps({name: value for name, value in values.items() if value is not None})
        return sign({"alg": algorithm, "kid": key.kid, **(header or {})}, payload, key)


def sign(header: dict[str, Any], payload: str, key: Key | OctKey) -> str:
    """A token of whatever is in it: the header may lie about the key."""
    algorithm = header["alg"] if header["alg"] in KINDS else "ES256"
    signing = jws.JWSRegistry.algorithms["Ed25519" if algorithm == "EdDSA" else algorithm]
    signed = f"{base64url(json.dumps(header).encode())}.{base64url(payload.encode())}"
    return f"{signed}.{base64url(signing.sign(signed.encode('ascii'), key))}"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50

    def __init__(self, issuer: Issuer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = issuer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not like our certificate is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    documents: ClassVar[tuple[str, ...]] = ("/jwks", "/.well-known/openid-configuration")

    def do_GET(self) -> None:
        issuer = self.server.issuer
        if self.path == "/jwks":
            self._send(issuer.key_set())
        elif self.path == "/.well-known/openid-configuration":
            self._send({"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode("ascii"))
        if self.headers["Authorization"] != self.server.issuer.credentials:
            self.send_error(401)
        else:
            self._send({"active": False, **self.server.issuer.tokens.get(form["token"][0], {})})

    def _send(self, document: dict[str, Any]) -> None:
        issuer = self.server.issuer
        issuer.counts[self.path] = issuer.counts.get(self.path, 0) + 1
        data = json.dumps(document).encode() if issuer.answer is None else issuer.answer
        self.send_response(issuer.status)
        if issuer.status in (301, 302, 307):
            self.send_header("Location", f"{issuer.url}/jwks?")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
