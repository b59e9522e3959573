"""Somebody who signs tokens: keys that can be changed, and an HTTP server that tells the public ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER = "https://issuer.example"
AUDIENCE = "ion"


class SigningKey:
    """A key of its own for RS256 or ES256."""

    def __init__(self, kid: str, algorithm: str = "ES256", *, bits: int = 2048) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=bits)
        )

    @property
    def public(self) -> dict[str, Any]:
        """As it stands in a JSON Web Key Set."""
        kind = jwt.algorithms.ECAlgorithm if self.algorithm == "ES256" else jwt.algorithms.RSAAlgorithm
        return kind.to_jwk(self.private.public_key(), as_dict=True) | {"kid": self.kid, "use": "sig"}

    def sign(self, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that holds for an hour; claims and headers of None are left out."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "iat": now, "exp": now + 3600}
        wanted = {name: value for name, value in (usual | claims).items() if value is not None}
        wanted_headers = {name: value for name, value in ({"kid": self.kid} | (headers or {})).items() if value}
        return jwt.encode(wanted, self.private, self.algorithm, wanted_headers)


def key_set(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.public for key in keys]}).encode()


class KeyServer:
    """Answers each request with `body` and `status`, and counts them."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.requests = 0
        self.url = ""


@contextmanager
def key_server(*keys: SigningKey) -> Iterator[KeyServer]:
    """Tells the keys until the block ends."""
    told = KeyServer()
    told.body = key_set(*keys)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.requests += 1
            self.send_response(told.status)
            for name, value in (told.headers | {"Content-Length": str(len(told.body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: Any) -> None:
            """Not on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}/keys"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
