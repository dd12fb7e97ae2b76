#!/usr/bin/env python3
"""Check a cert ledger without cert: one file, Python 3.9 or later and `cryptography`.

    python cert_verify.py LEDGER --key PUB [--head FILE] [--require-head]
                                 [--strict] [--deep] [--json]
    python cert_verify.py --proof FILE --key PUB
    python cert_verify.py --consistency FILE --old CHECKPOINT --key PUB

LEDGER is a ledger's folder, a bundle (.zip) that has one as `ledger/`, or a file of lines. PUB is a
PEM file or `ed25519:<base64 of 32 bytes>`, literally or in a file; it must have reached you by
another way than the ledger did. Nothing is ever written next to the evidence.

Exit: 0 valid, unanchored or unsealed; 5 torn, rolled-back or invalid (also unsealed with --strict,
and anything without a head with --require-head); 2 the command could not be carried out.

Section numbers are those of record-format.md, from which alone this file was written.
"""

# ruff: noqa: PLR2004 (the page's numbers stand where the page's sentence is checked)
# ruff: noqa: C901 (steps that the page has together stand together)
# ruff: noqa: D102, D103 (short functions whose names say it; an auditor reads all of this file)

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import io
import json
import re
import shutil
import sqlite3
import sys
import tempfile
import zipfile
import zlib
from array import array
from bisect import bisect_left, insort
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE_BYTES = 16_777_216
MAX_NOTE_BYTES = 65_536
MAX_SIDE_BYTES = 67_108_864  # of pruned.json, tail.json; the page sets no limit, memory does
MAX_INTEGER = 2**53 - 1
MAX_FINDINGS = 1000  # that are listed; every one counts
MAX_ZIP_RATIO = 200  # JSON lines shrink to a tenth or so; deflate's limit is about 1000
STATES = ("invalid", "rolled-back", "torn", "unsealed", "unanchored", "valid")  # the worst first


class UseError(Exception):
    """What was asked for cannot be done: exit 2. It says nothing about the ledger."""


class BadError(Exception):
    """Evidence that fails a check. The message says what was expected and found."""


# ---- Section 1: hashes, and the two files that hold a ledger -------------------------------------


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def unbase64(text: str, size_bytes: int | None = None) -> bytes:
    """The bytes of canonical, padded base64 (ValueError otherwise), of a given size if stated."""
    data = binascii.a2b_base64(text.encode("ascii"))
    if base64.b64encode(data).decode() != text or size_bytes not in (None, len(data)):
        raise ValueError(text)
    return data


def unhex(text: object) -> bytes:
    """The 32 bytes of 64 lower-case hex digits (ValueError otherwise)."""
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(text)
    return bytes.fromhex(text)


class Folder:
    """A ledger in a folder. Only regular files count."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self, folder: str) -> list[str]:
        place = self.path / folder
        return [one.name for one in place.iterdir() if one.is_file()] if place.is_dir() else []

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def open(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb", buffering=1 << 20)

    def read(self, name: str, limit_bytes: int) -> bytes | None:
        """A small file's bytes, at most one more than the limit; None if there is no such file."""
        if not self.has(name):
            return None
        with self.open(name) as source:
            return source.read(limit_bytes + 1)


class Bundle(Folder):
    """A ledger in a zip, as `ledger/`; read as a stream, and unpacked nowhere."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.zip = zipfile.ZipFile(path)
        self.files: dict[str, zipfile.ZipInfo] = {}
        for info in self.zip.infolist():
            name, parts = info.filename, info.orig_filename.split("/")
            if ".." in parts or parts[0] == "" or "\\" in info.orig_filename or ":" in parts[0]:
                raise UseError(f"the bundle has a file with the dangerous name {name!r}")
            if name in self.files:
                raise UseError(f"the bundle has the file {name!r} twice")
            if info.file_size > max(1 << 20, MAX_ZIP_RATIO * info.compress_size):
                raise UseError(f"the bundle's file {name!r} looks like a zip bomb")
            self.files[name] = info
        if not any(name.startswith("ledger/") for name in self.files):
            raise UseError("the bundle has no ledger/")

    def names(self, folder: str) -> list[str]:
        start = f"ledger/{folder}/"
        inside = [name[len(start) :] for name in self.files if name.startswith(start)]
        return [name for name in inside if name and "/" not in name]

    def has(self, name: str) -> bool:
        return f"ledger/{name}" in self.files

    def open(self, name: str) -> BinaryIO:
        stream = self.zip.open(self.files[f"ledger/{name}"])
        return io.BufferedReader(stream, 1 << 20)  # type: ignore[type-var]


# ---- Section 2: lines ----------------------------------------------------------------------------

START = re.compile(rb'\{"_prev":"([0-9a-f]{64})","_seq":(0|[1-9][0-9]{0,15}),"[a-z]')


class Place(NamedTuple):
    """A line (from 1), and where it begins: segment (None: in none that is there) and offset."""

    line: int
    segment: str | None
    offset: int


class Line(NamedTuple):
    """One line; `data` is None if it is too long, `prev` and `seq` if it has not the form."""

    place: Place
    data: bytes | None
    leaf: bytes
    prev: bytes | None
    seq: int | None
    end: int  # the offset after it
    complete: bool  # it ends with a newline


def form(data: bytes) -> tuple[bytes | None, int | None]:
    """The `_prev` and `_seq` that a line states."""
    match = START.match(data)
    if match is None:
        return None, None
    return bytes.fromhex(match[1].decode()), int(match[2])


def one_line(data: bytes, number: int) -> Line:
    """A line that came alone, in a file of another kind."""
    place, leaf = Place(number, None, 0), sha256(b"\x00", data)
    return Line(place, data, leaf, *form(data), end=len(data), complete=True)


def read_lines(source: BinaryIO, segment: str | None, number: int) -> Iterator[Line]:
    """The lines of a stream; never more than one of them, nor more than 16 MiB, in memory."""
    offset = 0
    while data := source.readline(MAX_LINE_BYTES + 2):
        place, complete, leaf = Place(number, segment, offset), data[-1:] == b"\n", hashlib.sha256()
        offset += len(data)
        body = data[:-1] if complete else data
        leaf.update(b"\x00" + body)
        long = len(body) > MAX_LINE_BYTES
        while long and not complete and (data := source.readline(1 << 20)):
            complete, offset = data[-1:] == b"\n", offset + len(data)
            leaf.update(data[:-1] if complete else data)
        stated = form(body) if complete and not long else (None, None)
        yield Line(place, None if long else body, leaf.digest(), *stated, offset, complete)
        number += 1


def number_text(value: float) -> str:
    """RFC 8785, 3.2.2.3: a double as ECMAScript writes it. Both use the shortest digits."""
    text = repr(value)
    if text in ("nan", "inf", "-inf"):
        raise ValueError(text)
    if "e" not in text:
        return "0" if value == 0 else text.removesuffix(".0")
    sign, text = ("-", text[1:]) if text[0] == "-" else ("", text)
    mantissa, _, exponent = text.partition("e")
    digits = mantissa.replace(".", "")
    point = int(exponent) + 1  # the value is 0.DIGITS * 10**point
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def canonical_text(value: Any, depth: int = 1) -> str:  # noqa: ANN401 (any JSON value)
    """RFC 8785's form of a JSON value; ValueError where section 2 refuses it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # just the escapes of RFC 8785, 3.2.2.2
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"an integer beyond 2^53 - 1: {value}")
        return str(value)
    if isinstance(value, float):
        return number_text(value)
    if depth > 64:
        raise ValueError("nested deeper than 64")
    if isinstance(value, list):
        return "[" + ",".join([canonical_text(one, depth + 1) for one in value]) + "]"
    names = sorted(value, key=lambda name: name.encode("utf-16-be"))
    return (
        "{"
        + ",".join([f"{canonical_text(k)}:{canonical_text(value[k], depth + 1)}" for k in names])
        + "}"
    )


def _integer(text: str) -> int | float:
    """An integer; beyond 2^53 - 1 it is a double, whose form `canonical_text` then compares."""
    if len(text) > 400:
        raise ValueError("a number of too many digits")
    return int(text) if abs(int(text)) <= MAX_INTEGER else float(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def parse_canonical(data: bytes) -> dict[str, Any]:
    """The object whose RFC 8785 form these bytes are; BadError otherwise."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_int=_integer,
            parse_constant=_no_number,
        )
        again = canonical_text(value).encode("utf-8")  # without a key's second occurrence
    except (ValueError, RecursionError) as error:
        raise BadError(f"not canonical JSON: {error}"[:200]) from error
    if not isinstance(value, dict):
        raise BadError("not canonical JSON: expected an object")
    if again != data:
        at = next((i for i, (a, b) in enumerate(zip(again, data)) if a != b), len(again))  # noqa: B905 (3.9)
        raise BadError(
            f"not canonical JSON from byte {at}: expected {again[at : at + 20]!r},"
            f" found {data[at : at + 20]!r}"
        )
    return value


def check_keys(record: dict[str, Any]) -> None:
    """Section 2, of the keys of the top level; BadError if one begins otherwise."""
    if not all("a" <= key[:1] <= "z" for key in record if key not in ("_prev", "_seq")):
        raise BadError("a key of the top level does not begin with a lower-case letter")


# ---- Sections 3 and 4: genesis and keys ----------------------------------------------------------

CONTROL = re.compile(START.pattern[: -len(b"[a-z]")] + b'clock":')
NOTABLE = re.compile(rb'"kind":"(?:genesis|key|erased|pruned|recovered)"')
LINEAGE = re.compile(rb'"kind":"(?:genesis|key)"')
ORIGIN = re.compile(r"[!-*,-~]{1,255}")


def signed(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_control(line: Line) -> bool:
    """Whether a line can be a control record (section 3)."""
    data = line.data or b""
    return bool(CONTROL.match(data) and NOTABLE.search(data))


def read_genesis(line: Line) -> tuple[str, bytes]:
    """The origin and the key that a genesis names (6.1); BadError otherwise."""
    record = parse_canonical(line.data or b"")
    ledger = record.get("ledger")
    is_genesis = is_control(line) and record.get("kind") == "genesis" and line.seq == 0
    if not is_genesis or not isinstance(ledger, dict):
        raise BadError("the first record is not a genesis")
    try:
        origin, key = str(ledger["origin"]), unbase64(ledger["public_key"], 32)
    except (KeyError, AttributeError, ValueError) as error:
        raise BadError("the genesis names no origin or no Ed25519 key of 32 bytes") from error
    if ledger.get("format") != "1" or not ORIGIN.fullmatch(origin) or ledger["origin"] != origin:
        raise BadError("the genesis names no valid origin, or another format than 1")
    expected = sha256(b"\x02", origin.encode(), b"\n", key)
    if line.prev != expected:
        raise BadError(f"the genesis' _prev: expected {expected.hex()}, found another")
    return origin, key


def read_rotation(line: Line, record: dict[str, Any], origin: str, force: bytes) -> bytes:
    """The key that a `key` record passes on to, from the one in force; BadError otherwise."""
    try:
        member = record["key"]
        old, new = unbase64(member["previous"], 32), unbase64(member["public_key"], 32)
        signature, proof = unbase64(member["signature"], 64), unbase64(member["proof"], 64)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadError("the rotation lacks a key or a signature, or one is malformed") from error
    if old != force or new == old:
        raise BadError("the rotation does not lead from the key in force to another one")
    parts = ["cert-ledger/key-rotation/v1", origin, str(line.seq), (line.prev or b"").hex()]
    message = "".join(f"{part}\n" for part in [*parts, member["previous"], member["public_key"]])
    if not signed(old, signature, message.encode()):
        raise BadError("the rotation is not signed by the key before it")
    if not signed(new, proof, message.encode()):
        raise BadError("the rotation is not signed by the new key")
    return new


class Lineage:
    """The keys of a ledger, each with the tree size from which on it is in force."""

    def __init__(self) -> None:
        self.origin = ""  # empty: no good genesis was seen
        self.keys: list[tuple[int, bytes]] = []

    def start(self, line: Line) -> None:
        origin, key = read_genesis(line)
        self.origin, self.keys = origin, [(0, key)]

    def pass_on(self, line: Line, record: dict[str, Any]) -> None:
        key = read_rotation(line, record, self.origin, self.at())
        self.keys.append((line.place.line, key))

    def at(self, size: int = MAX_INTEGER) -> bytes:
        return [key for start, key in self.keys if start <= size][-1]

    def all(self) -> list[bytes]:
        return [key for _, key in self.keys]


# ---- Section 5: tree and checkpoints -------------------------------------------------------------


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01", left, right)


class Tree:
    """The tree of RFC 6962 while it grows: the roots of its full subtrees, the largest first."""

    def __init__(self, size: int = 0, frontier: Iterable[bytes] = ()) -> None:
        self.size, self.frontier = size, list(frontier)

    def append(self, leaf: bytes) -> None:
        rest = self.size
        while rest & 1:
            leaf, rest = node(self.frontier.pop(), leaf), rest >> 1
        self.frontier.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self.frontier:
            return sha256()
        root = self.frontier[-1]
        for left in self.frontier[-2::-1]:
            root = node(left, root)
        return root


def check_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> None:
    """RFC 9162, 2.1.3.2: that a leaf is in a tree; BadError otherwise."""
    if not 0 <= index < size:
        raise BadError(f"index {index} is not in a tree of size {size}")
    at, last = index, size - 1
    for sibling in proof:
        if last == 0:
            raise BadError("the inclusion proof is too long")
        if at & 1 or at == last:
            leaf = node(sibling, leaf)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            leaf = node(leaf, sibling)
        at, last = at >> 1, last >> 1
    if last != 0 or leaf != root:
        raise BadError("the inclusion proof does not lead to the root")


def check_consistency(old: Note, new: Note, proof: list[bytes]) -> None:
    """RFC 9162, 2.1.4.2: that the old tree is the beginning of the new one; BadError otherwise."""
    if old.size > new.size or (old.size in (0, new.size) and proof):
        raise BadError("the sizes and the length of the proof do not belong together")
    if old.size in (0, new.size):
        if old.root != (sha256() if old.size == 0 else new.root):
            raise BadError("two roots for one size")
        return
    path = [old.root, *proof] if old.size & (old.size - 1) == 0 else list(proof)
    at, last = old.size - 1, new.size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    if not path:
        raise BadError("the consistency proof is too short")
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise BadError("the consistency proof is too long")
        if at & 1 or at == last:
            before, after = node(sibling, before), node(sibling, after)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            after = node(after, sibling)
        at, last = at >> 1, last >> 1
    if last != 0 or before != old.root or after != new.root:
        raise BadError("the consistency proof does not lead to both roots")


class Note(NamedTuple):
    """A checkpoint in a signed note; the signatures are not checked yet."""

    text: bytes
    origin: str
    size: int
    root: bytes
    signatures: list[tuple[str, bytes]]  # name; key id and signature


NOTE = re.compile("([^\n]+)\n(0|[1-9][0-9]{0,15})\n([^\n]+)\n\n((?:\u2014 [^\n ]+ [^\n ]+\n)+)")


def parse_note(data: bytes) -> Note:
    """C2SP signed-note and tlog-checkpoint, without extension lines; BadError otherwise."""
    if len(data) > MAX_NOTE_BYTES:
        raise BadError(f"the note has more than {MAX_NOTE_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        match = NOTE.fullmatch(text)
        if not match or re.search("[\x00-\x09\x0b-\x1f]", text):
            raise BadError("not a signed checkpoint")
        signatures = []
        for line in match[4].splitlines():
            name, code = line[2:].split(" ")
            signature = unbase64(code)
            if len(signature) < 5 or re.search(r"[\s+]", name):
                raise BadError("a malformed signature line")
            signatures.append((name, signature))
        return Note(
            text[: match.start(4) - 1].encode(),
            match[1],
            int(match[2]),
            unbase64(match[3], 32),
            signatures,
        )
    except ValueError as error:
        raise BadError("not a signed checkpoint: not UTF-8, or not canonical base64") from error


def check_signature(note: Note, origin: str, key: bytes) -> None:
    """That a key signed a note, and that no line in its name is bad; BadError otherwise."""
    if note.origin != origin:
        raise BadError(f"expected the origin {origin!r}, found {note.origin!r}")
    key_id = sha256(origin.encode(), b"\n\x01", key)[:4]
    found = False
    for name, signature in note.signatures:
        if name == origin and signature[:4] == key_id:
            found = True
            if not signed(key, signature[4:], note.text):
                raise BadError("a signature of the expected key does not verify")
    if not found:
        raise BadError("not signed by the expected key")


# ---- Section 6: verification ---------------------------------------------------------------------


class Finding(NamedTuple):
    """What was found; `state` is None for a remark."""

    state: str | None
    code: str
    message: str
    line: int | None
    segment: str | None
    offset: int | None


class Report:
    """What was found so far. Everything counts; a thousand findings are kept to be shown."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.first: dict[str, Finding] = {}
        self.faulty = array("q")  # the lines that have a finding, in order; 8 bytes each
        self.size = self.pruned = self.sealed = 0
        self.root: bytes | None = None
        self.anchored = False

    def add(self, state: str | None, code: str, message: str, place: Place | None = None) -> None:
        finding = Finding(state, code, message, *(place or (None, None, None)))
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        if state is not None and place is not None:
            insort(self.faulty, place.line)
            if state not in self.first or place.line < (self.first[state].line or 0):
                self.first[state] = finding

    def has(self, start: int, end: int) -> bool:
        """Whether one of these lines (both included) has a finding."""
        at = bisect_left(self.faulty, start)
        return at < len(self.faulty) and self.faulty[at] <= end

    def state(self) -> str:
        """6.6: the worst state that a finding gives."""
        worst = next((state for state in STATES if state in self.first), None)
        return worst or ("valid" if self.anchored else "unanchored")


class Mark(NamedTuple):
    """What is remembered of the tree of one size, for a checkpoint or a head of that size."""

    root: bytes
    leaf: bytes
    last: Place


class Chain:
    """6.2, and D and L of 6.4, for lines that come one by one. It holds two lines, never more."""

    def __init__(self, report: Report, sizes: set[int], deep: Deep | None) -> None:
        self.report, self.sizes, self.deep = report, sizes, deep
        if deep is not None:
            deep.report = report
        self.tree, self.lineage = Tree(), Lineage()
        self.seq: int | None = 0  # that is expected next; None: whatever the line states
        self.prev: bytes | None = None  # that is expected next; None: not to be checked
        self.before: Line | None = None
        self.doubt: tuple[Place, Place, bytes, str] | None = None  # a link that failed: L is open
        self.marks: dict[int, Mark] = {}
        self.starts: dict[int, Place] = {}  # where the line after a size begins
        self.plain, self.gaps = False, 0
        self.pruned_root = b""  # of the tree that was removed
        self.pruning = 0  # the line of the first record that says so

        self.end = Place(1, None, 0)  # where the next line would begin
        self.tail: tuple[int, bytes] | None = None  # section 5: a size and its last leaf
        self.roots: dict[int, bytes] = {}  # of checkpoints for which 6.3, 1 and 2 hold
        self.good = [0]  # the sizes of checkpoints for which all of 6.3 holds

    def take(self, line: Line) -> None:
        size = self.tree.size
        if size in self.sizes or self.before is None:
            self.starts[size] = line.place
        self.decide(line.prev)
        fault = self.fault(line)
        if fault is not None:
            self.blame(line, *fault)
        if line.seq is not None:
            self.read(line)
        self.tree.append(line.leaf)
        if size + 1 in self.sizes:
            self.marks[size + 1] = Mark(self.tree.root(), line.leaf, line.place)
        self.prev, self.before = line.leaf, line
        self.end = Place(size + 2, line.place.segment, line.end)
        if line.seq is not None or self.seq is not None:
            self.seq = (line.seq if line.seq is not None else self.seq or 0) + 1

    def fault(self, line: Line) -> tuple[str, str] | None:
        """The first of form, seq and link that fails."""
        if line.seq is None or line.prev is None:
            if line.complete and line.data is None:
                return "form", f"a line of more than {MAX_LINE_BYTES} bytes"
            return "form", "the line does not begin as a record does, or does not end"
        if self.plain and self.seq is not None and line.seq > self.seq:
            self.gaps += 1  # 6.7: lines of other runs were left out
        elif self.seq not in (None, line.seq):
            return "seq", f"expected _seq {self.seq}, found {line.seq}"
        elif self.prev not in (None, line.prev):
            return "link", f"expected _prev {(self.prev or b'').hex()}, found {line.prev.hex()}"
        return None

    def blame(self, line: Line, code: str, message: str) -> None:
        """D; and L, where the next line decides."""
        before = self.before
        if before is not None and self.is_damaged(before):
            return
        if code == "link" and before is not None:
            self.doubt = (before.place, line.place, line.leaf, message)
        else:
            self.report.add("invalid", code, message, line.place)

    def is_damaged(self, before: Line) -> bool:
        """D: whether a line is no canonical object; says so, if it is not reported yet."""
        if self.report.has(before.place.line, before.place.line):
            return False
        try:
            parse_canonical(before.data or b"")
        except BadError as error:
            self.report.add("invalid", "canonical", str(error), before.place)
            return True
        return False

    def decide(self, vouched: bytes | None) -> None:
        """L, with the leaf hash that the next line (or a verified tail) states for this one."""
        if self.doubt is not None:
            before, this, leaf, message = self.doubt
            if leaf == vouched:  # this line is as it was written: it was chained to another one
                this, message = before, "not the line to which the next one was chained"
            self.report.add("invalid", "link", message, this)
        self.doubt = None

    def read(self, line: Line) -> None:
        """Sections 3, 4 and 9: what a verifier of bytes has to know of a record."""
        report, place = self.report, line.place
        if place.line == 1 and (line.seq == 0 or not self.plain):
            try:
                self.lineage.start(line)
            except BadError as error:
                report.add("invalid", "genesis", str(error), place)
        control = is_control(line)
        if self.deep is None and not control:
            return
        try:
            record = parse_canonical(line.data or b"")
            if self.deep is not None:
                check_keys(record)
        except BadError as error:  # a finding of --deep; else D sees it where a link broke
            if self.deep is not None:
                report.add("invalid", "canonical", str(error), place)
            if control and place.line != 1 and LINEAGE.search(line.data or b""):
                report.add("invalid", "canonical", f"a control record: {error}", place)
            return
        kind = record.get("kind") if control else None
        if kind == "genesis" and line.seq != 0:
            report.add("invalid", "genesis", "a genesis that is not record 0", place)
        elif kind == "key" and self.lineage.origin and not self.gaps:
            try:
                self.lineage.pass_on(line, record)
            except BadError as error:
                report.add("invalid", "key-record", str(error), place)
        elif kind in ("erased", "pruned", "recovered"):
            report.add(None, kind, f"a record of kind {kind}", place)
            is_it = kind == "pruned" and self.is_of_removed(record)
            self.pruning = self.pruning or (place.line if is_it else 0)
        if self.deep is not None and not self.plain:
            self.deep.take(record, place)

    def is_of_removed(self, record: dict[str, Any]) -> bool:
        """Section 8: whether a `pruned` record speaks of just the part that is not there."""
        said, root = record.get("pruned"), base64.b64encode(self.pruned_root).decode()
        if not isinstance(said, dict) or type(said.get("size")) is not int:
            return False
        return bool((said["size"], said.get("root")) == (self.report.pruned, root))


class Deep:
    """--deep: canonical form (seen by the chain) and section 9. It only ever adds findings."""

    def __init__(self) -> None:
        self.report = Report()  # the one of the verification, once there is one
        self.kept_back = 0
        self.missing: dict[str, tuple[str, Place]] = {}  # until an `erased` record accounts for it
        self.folder = tempfile.TemporaryDirectory()  # SQLite may write beside what it reads
        self.rows: sqlite3.Connection | None = None

    def open(self, files: Folder) -> None:
        copy = Path(self.folder.name, "content.sqlite")
        for end in ("", "-wal"):
            if files.has(copy.name + end):
                with files.open(copy.name + end) as source, Path(f"{copy}{end}").open("wb") as to:
                    shutil.copyfileobj(source, to)
        if copy.exists():
            self.rows = sqlite3.connect(copy)

    def take(self, record: dict[str, Any], place: Place) -> None:
        erased = record.get("erased")
        if record.get("kind") == "erased" and isinstance(erased, dict):
            known = self.missing.get(str(erased.get("record_id")))
            if known and known[0] == erased.get("commitment"):
                del self.missing[str(erased["record_id"])]
        commitment = record.get("commitment")
        if "commitment" not in record:
            return
        if not re.fullmatch("sha256:[0-9a-f]{64}", str(commitment)):
            self.report.add("invalid", "commitment", "a malformed commitment", place)
        elif self.rows is None:
            self.kept_back += 1
        else:
            self.compare(str(record.get("id")), str(commitment), place)

    def compare(self, record_id: str, commitment: str, place: Place) -> None:
        query = (
            "SELECT salt, content FROM content WHERE record_id = ? AND typeof(salt) = 'blob'"
            " AND typeof(content) = 'blob' AND (SELECT type FROM sqlite_master"
            " WHERE name = 'content') = 'table'"
        )
        try:
            row = self.rows.execute(query, (record_id,)).fetchone() if self.rows else None
        except (sqlite3.Error, OverflowError) as error:
            message = f"content.sqlite cannot be read: {error}"
            self.report.add("invalid", "commitment", message, place)
            return
        if row is None:
            self.missing[record_id] = commitment, place
        elif len(row[0]) != 32 or f"sha256:{sha256(*row).hex()}" != commitment:
            message = "the content kept for this record is not what it committed to"
            self.report.add("invalid", "commitment", message, place)

    def finish(self) -> None:
        for _, place in self.missing.values():
            message = "the content of this record is gone, and no `erased` record says why"
            self.report.add("invalid", "commitment", message, place)
        if self.kept_back:
            message = f"the content of {self.kept_back} records was kept back; not checked"
            self.report.add(None, "content", message)

    def close(self) -> None:
        if self.rows is not None:
            self.rows.close()
        self.folder.cleanup()


def read_note(files: Folder, size: int, lineage: Lineage, name: str = "") -> Note:
    """6.3, steps 1 and 2, for a file in checkpoints/ or of another name; BadError otherwise."""
    name = name or f"checkpoints/{size:012d}.note"
    data = files.read(name, MAX_NOTE_BYTES)
    if data is None:
        raise BadError(f"the checkpoint {name} is missing")
    note = parse_note(data)
    if note.size == 0 or note.size != size:
        raise BadError(f"the checkpoint {name} states the size {note.size}")
    check_signature(note, lineage.origin, lineage.at(note.size))
    return note


class Kept(NamedTuple):
    """A line of the removed part that is still there, and how it is proven."""

    line: Line
    size: int  # of the checkpoint's tree
    proof: list[bytes]


def read_kept(kept: list[Any], size: int, lineage: Lineage) -> list[Kept]:
    """The kept lines of section 8, in order, the genesis first; BadError otherwise."""
    proven: list[Kept] = []
    last = -1
    for one in kept:
        seq, tree_size = one["seq"], one["size"]
        if len(one) != 4 or type(seq) is not int or type(tree_size) is not int:
            raise BadError("a kept line has not the members that it should have")
        line = one_line(one["line"].encode(), seq + 1)
        if line.seq != seq or not last < seq < tree_size <= size:
            raise BadError("a kept line is out of order, or not the record that it should be")
        last = seq
        if not proven:
            lineage.start(line)
        elif is_control(line) and LINEAGE.search(line.data or b""):
            record = parse_canonical(line.data or b"")
            if record.get("kind") == "genesis":
                raise BadError("a second genesis")
            if record.get("kind") == "key":
                lineage.pass_on(line, record)
        proven.append(Kept(line, tree_size, [unhex(step) for step in one["proof"]]))
    if not proven:
        raise BadError("pruned.json keeps no genesis")
    return proven


def read_pruned(files: Folder, data: bytes, chain: Chain, note: str = "") -> list[Kept]:
    """Section 8: let the chain go on after the part that was removed; BadError otherwise."""
    if len(data) > MAX_SIDE_BYTES:
        raise BadError(f"pruned.json has more than {MAX_SIDE_BYTES} bytes")
    value = parse_canonical(data)
    try:
        size, kept = value["size"], value["kept"]
        frontier, last_leaf = [unhex(one) for one in value["frontier"]], unhex(value["last_leaf"])
        if len(value) != 4 or type(size) is not int or size < 1 or not isinstance(kept, list):
            raise BadError("pruned.json has not the members that it should have")
        if len(frontier) != bin(size).count("1"):  # noqa: FURB161 (bit_count is of 3.10)
            raise BadError("the frontier has not one root for each full subtree")
        proven = read_kept(kept, size, chain.lineage)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadError(f"pruned.json is malformed: {error!r}"[:200]) from error
    sizes = {size, *(one.size for one in proven)}
    roots = {
        one: read_note(files, one, chain.lineage, note if one == size else "").root for one in sizes
    }
    for line, tree_size, proof in proven:
        check_inclusion(line.leaf, line.place.line - 1, tree_size, proof, roots[tree_size])
    chain.tree = Tree(size, frontier)
    chain.seq, chain.prev = size, last_leaf
    if chain.tree.root() != roots[size]:
        raise BadError(f"the frontier does not lead to the root of checkpoint {size}")
    return proven


def is_accounted_later(files: Folder, chain: Chain) -> bool:
    """Section 8: whether the record comes after the end of an export, and is beside it."""
    data, later = files.read("pruning.json", MAX_SIDE_BYTES), Chain(Report(), set(), None)
    if data is None:
        return False
    try:
        kept = read_pruned(files, data, later, "pruning.note")
        records = [
            parse_canonical(one.line.data or b"")
            for one in kept
            if one.line.place.line > chain.report.pruned and is_control(one.line)
        ]
    except BadError:
        return False
    own = chain.lineage.all()
    return later.lineage.all()[: len(own)] == own and any(
        one.get("kind") == "pruned" and chain.is_of_removed(one) for one in records
    )


def read_tail(files: Folder, roots: dict[int, bytes]) -> tuple[int, bytes] | None:
    """Section 5: the size and last leaf of tail.json, if a signed checkpoint bears them out."""
    try:
        value = json.loads((files.read("tail.json", MAX_SIDE_BYTES) or b"").decode("utf-8"))
        size, leaf = value["size"], unhex(value["last_leaf"])
        proof = [unhex(one) for one in value["proof"]]
        if type(size) is not int:
            return None
        check_inclusion(leaf, size - 1, size, proof, roots[size])
    except (BadError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return size, leaf


def listed(files: Folder, folder: str, suffix: str) -> list[tuple[int, str]]:
    """The files of a folder that are named by a number as section 1 says, in its order."""
    matches = [re.fullmatch(rf"([0-9]{{12,16}})\.{suffix}", one) for one in files.names(folder)]
    found = sorted((int(one[1]), one[0]) for one in matches if one)
    return [(number, name) for number, name in found if name == f"{number:012d}.{suffix}"]


def verify_ledger(files: Folder, key: bytes, head: Note | None, deep: Deep | None) -> Report:
    """Section 6 for a folder or a bundle."""
    report = Report()
    notes = listed(files, "checkpoints", "note")
    segments = [name for _, name in listed(files, "segments", "jsonl")]
    sizes = {size for size, _ in notes} | ({head.size} if head else set())
    chain = Chain(report, sizes, deep)

    # Section 8: what was removed.
    pruned = files.read("pruned.json", MAX_SIDE_BYTES)
    if pruned is not None:
        try:
            read_pruned(files, pruned, chain)
        except BadError as error:  # nothing that follows could be trusted
            report.add("invalid", "pruned", f"{error}; what follows was not checked", chain.end)
            return report
        report.pruned, chain.pruned_root = chain.tree.size, chain.tree.root()
        chain.good, chain.end = [report.pruned], Place(report.pruned + 1, None, 0)
        report.add(None, "pruned", f"records 0 to {report.pruned - 1} were removed (pruned.json)")
        left = [name for name in segments if int(name.split(".")[0]) < report.pruned]
        if left:  # a pruning that was cut off
            report.add(None, "pruned", f"not read: {len(left)} files of removed records")
            segments = segments[len(left) :]

    # 6.1 and 6.2: the start, and the lines.
    for name in segments:
        read_segment(files, name, chain, is_last=name == segments[-1])
    report.size, report.root = chain.tree.size, chain.tree.root()
    if report.size == 0:
        report.add("invalid", "genesis", "there is no record", chain.end)
    if not chain.lineage.origin:  # then no signature has a meaning, and line 1 is at fault already
        chain.decide(None)
        return report

    judge_checkpoints(files, chain, notes)
    check_sealed(chain)
    if deep is not None:
        deep.finish()
    check_pruning(files, chain)
    check_pinned(chain, key)
    if head is not None:
        judge_head(chain, key, head)
    return report


def read_segment(files: Folder, name: str, chain: Chain, *, is_last: bool) -> None:
    """6.2: the lines of one segment."""
    chain.end = Place(chain.tree.size + 1, name, 0)
    if name != f"{chain.seq:012d}.jsonl":
        message = f"expected a segment of the name {chain.seq:012d}.jsonl, found {name}"
        chain.report.add("invalid", "segment", message, chain.end)
    with files.open(f"segments/{name}") as source:
        for line in read_lines(source, name, chain.end.line):
            if line.complete or not is_last:
                chain.take(line)
            else:
                chain.report.add("torn", "torn", "the last line is incomplete", line.place)


def judge_checkpoints(files: Folder, chain: Chain, notes: list[tuple[int, str]]) -> None:
    """6.3: checkpoints by size. First steps 1 and 2, which the tail needs, and L the tail."""
    report = chain.report
    checked: list[tuple[int, bytes | None, str]] = []
    for size, _ in notes:
        try:
            checked.append((size, read_note(files, size, chain.lineage).root, ""))
        except BadError as error:
            checked.append((size, None, str(error)))
    chain.roots = {size: root for size, root, _ in checked if root is not None}
    chain.tail = read_tail(files, chain.roots)
    chain.decide(chain.tail[1] if chain.tail and chain.tail[0] == report.size else None)
    for size, root, fault in checked:
        mark = chain.marks.get(size)  # None in a part that was removed
        if size > report.size:
            missing(chain, f"there is a checkpoint of {size} records, and {report.size} are here")
        elif root is None:
            place = mark.last if mark else Place(max(size, 1), None, 0)
            report.add("invalid", "checkpoint", f"checkpoint {size}: {fault}", place)
        elif mark is None or root == mark.root:
            chain.good.append(size)
        else:
            good = max(chain.good)
            message = f"records {good} to {size - 1} are not those of checkpoint {size}"
            differ(chain, message, good, size)
    report.sealed = max(chain.good)


def missing(chain: Chain, message: str) -> None:
    """6.3, 3: lines are missing; by D, the last one is at fault if it is damaged."""
    if chain.before is None or not chain.is_damaged(chain.before):
        chain.report.add("invalid", "checkpoint", message, chain.end)


def check_pruning(files: Folder, chain: Chain) -> None:
    """Section 8: a signed record says that the first records were to go. Damage may hide it."""
    report, signed = chain.report, 0 < chain.pruning <= chain.report.sealed
    if not report.pruned or signed or "invalid" in report.first:
        return
    if not is_accounted_later(files, chain):
        message = "no signed `pruned` record says that the first records were to be removed"
        report.add("invalid", "pruned", message, Place(1, None, 0))


def check_pinned(chain: Chain, key: bytes) -> None:
    """6.3: the pinned key is of the lineage. A damaged rotation is worth more words than this."""
    if "invalid" not in chain.report.first and key not in chain.lineage.all():
        message = "signed by a key that is not pinned: the key you gave is none of this ledger's"
        chain.report.add("invalid", "key", message, chain.starts.get(0, Place(1, None, 0)))


def differ(chain: Chain, message: str, good: int, size: int) -> None:
    """R: the root of the first `size` records is not the signed one; which line is at fault?"""
    if chain.report.has(good + 1, size):
        return
    mark = chain.marks.get(size)
    place = chain.starts.get(good, Place(good + 1, None, 0))
    if chain.tail and mark and chain.tail[0] == size and chain.tail[1] != mark.leaf:
        place = mark.last
    chain.report.add("invalid", "root", message, place)


def is_signed(head: Note, keys: list[bytes]) -> bool:
    """6.5: whether one of these keys signed the head."""
    for key in keys:
        try:
            check_signature(head, head.origin, key)
        except BadError:
            continue
        return True
    return False


def unusable(report: Report, message: str) -> None:
    """6.5: a head that proves nothing; UseError, unless the ledger is invalid anyway."""
    if "invalid" not in report.first:
        raise UseError(message)
    report.add(None, "head", message)


def judge_head(chain: Chain, key: bytes, head: Note) -> None:
    """6.5: the head that was kept elsewhere."""
    report = chain.report
    if not is_signed(head, [key, *chain.lineage.all()]):
        unusable(report, "the head is signed by neither the pinned key nor another of the ledger's")
        return
    if head.origin != chain.lineage.origin:
        message = f"the head is of {head.origin!r}, and this ledger is {chain.lineage.origin!r}"
        place = chain.starts.get(0, Place(1, None, 0))
        report.add("invalid", "head", message, place)
        return
    root = chain.roots.get(head.size)
    if head.size <= report.pruned and root is None:
        unusable(report, "the head is of a removed part, where nothing is left to compare it with")
        return
    report.anchored = True
    if head.size > report.size:
        message = f"the head covers {head.size} records, and {report.size} are here"
        report.add("rolled-back", "head", message, chain.end)
    elif head.root != (chain.marks[head.size].root if head.size > report.pruned else root):
        good = max([size for size in chain.good if size < head.size], default=0)
        message = f"the first {head.size} records are not those of the head"
        place = chain.starts.get(good, Place(good + 1, None, 0))
        report.add("rolled-back", "head", message, place)


def check_sealed(chain: Chain) -> None:
    """6.6: records that no signature covers yet."""
    report = chain.report
    if report.size > report.sealed:
        message = f"records {report.sealed} to {report.size - 1} come after the last signature"
        place = chain.starts.get(report.sealed, Place(1, None, 0))
        report.add("unsealed", "unsealed", message, place)


def verify_plain(source: BinaryIO, key: bytes, head: Note | None, deep: Deep | None) -> Report:
    """6.7: a file of lines."""
    report = Report()
    chain = Chain(report, {head.size} if head else set(), deep)
    chain.plain, chain.seq = True, None
    bare = False  # whether the lines lack `_prev` and `_seq`
    for line in read_lines(source, None, 1):
        bare = bare if line.place.line > 1 else line.seq is None
        if not line.complete:
            report.add("torn", "torn", "the last line is incomplete", line.place)
        elif not bare:
            chain.take(line)
        else:
            report.size += 1
            if line.seq is not None:
                message = f"no _prev and _seq, which line {line.place.line} has"
                report.add("invalid", "form", message, Place(1, None, 0))
            try:
                parse_canonical(line.data or b"")
            except BadError as error:
                report.add("invalid", "canonical", str(error), line.place)
    chain.decide(None)
    report.size += chain.tree.size
    if report.size == 0:
        report.add("invalid", "form", "there is no record", Place(1, None, 0))
    if chain.gaps:
        report.add(None, "gaps", f"lines of other runs were left out in {chain.gaps} places")
    elif chain.lineage.origin:
        report.root = chain.tree.root()
    if head is not None and report.root is not None:
        check_pinned(chain, key)
        judge_head(chain, key, head)
        if report.anchored and "rolled-back" not in report.first:
            report.sealed = head.size
    elif head is not None and "invalid" not in report.first:
        raise UseError("the head cannot be compared: the file has gaps or no beginning")
    check_sealed(chain)
    return report


# ---- Section 10: proofs --------------------------------------------------------------------------


def split_proof(text: bytes, first: str) -> tuple[list[str], list[bytes], Note]:
    """The lines before the hashes (as many as `first` has), the hashes, and the checkpoint."""
    body, _, note = text.partition(b"\n\n")
    try:
        lines = body.decode("ascii").split("\n")
        match = re.fullmatch(first, "\n".join(lines[: first.count("\n") + 1]))
        hashes = [unbase64(one, 32) for one in lines[first.count("\n") + 1 :]]
    except ValueError as error:
        raise BadError("a malformed proof: not ASCII, or not canonical base64") from error
    if not match or len(hashes) > 63:
        raise BadError("a malformed proof")
    return list(match.groups()), hashes, parse_note(note)


def verify_proof(text: bytes, key: bytes) -> bytes:
    """A C2SP tlog-proof whose `extra` is a record's line; gives the line, or raises BadError."""
    pattern = "c2sp\\.org/tlog-proof@v1\nextra ([A-Za-z0-9+/=]+)\nindex (0|[1-9][0-9]{0,15})"
    (extra, index), hashes, note = split_proof(text, pattern)
    try:
        data = unbase64(extra)
    except ValueError as error:
        raise BadError("a malformed proof: not canonical base64") from error
    line = one_line(data, 1)
    check_keys(parse_canonical(data))
    if line.seq != int(index):
        raise BadError(f"the proof is for index {index}, and the record states {line.seq}")
    check_signature(note, note.origin, key)
    check_inclusion(line.leaf, int(index), note.size, hashes, note.root)
    return data


def verify_consistency(text: bytes, old: Note, key: bytes) -> tuple[Note, bool]:
    """That a checkpoint continues an old one; gives it, and whether the key signed the old."""
    (size,), hashes, new = split_proof(text, "old (0|[1-9][0-9]{0,15})")
    check_signature(new, new.origin, key)
    if int(size) != old.size or new.origin != old.origin:
        raise BadError("the proof is for another checkpoint than the old one")
    check_consistency(old, new, hashes)
    try:
        check_signature(old, old.origin, key)
    except BadError:
        return new, False
    return new, True


# ---- The command line ----------------------------------------------------------------------------


def say(*lines: str, error: bool = False) -> None:
    (sys.stderr if error else sys.stdout).write("".join(f"{line}\n" for line in lines))


def load(path: str, limit_bytes: int) -> bytes:
    with Path(path).open("rb") as source:
        data = source.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise UseError(f"{path} has more than {limit_bytes} bytes")
    return data


def load_key(text: str) -> bytes:
    """The 32 bytes of the pinned key."""
    data = text.encode() if text.startswith("ed25519:") else load(text, MAX_NOTE_BYTES)
    try:
        if data.startswith(b"ed25519:"):
            return unbase64(data.decode().strip()[len("ed25519:") :], 32)
        key = load_pem_public_key(data)
        if isinstance(key, Ed25519PublicKey):
            return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise UseError("--key: expected an Ed25519 public key, as PEM or as ed25519:<base64>")


def load_note(path: str, option: str) -> Note:
    try:
        note = parse_note(load(path, MAX_NOTE_BYTES))
    except BadError as error:
        raise UseError(f"{option}: {error}") from error
    if note.size == 0 and option == "--head":
        raise UseError(f"{option}: a head of size 0 pins nothing")
    return note


def verify(path: Path, key: bytes, head: Note | None, deep: Deep | None) -> Report:
    """What LEDGER is, and what comes of it."""
    if path.is_dir():
        files = Folder(path)
    else:
        with path.open("rb") as source:
            is_zip = source.read(2) == b"PK"
            source.seek(0)
            if not is_zip:
                return verify_plain(source, key, head, deep)
        files = Bundle(path)
    if deep is not None:
        deep.open(files)
    return verify_ledger(files, key, head, deep)


def as_json(report: Report, key: bytes) -> str:
    state = report.state()
    first = report.first.get(state)
    found = sorted(report.findings, key=lambda one: (one.line is None, one.line or 0))
    value = {
        "state": state,
        "line": first.line if first else None,
        "segment": first.segment if first else None,
        "offset": first.offset if first else None,
        "records": report.size,
        "pruned": report.pruned,
        "sealed": report.sealed,
        "root": base64.b64encode(report.root).decode() if report.root else None,
        "key": f"ed25519:{base64.b64encode(key).decode()}",
        "findings": [one._asdict() for one in found],
    }
    return json.dumps(value)


MEANING = {
    "valid": "every byte follows from the signed checkpoints and from the head that you gave",
    "unanchored": "every byte follows from the signed checkpoints",
    "unsealed": "all is well as far as it is signed, but the last records are not signed yet",
    "torn": "the last line is incomplete, as after a crash",
    "rolled-back": "this is older than the head that you gave, or another history",
    "invalid": "this is not what was signed and written",
}


def explain(report: Report) -> list[str]:
    """A few plain sentences."""
    state = report.state()
    lines = [f"{state}: {MEANING[state]} ({report.size} records, {report.sealed} of them signed)."]
    found = sorted(report.findings, key=lambda one: (one.state is None, one.line or 0))
    first = report.first.get(state)
    for one in ([first] if first else []) + [one for one in found if one is not first][:19]:
        where = "" if one.line is None else f"line {one.line}, byte {one.offset}"
        where += f" of {one.segment}" if one.segment else ""
        lines.append(f"  {one.state or 'remark'}: {where}{': ' if where else ''}{one.message}")
    if not report.anchored:
        lines.append(
            "Nothing outside the ledger pins its head: an older copy of it would look the same."
        )
    return lines


def run_ledger(args: argparse.Namespace, key: bytes) -> int:
    head = load_note(args.head, "--head") if args.head else None
    deep = Deep() if args.deep else None
    try:
        report = verify(Path(args.ledger), key, head, deep)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise UseError(f"the bundle is damaged, or no plain zip: {error}") from error
    finally:
        if deep is not None:
            deep.close()
    state = report.state()
    say(*([as_json(report, key)] if args.json else explain(report)))
    if state == "unsealed":
        say("warning: the last records are not signed", error=True)
    if args.require_head and not report.anchored:
        say("error: --require-head, and no head was compared", error=True)
        return 5
    bad = state in ("torn", "rolled-back", "invalid") or (state == "unsealed" and args.strict)
    return 5 if bad else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check a cert ledger without cert.")
    parser.add_argument("ledger", nargs="?", help="a ledger's folder, a bundle, a file of lines")
    parser.add_argument("--key", required=True, help="PEM file, or ed25519:<base64>")
    parser.add_argument("--head", help="a signed checkpoint that was kept elsewhere")
    parser.add_argument("--require-head", action="store_true", help="fail if no head is given")
    parser.add_argument("--strict", action="store_true", help="fail if records are unsigned")
    parser.add_argument("--deep", action="store_true", help="canonical form and commitments, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--proof", help="a record's inclusion proof; prints the record")
    parser.add_argument("--consistency", help="a proof that --old is a beginning of a newer one")
    parser.add_argument("--old", help="the older checkpoint")
    args = parser.parse_args(arguments)
    if [args.ledger, args.proof, args.consistency].count(None) != 2:
        parser.error("expected one of LEDGER, --proof and --consistency")
    if (args.consistency is None) != (args.old is None):
        parser.error("--consistency and --old go together")
    try:
        key = load_key(args.key)
        if args.ledger is not None:
            return run_ledger(args, key)
        if args.proof is not None:
            line = verify_proof(load(args.proof, 2 * MAX_LINE_BYTES), key)
            sys.stdout.buffer.write(line + b"\n")
            return 0
        old = load_note(args.old, "--old")
        new, own = verify_consistency(load(args.consistency, MAX_NOTE_BYTES * 2), old, key)
        say(f"consistent: the first {old.size} of {new.size} records are those of the old one.")
        if not own:
            say("warning: the key did not sign the old checkpoint itself", error=True)
    except BadError as error:
        say(f"invalid: {error}", error=True)
        return 5
    except (UseError, OSError) as error:
        say(f"error: {error}", error=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
