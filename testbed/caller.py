"""Callers for development: a token of this project (`make token SUB=ada SCOPES='a b'`), and what API Gateway's authorizer makes of it.

    caller.py SUB [SCOPES]    prints a token

The key is made in target/local when it is first needed. No deployed API trusts it.
"""

import http.client
import json
import os
import re
import sys
import time
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from settings import Handler

KEY = Path(__file__).resolve().parents[1] / "target" / "local" / "key.pem"
ISSUER = "https://localhost/development"
AUDIENCE = "development"
DAY = 24 * 60 * 60
REFUSED = '{"message":"Unauthorized"}'


def key():
    if not KEY.exists():
        KEY.parent.mkdir(parents=True, exist_ok=True)
        made = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        own = KEY.with_suffix(f".{os.getpid()}")
        own.touch(mode=0o600)
        own.write_bytes(made)
        with suppress(FileExistsError):  # another process was faster
            os.link(own, KEY)
        own.unlink()
    return load_pem_private_key(KEY.read_bytes(), None)


def token(sub: str, scopes: str = "", issuer: str = ISSUER, kid: str = "development") -> str:
    """A token that is valid for a day."""
    now = int(time.time())
    claims = {"iss": issuer, "aud": AUDIENCE, "sub": sub, "iat": now, "exp": now + DAY}
    return jwt.encode(claims | ({"scope": scopes} if scopes else {}), key(), "RS256", {"kid": kid})


def text(claim: object) -> str:
    """A claim as an HTTP API passes it on."""
    if isinstance(claim, list):
        return f"[{' '.join(map(text, claim))}]"
    return claim if isinstance(claim, str) else json.dumps(claim)


def authorized(event: dict, protected: list) -> tuple[dict | None, str | None]:
    """The `authorizer` that an HTTP API would add to the event's context, and why it would refuse the request instead."""
    context = event["requestContext"]
    if context.get("authorizer"):  # of a case, by `cargo lambda invoke`
        return None, None
    method, path = context["http"]["method"], event["rawPath"]
    if not any(re.fullmatch(pattern, path) and method not in is_open for pattern, is_open in protected):
        return None, None
    scheme, _, given = event.get("headers", {}).get("authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer":
        return None, "Bearer"
    try:
        claims = jwt.decode(given.strip(), key().public_key(), ["RS256"], issuer=ISSUER, audience=AUDIENCE)
    except jwt.InvalidTokenError as error:
        return None, f'Bearer scope="" error="invalid_token" error_description="{error}: `make token` here prints one that is valid"'
    return {"jwt": {"claims": {name: text(claim) for name, claim in claims.items()}, "scopes": None}}, None


def runtime_api(address: str, protected: list) -> ThreadingHTTPServer:
    """A Runtime API between a function and the one at `address`: what the function gets has the caller in it."""
    behind = urlsplit(address if "//" in address else f"//{address}")

    class RuntimeApi(Handler):
        def setup(self) -> None:
            super().setup()
            # One for each connection of the function. cargo-lambda may read a body after it has answered: it must stay open.
            self.behind = http.client.HTTPConnection(behind.hostname, behind.port)

        def finish(self) -> None:
            super().finish()
            self.behind.close()

        def do_GET(self) -> None:
            while True:
                self.send_on()
                answer = self.behind.getresponse()
                body = answer.read()
                refused = None
                if self.path.endswith("/invocation/next") and answer.status == 200:
                    body, refused = self.with_caller(body)
                if refused is None:
                    return self.answer(answer, body)
                path = self.path.removesuffix("next") + answer.headers["lambda-runtime-aws-request-id"] + "/response"
                self.behind.request("POST", behind.path + path, refused)
                self.behind.getresponse().read()

        def with_caller(self, body: bytes) -> tuple[bytes, bytes | None]:
            try:
                event = json.loads(body)
                authorizer, refused = authorized(event, protected)
            except (ValueError, LookupError, AttributeError, TypeError):
                return body, None  # not the event of an HTTP API
            if authorizer:
                event["requestContext"]["authorizer"] = authorizer
                return json.dumps(event).encode(), None
            headers = {"content-type": "application/json", "www-authenticate": refused}
            answer = {"statusCode": 401, "headers": headers, "cookies": [], "body": REFUSED, "isBase64Encoded": False}
            return body, json.dumps(answer).encode() if refused else None

        def do_POST(self) -> None:
            self.send_on()
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                # As it comes: an answer may be streamed, with trailers.
                while size := int((line := self.rfile.readline()).split(b";")[0], 16):
                    self.behind.send(line + self.rfile.read(size + 2))
                self.behind.send(line)
                while (line := self.rfile.readline()).strip():
                    self.behind.send(line)
                self.behind.send(b"\r\n")
            else:
                self.behind.send(self.rfile.read(int(self.headers.get("content-length", 0))))
            answer = self.behind.getresponse()
            self.answer(answer, answer.read())

        def send_on(self) -> None:
            self.behind.putrequest(self.command, behind.path + self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                self.behind.putheader(name, value)
            self.behind.endheaders()

        def answer(self, answer: http.client.HTTPResponse, body: bytes) -> None:
            others = ("connection", "content-length", "date", "server", "transfer-encoding")
            self.reply(answer.status, body, {name: value for name, value in answer.headers.items() if name.lower() not in others})

    return ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or not sys.argv[1]:
        sys.exit("SUB is empty: say who the caller is, as in `make token SUB=ada`.")
    print(token(*sys.argv[1:]))
