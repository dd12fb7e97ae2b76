"""A time-stamping authority made of `openssl ts -reply`, and sites that answer as they are told."""

from __future__ import annotations

import datetime as dt
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answer = Callable[[BaseHTTPRequestHandler, bytes], None]

NOTE = b"example.com/ledger\n2\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n- sig\n"
POLICY = "1.3.6.1.4.1.99999.1"
REPLY = "application/timestamp-reply"
BASE_SERIAL = 0xABCD
CONFIG = f"""
[tsa]
default_tsa = one
[one]
serial = serial
signer_digest = sha256
default_policy = {POLICY}
digests = sha1, sha256, sha512
ess_cert_id_alg = sha256
clock_precision_digits = DIGITS
"""


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def issue(
    name: str,
    by: Issued | None = None,
    *,
    is_ca: bool = False,
    usages: tuple[x509.ObjectIdentifier, ...] = (),
    serial: int | None = None,
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=True)
    return Issued(builder.sign(by.key if by else key, hashes.SHA256()), key)


@dataclass(frozen=True)
class Authority:
    """A TSA that is `openssl ts -reply` in a folder."""

    folder: Path
    root: Issued
    signer: Issued

    def openssl(self, *arguments: str, data: bytes | None = None) -> bytes:
        done = subprocess.run(
            ["openssl", *arguments], cwd=self.folder, input=data, capture_output=True, check=False
        )
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def reply(self, query: bytes, *, chain: bytes = b"", digits: int = 0) -> bytes:
        (self.folder / "query").write_bytes(query)
        (self.folder / "config").write_text(CONFIG.replace("DIGITS", str(digits)))
        (self.folder / "chain").write_bytes(chain)
        more = ("-chain", "chain") if chain else ()
        self.openssl(
            *("ts", "-reply", "-config", "config", "-queryfile", "query", "-out", "reply"),
            *("-signer", "signer.pem", "-inkey", "signer.key", *more),
        )
        return (self.folder / "reply").read_bytes()

    def query(self, data: bytes, *arguments: str) -> bytes:
        (self.folder / "data").write_bytes(data)
        return self.openssl("ts", "-query", "-data", "data", *arguments)

    def token(self, data: bytes = NOTE, digest: str = "-sha256", **more: object) -> bytes:
        return self.reply(self.query(data, "-cert", digest), **more)  # type: ignore[arg-type]

    def text(self, token: bytes) -> str:
        (self.folder / "token").write_bytes(token)
        return self.openssl("ts", "-reply", "-in", "token", "-text").decode()

    def verify(self, token: bytes, data: bytes) -> str:
        (self.folder / "token").write_bytes(token)
        (self.folder / "data").write_bytes(data)
        return self.openssl(
            *("ts", "-verify", "-in", "token", "-data", "data", "-CAfile", "root.pem")
        ).decode()


def make_authority(folder: Path, root: Issued, signer: Issued) -> Authority:
    key = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "root.pem").write_bytes(root.pem)
    (folder / "signer.pem").write_bytes(signer.pem)
    (folder / "signer.key").write_bytes(key)
    (folder / "serial").write_text(f"{BASE_SERIAL - 1:X}\n")
    return Authority(folder, root, signer)


TSA_USAGE = (ExtendedKeyUsageOID.TIME_STAMPING,)


def authority_of_tests(folder: Path) -> Authority:
    root = issue("Root of the tests", is_ca=True)
    return make_authority(folder, root, issue("TSA of the tests", root, usages=TSA_USAGE))


@dataclass
class Site:
    """An HTTP server and what it was asked."""

    url: str
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def serving(answer: Answer) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            site.requests.append((self.path, dict(self.headers), query))
            answer(self, query)

        do_GET = do_POST  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that leave early are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_port}/tsr")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(
    handler: BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    kind: str = REPLY,
    length: int | None = None,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)
