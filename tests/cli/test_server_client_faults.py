"""`--server` against servers, and other things, that do what they should not."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from cert.ledger.canonical import canonical_bytes
from cert.runner import remote, remote_batch, remote_http
from tests.cli.fake_server import FakeServer, HangUpError
from tests.cli.helpers import records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.fake_server import Reply
    from tests.cli.helpers import Program, Ran

BUSY: Reply = (429, {"retry-after": "0"}, b'{"detail": "64 requests run"}')


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(backend={"logprob": -0.5}) as running:
        yield running


@pytest.fixture(autouse=True)
def inputs(folder: Path) -> None:
    (folder / "in.txt").write_text("".join(f"prompt {n}\n" for n in range(1, 11)))


def batch(cert: Program, server: FakeServer) -> Ran:
    return cert("batch", "in.txt", "--server", server.url, "-o", "out.jsonl")


def changed(line: bytes, **members: object) -> bytes:
    return canonical_bytes(json.loads(line) | members) + b"\n"


def at(number: int, make: Callable[[bytes], bytes]) -> Callable[[int, bytes], bytes]:
    """Answer as usual but for one line."""
    return lambda n, line: make(line) if n == number else line + b"\n"


def hang_up(_: bytes) -> bytes:
    raise HangUpError


FIFTH: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "closed": (hang_up, "ended before its answer was complete"),
    "no JSON": (lambda _: b"<html>\n", "with no record"),
    "no object": (lambda _: b"[]\n", "with no record"),
    "white space": (lambda line: line.replace(b":", b": ", 1) + b"\n", "with no record"),
    "no UTF-8": (lambda line: line[:-1] + b"\xff}\n", "with no record"),
    "empty": (lambda _: b"\n", "with no record"),
    "of another kind": (lambda _: b'{"kind":"run"}\n', "with no record of a prompt"),
    "of another schema": (lambda line: changed(line, schema="2.0"), "schema"),
    "without signals": (lambda line: changed(line, signals={}), "signals"),
    "of another prompt": (
        lambda line: changed(line, prompt=json.loads(line)["prompt"] | {"id": "x\x1b[2J"}),
        "the input has the id",
    ),
    "under another policy": (
        lambda line: line.replace(b'"digest":"sha256:', b'"digest":"sha256:0', 1)[:-1] + b"}\n",
        "with",
    ),
}


@pytest.mark.parametrize("fault", FIFTH)
def test_what_goes_wrong_midway_keeps_what_came_before_and_can_be_continued(
    cert: Program, server: FakeServer, folder: Path, fault: str
) -> None:
    make, words = FIFTH[fault]
    server.twist = at(4, make)
    ran = batch(cert, server)
    assert ran.code == 4, ran.err
    assert words in ran.err
    assert "\x1b" not in ran.err
    assert "4 passed" in ran.err
    assert "Traceback" not in ran.err
    assert len(records_of(folder / "out.jsonl")) == 4
    server.twist = at(-1, make)
    again = batch(cert, server)
    assert again.code == 0, again.err
    assert [one["input"]["line"] for one in records_of(folder / "out.jsonl")] == list(range(1, 11))


def test_half_a_record_is_none(cert: Program, server: FakeServer, folder: Path) -> None:
    server.twist = lambda n, line: line + b"\n" if n < 9 else line[:50]
    ran = batch(cert, server)
    assert ran.code == 4
    assert "in the middle of a record" in ran.err
    assert len(records_of(folder / "out.jsonl")) == 9


def test_a_record_twice_is_seen(cert: Program, server: FakeServer, folder: Path) -> None:
    server.twist = at(4, lambda line: line + b"\n" + line + b"\n")
    ran = batch(cert, server)
    assert ran.code == 4
    assert "the input has the id" in ran.err or "more records" in ran.err
    assert len(records_of(folder / "out.jsonl")) == 5


def test_more_records_than_lines_are_seen(cert: Program, server: FakeServer) -> None:
    server.extra = b'{"kind":"analysis"}\n'
    ran = batch(cert, server)
    assert ran.code == 4
    assert "more records than there were lines" in ran.err
    assert len(ran.records) == 10


def test_fewer_records_than_lines_are_seen(cert: Program, server: FakeServer) -> None:
    server.twist = at(9, lambda _: b"")
    ran = batch(cert, server)
    assert ran.code == 4
    assert "with 1 lines unanswered" in ran.err
    assert len(ran.records) == 9


def test_a_stream_without_its_last_chunk_is_incomplete(cert: Program, server: FakeServer) -> None:
    server.last = False
    ran = batch(cert, server)
    assert ran.code == 4
    assert len(ran.records) == 10
    assert "ended before its answer was complete" in ran.err


def test_an_endless_record_is_given_up(
    cert: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_batch, "MAX_LINE_BYTES", 20_000)
    server.twist = at(2, lambda _: b"x" * 100_000)
    ran = batch(cert, server)
    assert ran.code == 4
    assert "more than 20000 bytes" in ran.err


def test_nothing_at_all_is_unavailable_rather_than_incomplete(
    cert: Program, server: FakeServer, folder: Path
) -> None:
    server.twist = at(0, hang_up)
    assert batch(cert, server).code == 6
    assert (folder / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize("path", ["/v1/server", "/v1/batch"])
def test_a_busy_server_is_asked_again(cert: Program, server: FakeServer, path: str) -> None:
    server.replies[path] = [BUSY, (503, {"retry-after": "0"}, b"")]
    ran = batch(cert, server)
    assert ran.code == 0, ran.err
    assert len(ran.records) == 10
    assert "64 requests run" in ran.err
    assert [one["prompt"] for one in server.batches()[-1].lines] == [
        f"prompt {n}" for n in range(1, 11)
    ]


@pytest.mark.parametrize("path", ["/v1/server", "/v1/batch"])
def test_a_server_that_stays_busy_is_given_up(
    cert: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for module in (remote, remote_batch):
        monkeypatch.setattr(module, "BUSY_RETRIES", 1)
    server.replies[path] = [BUSY] * 50
    ran = batch(cert, server)
    assert ran.code == 6
    assert "has no room now: 64 requests run" in ran.err
    assert sum(one.path == path for one in server.asked) == 2


def test_a_wait_beyond_the_bound_is_not_taken(cert: Program, server: FakeServer) -> None:
    server.replies["/v1/batch"] = [(503, {"retry-after": "86400"}, b"{}")]
    ran = batch(cert, server)
    assert ran.code == 6
    assert len(server.batches()) == 1


PROBLEM = b'{"detail": "query: top_k is wrong \\u001b[2J"}'


@pytest.mark.parametrize(
    ("path", "reply", "code", "words"),
    [
        ("/v1/server", (404, {}, b""), 2, "is no `cert serve`"),
        ("/v1/server", (200, {}, b"<html>hello"), 2, "is no `cert serve`"),
        ("/v1/server", (200, {}, b"[]"), 2, "is no `cert serve`"),
        ("/v1/server", (200, {}, b'{"hello": 1}'), 2, "missing required field `cert`"),
        ("/v1/server", (302, {"location": "http://127.0.0.1:1/"}, b""), 2, "not followed"),
        ("/v1/server", (401, {}, b""), 2, "refuses the token"),
        ("/v1/server", (421, {}, b'{"detail": "no such host"}'), 2, "no such host"),
        ("/v1/server", (500, {}, b"oops"), 6, "failed (500): it gives no reason"),
        ("/v1/batch", (400, {}, PROBLEM), 2, "query: top_k is wrong \\x1b[2J"),
        ("/v1/batch", (413, {}, b"x"), 2, "413"),
        ("/v1/batch", (308, {"location": "/x"}, b""), 2, "redirects to /x"),
        ("/v1/batch", (503, {"retry-after": "999"}, b"{}"), 6, "has no room"),
    ],
)
def test_answers_of_no_success_say_what_to_do(  # noqa: PLR0917 - parameters
    cert: Program, server: FakeServer, path: str, reply: Reply, code: int, words: str
) -> None:
    server.replies[path] = [reply] * 20
    ran = batch(cert, server)
    assert ran.code == code, ran.err
    assert words in ran.err
    assert ran.out == ""
    assert "\x1b" not in ran.err


def test_a_newer_api_is_refused(cert: Program, server: FakeServer) -> None:
    server.info = {"api": 2}
    ran = batch(cert, server)
    assert ran.code == 2
    assert "speaks version 2 of the API" in ran.err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:8000", "neither http:// nor https://"),
        ("ftp://127.0.0.1", "neither http:// nor https://"),
        ("http://", "no host"),
        ("http://127.0.0.1:0", "no such port"),
        ("http://127.0.0.1:99999", "cannot be used"),
        ("http://[::1", "cannot be used"),
        ("http://a b/", "white space"),
        ("http://127.0.0.1/?a=b", "a query"),
        ("http://127.0.0.1/\x1b[2J", "control characters"),
    ],
)
def test_a_url_that_is_none_is_refused(cert: Program, url: str, words: str) -> None:
    for more in ((), ("--dry-run",)):
        ran = cert("batch", "in.txt", "--server", url, *more)
        assert ran.code == 2
        assert words in ran.err
        assert "\x1b" not in ran.err


def test_credentials_in_a_url_are_refused_and_not_repeated(cert: Program) -> None:
    ran = cert("batch", "in.txt", "--server", "http://ann:s3cret@127.0.0.1:1")
    assert ran.code == 2
    assert "CERT_TOKEN" in ran.err
    assert "s3cret" not in ran.err


def test_nobody_there_is_unavailable(cert: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ran = cert("analyze", "x", "--server", f"http://127.0.0.1:{port}")
    assert ran.code == 6
    assert "cannot be reached" in ran.err
    assert "is `cert serve` running there?" in ran.err


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"\x00" * 200_000])
def test_something_else_than_http_is_no_server(cert: Program, banner: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(banner)

        thread = threading.Thread(target=answer)
        thread.start()
        ran = cert("analyze", "x", "--server", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert ran.code in {2, 6}
    assert "speaks no HTTP/1.1" in ran.err or "ended before its answer" in ran.err


def test_a_server_that_says_nothing_is_given_up(
    cert: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_DESCRIBE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ran = cert("analyze", "x", "--server", f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert ran.code == 6
    assert "no answer within 0.2 s" in ran.err


def test_a_server_without_100_continue_gets_the_body_all_the_same(
    cert: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_batch, "_CONTINUE_S", 0.05)
    original = remote_http.Link.next_event

    async def without(self: remote_http.Link) -> object:
        event = await original(self)
        self.is_continued.clear()
        return event

    monkeypatch.setattr(remote_http.Link, "next_event", without)
    assert len(batch(cert, server).records) == 10


def test_what_is_unanswered_and_unread_stays_bounded(
    cert: Program, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_batch, "MAX_UNANSWERED", 3)
    monkeypatch.setattr(remote_batch, "MAX_UNANSWERED_BYTES", 150)
    seen: list[int] = []
    original = remote_batch._Window.take

    async def take(self: remote_batch._Window, size: int) -> None:
        await original(self, size)
        seen.append(self.size_bytes)

    monkeypatch.setattr(remote_batch._Window, "take", take)
    assert len(batch(cert, server).records) == 10
    assert len(seen) == 10
    assert max(seen) <= 150


def test_a_token_in_the_clear_is_warned_about(
    cert: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERT_TOKEN", "a-token-of-enough-characters")
    monkeypatch.setattr(remote_http, "CONNECT_TIMEOUT_S", 0.01)
    ran = cert("analyze", "x", "--server", "http://192.0.2.1:8000")
    assert ran.code == 6
    assert "the token goes to http://192.0.2.1:8000 unencrypted" in ran.err


def test_an_id_that_no_header_takes_is_refused(cert: Program, server: FakeServer) -> None:
    ran = cert("analyze", "x", "--server", server.url, "--correlation-id", "ä")
    assert ran.code == 2
    assert "correlation id" in ran.err
    assert not server.asked


def test_certificates_are_verified(
    cert: Program, tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = tls
    with FakeServer(tls=context) as server:
        args = ("analyze", "x", "--server", server.url)
        refused = cert(*args)
        assert refused.code == 6
        assert "certificate" in refused.err
        assert "SSL_CERT_FILE" in refused.err
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        trusted = cert(*args)
        assert trusted.code in {0, 1, 3}, trusted.err
        plain = cert("analyze", "x", "--server", server.url.replace("https", "http"))
        assert plain.code in {2, 6}
    with FakeServer() as server:
        none = cert("analyze", "x", "--server", server.url.replace("http", "https"))
        assert none.code == 6
        assert "no TLS there" in none.err or "ended" in none.err or "reached" in none.err


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1, and the certificate that vouches for it."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    return context, chain
