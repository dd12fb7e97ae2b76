"""Control records: their bytes, and that readers of the page take them."""

from __future__ import annotations

import base64
import json
import re
import uuid
from datetime import UTC, datetime

import pytest
import rfc8785

from cert.ledger.control import (
    build_erased,
    build_genesis,
    build_pruned,
    build_recovered,
    build_rotation,
    utc_now,
)
from cert.ledger.keys import Signer
from cert.ledger.line import check_body, genesis_prev, is_control, join_links, leaf_hash
from cert.ledger.lineage import Lineage, parse_genesis
from tests.ledger.ledgers import ORIGIN, private

OLD, NEW = Signer(private("first")), Signer(private("second"))
PREV = bytes(range(32))

BODIES = {
    "genesis": (
        build_genesis(ORIGIN, OLD.public),
        "ledger",
        {"format": "1", "origin": ORIGIN, "public_key": OLD.public.base64},
    ),
    "recovered": (
        build_recovered(segment="s", offset=7, size_bytes=3, sha256="ab", copy="c"),
        "recovered",
        {"segment": "s", "offset": 7, "bytes": 3, "sha256": "ab", "copy": "c"},
    ),
    "erased": (
        build_erased(record_id="r", seq=4, commitment="sha256:0", reason="é"),
        "erased",
        {"record_id": "r", "seq": 4, "commitment": "sha256:0", "reason": "é"},
    ),
    "pruned": (
        build_pruned(
            size=9, root=bytes(32), before="2026-01-01", sha256="ab", size_bytes=3, reason="old"
        ),
        "pruned",
        {
            "size": 9,
            "root": base64.b64encode(bytes(32)).decode(),
            "before": "2026-01-01",
            "export": {"sha256": "ab", "bytes": 3},
            "reason": "old",
        },
    ),
}


@pytest.mark.parametrize("kind", BODIES)
def test_control_records_are_what_the_page_says(kind: str) -> None:
    body, name, member = BODIES[kind]
    record = json.loads(body)
    assert rfc8785.dumps(record) == body
    assert record[name] == member
    assert set(record) == {"kind", "schema", "id", "time", "clock", name}
    assert (record["kind"], record["schema"], record["clock"]) == (kind, "1.0", "system")
    assert uuid.UUID(record["id"]).version == 4
    check_body(body)
    assert is_control(kind, join_links(PREV, 4, body))


def test_ids_are_never_the_same() -> None:
    bodies = [build_genesis(ORIGIN, OLD.public) for _ in range(3)]
    assert len({json.loads(body)["id"] for body in bodies}) == 3


def test_now_is_rfc_3339_in_utc_with_milliseconds() -> None:
    before = datetime.now(UTC)
    text = utc_now()
    after = datetime.now(UTC)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    moment = datetime.fromisoformat(text)
    assert before.timestamp() - 0.001 <= moment.timestamp() <= after.timestamp()


def test_a_genesis_and_a_rotation_are_followed() -> None:
    prev = genesis_prev(ORIGIN, OLD.public)
    genesis = join_links(prev, 0, build_genesis(ORIGIN, OLD.public))
    lineage = Lineage(parse_genesis(genesis))
    body = build_rotation(ORIGIN, 1, leaf_hash(genesis), OLD, NEW)
    member = json.loads(body)["key"]
    # The bytes that are signed, by hand.
    message = (
        f"cert-ledger/key-rotation/v1\n{ORIGIN}\n1\n{leaf_hash(genesis).hex()}\n"
        f"{OLD.public.base64}\n{NEW.public.base64}\n"
    ).encode()
    private("first").public_key().verify(base64.b64decode(member["signature"]), message)
    private("second").public_key().verify(base64.b64decode(member["proof"]), message)
    lineage.rotate(join_links(leaf_hash(genesis), 1, body))
    assert lineage.keys == [OLD.public, NEW.public]
