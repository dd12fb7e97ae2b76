"""Asking for time stamps: openssl's TSA, and TSAs that misbehave."""

from __future__ import annotations

import datetime as dt
import re
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cert.core.errors import ConfigurationError, MissingExtraError
from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.timestamp import MAX_REPLY_BYTES, request_timestamp, verify_timestamp
from tests.ledger.tsa import NOTE, POLICY, REPLY, Authority, authority_of_tests, send, serving

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from tests.ledger.tsa import Answer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority_of_tests(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def token(authority: Authority) -> bytes:
    return authority.token()


def answering(authority: Authority) -> Answer:
    return lambda handler, query: send(handler, authority.reply(query))


def test_a_stamp_is_had_and_verified(authority: Authority) -> None:
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with serving(answering(authority)) as site:
        kept = request_timestamp(NOTE, site.url)
    stamp = verify_timestamp(kept, NOTE, authority.root.pem)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp.time)
    stamped = dt.datetime.fromisoformat(stamp.time)
    assert before <= stamped <= dt.datetime.now(dt.UTC)
    assert (stamp.policy, stamp.tsa) == (POLICY, "CN=TSA of the tests")
    text = authority.text(kept)
    assert f"Serial number: 0x{stamp.serial.upper()}\n" in text
    assert stamped.strftime("Time stamp: %b %e %H:%M:%S %Y GMT") in text


def test_openssl_verifies_what_is_kept(authority: Authority) -> None:
    with serving(answering(authority)) as site:
        kept = request_timestamp(NOTE, site.url)
    assert "Verification: OK" in authority.verify(kept, NOTE)
    assert "message imprint mismatch" in authority.verify(kept, NOTE + b"\n")


def test_what_is_asked(authority: Authority) -> None:
    with serving(answering(authority)) as site:
        request_timestamp(NOTE, site.url)
        request_timestamp(NOTE, site.url + "?a=b%20c")
    (path, headers, query), (second_path, _, second) = site.requests
    assert (path, second_path) == ("/tsr", "/tsr?a=b%20c")
    assert headers["Content-Type"] == "application/timestamp-query"
    assert headers["Accept"] == REPLY
    (authority.folder / "asked").write_bytes(query)
    text = authority.openssl("ts", "-query", "-in", "asked", "-text").decode()
    assert "Hash Algorithm: sha256" in text
    assert "Policy OID: unspecified" in text
    assert "Certificate required: yes" in text
    assert re.search(r"Nonce: 0x[0-9A-F]{8}", text)
    assert query != second, "a nonce is used once"
    assert NOTE not in query


def test_proxies_of_the_environment_are_not_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(answering(authority)) as site:
        assert request_timestamp(NOTE, site.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(authority: Authority, status: int) -> None:
    with serving(answering(authority)) as good:

        def moved(handler: BaseHTTPRequestHandler, query: bytes) -> None:
            handler.send_response(status)
            handler.send_header("Location", good.url)
            handler.end_headers()

        with serving(moved) as site, pytest.raises(LedgerError, match=f"status {status}") as caught:
            request_timestamp(NOTE, site.url)
    assert "redirects are not followed" in str(caught.value.hint)
    assert good.requests == []


def html(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    send(handler, b"<html>Welcome to the hotel</html>", kind="text/html; charset=utf-8")


def no_type(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()


def broken(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    send(handler, b"oops", status=500)


def unavailable(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    send(handler, b"", status=204)


def long_announced(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    send(handler, b"\x30" * (MAX_REPLY_BYTES + 1))


def endless(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", REPLY)
    handler.end_headers()
    for _ in range(64):
        handler.wfile.write(b"\x30" * 65_536)


def no_http(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    handler.wfile.write(b"220 mail.example.com ESMTP\r\n")


def hang_up(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def rejecting(handler: BaseHTTPRequestHandler, query: bytes) -> None:
    # PKIStatusInfo: rejection, ["no\n\x1b[2J"], then failInfo systemFailure (bit 25).
    text = b"no\n\x1b[2J"
    strings = b"\x0c" + bytes([len(text)]) + text
    strings = b"\x30" + bytes([len(strings)]) + strings
    info = b"\x02\x01\x02" + strings + b"\x03\x05\x06\x00\x00\x00\x40"
    info = b"\x30" + bytes([len(info)]) + info
    send(handler, b"\x30" + bytes([len(info)]) + info)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (html, "answered with text/html, not application/timestamp-reply"),
        (no_type, "answered with text/plain"),
        (broken, "answered with HTTP status 500"),
        (unavailable, "answered with HTTP status 204"),
        (long_announced, "more than 1048576 bytes"),
        (endless, "more than 1048576 bytes"),
        (no_http, "cannot be asked: 220 mail"),
        (hang_up, "cannot be asked: Remote end closed"),
        (rejecting, r"did not grant the time stamp: status 2, no\\n\\x1b\[2J$"),
    ],
)
def test_a_site_that_gives_no_stamp(answer: Answer, message: str) -> None:
    with serving(answer) as site, pytest.raises(LedgerError, match=message) as caught:
        request_timestamp(NOTE, site.url + "?key=confidential")
    assert type(caught.value) is LedgerError
    assert caught.value.hint
    assert "confidential" not in str(caught.value)


def test_a_rejection_by_openssl(authority: Authority) -> None:
    def reject(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        send(handler, authority.reply(authority.query(NOTE, "-sha384")))

    with serving(reject) as site, pytest.raises(LedgerError, match="algorithm is not supported"):
        request_timestamp(NOTE, site.url)


def test_replies_about_something_else(authority: Authority, token: bytes) -> None:
    def other_data(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        send(handler, authority.token(b"other"))

    def other_digest(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        send(handler, authority.token(NOTE, "-sha512"))

    def replayed(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        send(handler, token)

    def no_nonce(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        send(handler, authority.reply(authority.query(NOTE, "-cert", "-sha256", "-no_nonce")))

    for answer, message in (
        (other_data, "about other data"),
        (other_digest, "about other data"),
        (replayed, "nonce is not ours"),
        (no_nonce, "nonce is not ours"),
    ):
        with serving(answer) as site, pytest.raises(ProofError, match=message):
            request_timestamp(NOTE, site.url)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no RFC 3161 response"),
        (b"certainly!", "no RFC 3161 response"),
        (bytes.fromhex("30053003020100"), "holds no token"),  # granted, and nothing else
    ],
)
def test_garbage(body: bytes, message: str) -> None:
    def answer(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        send(handler, body)

    with serving(answer) as site, pytest.raises(ProofError, match=message):
        request_timestamp(NOTE, site.url)


def test_a_reply_that_is_cut(authority: Authority) -> None:
    def cut(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        reply = authority.reply(query)
        send(handler, reply[:-1], length=len(reply))

    with serving(cut) as site, pytest.raises(LedgerError, match=r"no RFC 3161|IncompleteRead"):
        request_timestamp(NOTE, site.url)


def drip(handler: BaseHTTPRequestHandler, parts: list[bytes], stop: threading.Event) -> None:
    for part in parts:
        if stop.wait(0.05):
            return
        handler.wfile.write(part)
        handler.wfile.flush()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/timestamp-reply\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [HEAD + b"\r\n0"],
        [HEAD + b"\r\n"] + [b"0"] * 200,
        [HEAD] + [b"X-%d: y\r\n" % number for number in range(90)] * 2,
        [HEAD + b"Content-Length: 900\r\n\r\n"] + [b"0"] * 200,
    ],
    ids=["says nothing", "body stalls", "body drips", "head drips", "announced body drips"],
)
def test_the_deadline_holds(parts: list[bytes]) -> None:
    stop = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        drip(handler, parts, stop)
        stop.wait(10)

    with serving(answer) as site:
        begun = time.monotonic()
        try:
            with pytest.raises(LedgerError, match=r"did not answer within 0\.4 s") as caught:
                request_timestamp(NOTE, site.url, timeout_s=0.4)
            assert time.monotonic() - begun < 8
        finally:
            stop.set()
    assert caught.value.hint


def test_a_late_exchange_ends_by_itself() -> None:
    stop = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        drip(handler, [HEAD + b"\r\n"] + [b"0"] * 200, stop)

    with serving(answer) as site:
        with pytest.raises(LedgerError):
            request_timestamp(NOTE, site.url, timeout_s=0.2)
        left = [one for one in threading.enumerate() if one.name == "cert-timestamp"]
        for thread in left:
            thread.join(5)
        assert not any(thread.is_alive() for thread in left)
        stop.set()


def test_a_site_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(LedgerError, match=r"cannot be asked: .*refused") as caught:
            request_timestamp(NOTE, url)
    assert caught.value.hint
    with pytest.raises(LedgerError, match=r"tsa\.invalid cannot be asked|did not answer"):
        request_timestamp(NOTE, "http://tsa.invalid/", timeout_s=3)
    with pytest.raises(LedgerError, match="cannot be asked"):
        request_timestamp(NOTE, f"http://{'a' * 70}.invalid/", timeout_s=3)


def test_https_without_tls(authority: Authority) -> None:
    with serving(answering(authority)) as site, pytest.raises(LedgerError, match="cannot be asked"):
        request_timestamp(NOTE, site.url.replace("http:", "https:"))
    assert site.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tsa.example.com",
        "ftp://127.0.0.1/tsr",
        "file:///etc/passwd",
        "data:application/timestamp-reply,x",
        "http:///tsr",
        "http://:80/tsr",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://[::1/",
        "http://ann:s3cret@127.0.0.1/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\r\nX-Evil: 1",
        "http://127.0.0.1/ä",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="URL of a time-stamping") as caught:
        request_timestamp(NOTE, url)
    assert caught.value.hint
    assert "s3cret" not in str(caught.value)


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, token: bytes
) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(MissingExtraError) as caught:
        request_timestamp(NOTE, "http://127.0.0.1:9/")
    assert "[timestamp]" in str(caught.value.hint)
    with pytest.raises(MissingExtraError):
        verify_timestamp(token, NOTE, authority.root.pem)


def test_importing_loads_neither_client_nor_cryptography() -> None:
    code = (
        "import sys, cert.ledger.timestamp\n"
        "print({'rfc3161_client', 'cryptography'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
