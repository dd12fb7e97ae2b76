"""RFC 3161: a time-stamping authority (TSA) says that bytes existed at a time.

What is kept is the TimeStampResp as it came, which `openssl ts -verify` reads too. It is signed, so
it may come over plain http. Nothing but the digest of the data leaves this machine.

A certificate has to be valid at the time that the token states. Revocation is not looked up.
"""

from __future__ import annotations

import hashlib
import re
import time
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException
from threading import Thread
from typing import TYPE_CHECKING, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request

from cert.core.errors import ConfigurationError
from cert.core.extras import missing_extra
from cert.ledger.errors import LedgerError, ProofError
from cert.observability.controls import escape_controls

if TYPE_CHECKING:
    from types import ModuleType

    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

MAX_REPLY_BYTES: Final = 1024 * 1024
_SHA256_OID: Final = "2.16.840.1.101.3.4.2.1"
_GRANTED: Final = 0
_CERTIFICATES: Final = 0xA0  # [0], of SignedData
_SHORT_LENGTH: Final = 0x80  # lengths below stand for themselves; above, for their own length
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_CHUNK_BYTES: Final = 65_536
_SHOWN_CHARS: Final = 200
_REQUEST_TYPE: Final = "application/timestamp-query"
_REPLY_TYPE: Final = "application/timestamp-reply"
_TRY_LATER: Final = "check the URL and the network, or try again later"
_OTHER_URL: Final = "check the URL: it may not be that of a time-stamping authority"
# Within OpenSSL's stack of errors, the last of these says what the others led to.
_REASON: Final = re.compile(r'(?:reason: "|Verify error: )([^"]+)"')


@dataclass(frozen=True, slots=True)
class Timestamp:
    """What a verified token states.

    Attributes:
        time: RFC 3339, UTC, whole seconds; a fraction that the token states is cut off.
        policy: OID of the policy under which the TSA works.
        serial: The token's number at this TSA, in hex.
        tsa: Subject of the certificate that signed, as RFC 4514 writes it; None where that is
            empty. The token's own `tsa` member is a claim, and not looked at.
    """

    time: str
    policy: str
    serial: str
    tsa: str | None


def request_timestamp(data: bytes, url: str, *, timeout_s: float = 10) -> bytes:
    """Have bytes time-stamped.

    Proxies of the environment are not used, and redirects not followed. The reply is checked to be
    about this request, not for whose signature it bears: that is `verify_timestamp`'s.

    Args:
        data: A checkpoint's note, for example.
        url: Of the TSA, http or https.
        timeout_s: Wall-clock limit of the whole exchange.

    Returns:
        DER of the TimeStampResp, as it came: at most 1 MiB.

    Raises:
        ConfigurationError: The URL is none that can be asked.
        LedgerError: The TSA cannot be reached or takes too long, or what it says is not a
            granted request.
        ProofError: What it says is no TimeStampResp, or is about other data or another request.
    """
    client = _client()
    where = _parse_url(url)
    query = client.TimestampRequestBuilder(
        data, client.HashAlgorithm.SHA256, nonce=True, cert_req=True
    ).build()
    reply = _exchange(url, query.as_bytes(), where, timeout_s)
    response = _decode(client, reply)
    if response.status != _GRANTED:
        said = escape_controls("; ".join(response.status_string))[:_SHOWN_CHARS] or "no reason"
        raise LedgerError(
            f"{where} did not grant the time stamp: status {response.status}, {said}",
            hint="the TSA has to accept SHA-256 and requests without a policy; ask another one",
        )
    try:
        info = response.tst_info
        imprint = info.message_imprint
        algorithm, digest, nonce = imprint.hash_algorithm, imprint.message, info.nonce
    except Exception as error:  # its parser names none of its errors
        raise ProofError(f"the reply of {where} holds no token: {_brief(error)}") from error
    if (algorithm.dotted_string, digest) != (_SHA256_OID, hashlib.sha256(data).digest()):
        raise ProofError(f"the token of {where} is about other data")
    if nonce != query.nonce:
        raise ProofError(f"the token of {where} answers another request: its nonce is not ours")
    return reply


def verify_timestamp(token: bytes, data: bytes, roots_pem: bytes) -> Timestamp:
    """Check that a TSA whose certificate chains to a given root time-stamped these bytes.

    Args:
        token: DER of a TimeStampResp, its certificate within.
        data: What was stamped; by its SHA-256, SHA-384 or SHA-512.
        roots_pem: Certificates that are trusted for this, one or more. Every TSA below them is.

    Raises:
        ConfigurationError: `roots_pem` holds no certificate.
        ProofError: The token is none, was altered, is about other data, or is not by a TSA of
            these roots.
    """
    client = _client()
    roots = _load_roots(roots_pem)
    response = _decode(client, token)
    try:
        client.VerifierBuilder(roots=roots).build().verify_message(response, data)
        signer = _signer(response)
        info = response.tst_info
        return Timestamp(
            info.gen_time.isoformat().replace("+00:00", "Z"),
            info.policy.dotted_string,
            format(info.serial_number, "x"),
            signer.subject.rfc4514_string() or None,
        )
    except ProofError:
        raise
    except Exception as error:  # the parsers below name none of their errors
        raise ProofError(
            f"the time stamp does not hold: {_brief(error)}",
            hint="is this the data, and are these the roots of the TSA that was asked?",
        ) from error


def _client() -> ModuleType:
    try:
        import rfc3161_client  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing_extra("time stamps need rfc3161-client", "timestamp") from error
    return rfc3161_client


def _parse_url(url: str) -> str:
    """Refuse a URL that is not to be asked; else say where it leads, without path and query.

    A path or a query may hold a customer's key: they are in no message.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.hostname is not None and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.scheme not in {"http", "https"}:
        raise ConfigurationError(
            "the URL of a time-stamping authority is http or https with a host",
            hint="for example http://timestamp.example.com/tsr",
        )
    if "@" in parts.netloc or not (url.isascii() and url.isprintable()) or " " in url:
        raise ConfigurationError(
            "the URL of a time-stamping authority holds a user name or characters to be escaped",
            hint="give it without user:password@, with spaces and others percent-encoded",
        )
    return f"{parts.scheme}://{parts.netloc}"


def _exchange(url: str, query: bytes, where: str, timeout_s: float) -> bytes:
    """POST a query and read the reply, within a wall-clock limit.

    The time limit of a socket is one of silence, and looking up a name has none. So a thread does
    the exchange and is waited for; one that is late ends by itself and is not heard.
    """
    outcome: Future[bytes] = Future()
    deadline_s = time.monotonic() + timeout_s

    def run() -> None:
        try:
            outcome.set_result(_post(url, query, where, timeout_s, deadline_s))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.set_exception(error)

    Thread(target=run, name="cert-timestamp", daemon=True).start()
    try:
        return outcome.result(timeout_s)
    except TimeoutError as error:
        raise LedgerError(
            f"{where} did not answer within {timeout_s:g} s", hint=_TRY_LATER
        ) from error
    except (OSError, HTTPException, UnicodeError) as error:
        raise LedgerError(f"{where} cannot be asked: {_brief(error)}", hint=_TRY_LATER) from error


def _post(url: str, query: bytes, where: str, timeout_s: float, deadline_s: float) -> bytes:
    # These two alone: no proxies, no redirects, no other schemes, and no errors for a status.
    opener = OpenerDirector()
    opener.add_handler(HTTPHandler())
    opener.add_handler(HTTPSHandler())
    headers = {"Content-Type": _REQUEST_TYPE, "Accept": _REPLY_TYPE, "User-Agent": "cert"}
    request = Request(url, query, headers, method="POST")  # noqa: S310 - http and https only
    try:
        response = opener.open(request, timeout=timeout_s)
    except URLError as error:
        raise (error.reason if isinstance(error.reason, OSError) else error) from None
    with response:
        if response.status != _OK:
            moved = "redirects are not followed: give the URL it leads to"
            hint = moved if response.status in _REDIRECTS else _OTHER_URL
            raise LedgerError(f"{where} answered with HTTP status {response.status}", hint=hint)
        content_type = response.headers.get_content_type()
        if content_type != _REPLY_TYPE:
            shown = escape_controls(content_type)[:_SHOWN_CHARS]
            raise LedgerError(f"{where} answered with {shown}, not {_REPLY_TYPE}", hint=_OTHER_URL)
        reply = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            reply += chunk
            if len(reply) > MAX_REPLY_BYTES:
                raise LedgerError(
                    f"{where} answered with more than {MAX_REPLY_BYTES} bytes", hint=_OTHER_URL
                )
            if time.monotonic() > deadline_s:
                raise TimeoutError
        return bytes(reply)


def _decode(client: ModuleType, token: bytes) -> TimeStampResponse:
    try:
        response: TimeStampResponse = client.decode_timestamp_response(_with_der_order(token))
    except Exception as error:  # its parser names none of its errors
        raise ProofError(f"no RFC 3161 response: {_brief(error)}") from error
    return response


def _with_der_order(token: bytes) -> bytes:
    """The token with its certificates in the order that DER has for a SET OF.

    OpenSSL's own TSA writes them in the chain's order, and the parser refuses that. They are not
    signed over. Whatever is not shaped like a token is left to the parser.
    """
    try:
        ((_, start, end),) = _elements(token, 0, len(token))
        for place in (1, 1, 0):  # timeStampToken, its content, SignedData
            _, start, end = _elements(token, start, end)[place]
        found = [one for one in _elements(token, start, end) if token[one[0]] == _CERTIFICATES]
        ((_, start, end),) = found
        ordered = sorted(token[one[0] : one[2]] for one in _elements(token, start, end))
    except (IndexError, ValueError):
        return token
    return token[:start] + b"".join(ordered) + token[end:]


def _elements(der: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """Where each element between two places begins, where its content does, and where it ends.

    Raises:
        ValueError: They do not fill the room between the places exactly.
        IndexError: The bytes end within a length.
    """
    found = []
    while start < end:
        content, length = start + 2, der[start + 1]
        if length > _SHORT_LENGTH:
            content += length - _SHORT_LENGTH
            length = int.from_bytes(der[start + 2 : content])
        found.append((start, content, content + length))
        start = content + length
    if start != end:
        raise ValueError("an element is longer than what holds it")
    return found


def _load_roots(pem: bytes) -> list[Certificate]:
    from cryptography import x509  # noqa: PLC0415 - heavy

    try:
        return x509.load_pem_x509_certificates(pem)
    except Exception as error:  # several kinds, none of them documented
        raise ConfigurationError(
            f"the TSA's roots are no PEM certificates: {_brief(error)}",
            hint="give the file with the certificate of the TSA's root authority",
        ) from error


def _signer(response: TimeStampResponse) -> Certificate:
    """The certificate that the signature names, by issuer and serial number.

    Two of these would leave open whose key was checked and whose extended key usage: certificates
    in a token are not signed over, so anyone may add one.
    """
    from cryptography import x509  # noqa: PLC0415 - heavy

    (named,) = response.signed_data.signer_infos
    found = [
        certificate
        for certificate in map(x509.load_der_x509_certificate, response.signed_data.certificates)
        if (certificate.issuer, certificate.serial_number) == (named.issuer, named.serial_number)
    ]
    if len(found) != 1:
        raise ProofError(f"the token holds {len(found)} certificates of one issuer and number")
    return found[0]


def _brief(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return escape_controls((_REASON.findall(text) or [text])[-1])[:_SHOWN_CHARS]
