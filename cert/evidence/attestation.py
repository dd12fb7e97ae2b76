"""What a run found, as an attestation that other tools read.

An in-toto Statement v1 with the predicate `test-result/v0.1`, in a DSSE v1.0 envelope:

    subject         the model, and the ledger's checkpoint
    configuration   the policy, and the inputs
    result          FAILED if a prompt failed, could not be measured or was refused;
                    else WARNED if one was inconclusive; else PASSED
    passedTests, warnedTests, failedTests
                    prompt ids, the first 10,000 of each

How many there were in truth stands in `certRun`, an extension field, which also names the run. An
attestation is a summary by whoever holds the key; the evidence is the ledger that it names. Ids
that were derived from their prompts can be tried against guesses.

Sources: in-toto/attestation (spec/v1, spec/predicates/test-result.md), secure-systems-lab/dsse.
"""

from __future__ import annotations

import base64
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from cert.assessment.verdict import Verdict
from cert.evidence.coordination_records import COORDINATION_KINDS
from cert.evidence.run_record import RunCounts
from cert.ledger.canonical import canonical_bytes
from cert.ledger.errors import LedgerError, ProofError
from cert.ledger.keys import PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://in-toto.io/attestation/test-result/v0.1"
MAX_LISTED: Final = 10_000
MAX_SIGNATURES: Final = 64
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something that a digest names.

    Attributes:
        name: For people.
        digest: `sha256:` and 64 hex digits.
    """

    name: str
    digest: str

    def __post_init__(self) -> None:
        """Refuse what is no digest."""
        if _DIGEST.fullmatch(self.digest) is None:
            raise ValueError(f"{self.digest[:80]!r} is no sha256: digest")


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What one run did, and how its prompts came out.

    Attributes:
        run_id: Of the run.
        model: By the digest of its manifest.
        policy: Its name is `id@version`.
        inputs: Those with a digest; what came from stdin has none.
        passed: Ids of prompts with the verdict pass; at most `MAX_LISTED`, as all three.
        warned: Ids of prompts with the verdict inconclusive.
        failed: Ids of prompts with the verdict fail, and of those that could not be measured.
        counts: Of all records, listed or not.
    """

    run_id: str
    model: Artifact
    policy: Artifact
    inputs: tuple[Artifact, ...]
    passed: tuple[str, ...]
    warned: tuple[str, ...]
    failed: tuple[str, ...]
    counts: RunCounts

    @property
    def result(self) -> str:
        """`FAILED`, `WARNED` or `PASSED`; see the module."""
        counts = self.counts
        if counts.failed or counts.errors or counts.refused:
            return "FAILED"
        return "WARNED" if counts.inconclusive else "PASSED"


@dataclass(slots=True)
class _Folding:
    """A run's records so far; `stated` are the counts of its `end` record."""

    run_ids: set[str] = field(default_factory=set)
    models: set[Artifact] = field(default_factory=set)
    policies: set[Artifact] = field(default_factory=set)
    inputs: dict[Artifact, None] = field(default_factory=dict)  # a set that keeps its order
    passed: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    stated: Mapping[str, object] | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one record; those of kinds that no attestation speaks of are left out."""
        if record["kind"] in COORDINATION_KINDS:
            raise LedgerError(
                "the run compares arrangements of agents: no single model was tested",
                hint="hand on the ledger: `cert bundle`; `cert verify` derives the result again",
            )
        self.run_ids.add(record["run_id"])
        match record["kind"]:
            case "run":
                self._add_run(record["run"])
            case "analysis":
                assessment = record["assessment"]
                self.models.add(_model(record["provenance"]["model"]))
                self.policies.add(_policy(assessment["policy"]))
                count, listed = {
                    Verdict.PASS: ("passed", self.passed),
                    Verdict.INCONCLUSIVE: ("inconclusive", self.warned),
                    Verdict.FAIL: ("failed", self.failed),
                }[assessment["verdict"]]
                self._count(count, listed, record["prompt"]["id"])
            case "error":
                if record["provenance"] is not None:
                    self.models.add(_model(record["provenance"]["model"]))
                self._count("errors", self.failed, record["prompt"]["id"])
            case "refused":
                self._count("refused")

    def _add_run(self, run: Mapping[str, Any]) -> None:
        for one in run.get("inputs", ()):
            if one["sha256"] is not None:
                self.inputs[Artifact(one["source"], f"sha256:{one['sha256']}")] = None
        if "policy" in run:
            self.policies.add(_policy(run["policy"]))
        if run.get("model") is not None:
            self.models.add(_model(run["model"]))
        if run["phase"] == "end":
            self.stated = run["counts"]

    def _count(self, count: str, listed: list[str] | None = None, prompt_id: object = "") -> None:
        self.counted[count] = self.counted.get(count, 0) + 1
        if listed is not None and len(listed) < MAX_LISTED:
            listed.append(str(prompt_id))


def collect_test_result(records: Iterable[Mapping[str, Any]]) -> RunOutcome:
    """Fold the records of one run into what `build_test_result` takes.

    Args:
        records: All that bear the run's id, in the ledger's order, of whatever kind.

    Raises:
        LedgerError: They are of several runs or none, and so for models and policies; the run has
            not ended, or counted otherwise; no prompt came to the model; it compares arrangements
            of agents; or a record is not as its schema says.
    """
    folding = _Folding()
    for record in records:
        try:
            folding.add(record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LedgerError(
                f"a record is not as its schema says: {error!r}",
                hint="`cert verify --deep` finds the line",
            ) from error
    run_id: str = _only("run", folding.run_ids)
    model: Artifact = _only("model", folding.models)
    policy: Artifact = _only("policy", folding.policies)
    counts = RunCounts(**folding.counted)
    if folding.stated is None:
        raise LedgerError("the run has not ended", hint="let it go on to its end, then attest")
    if folding.stated != asdict(counts):
        raise LedgerError(f"the run counted {folding.stated}, its records are {asdict(counts)}")
    if not counts.passed + counts.failed + counts.inconclusive + counts.errors:
        raise LedgerError("no prompt came to the model: there is nothing to attest")
    return RunOutcome(
        run_id,
        model,
        policy,
        tuple(folding.inputs),
        tuple(folding.passed),
        tuple(folding.warned),
        tuple(folding.failed),
        counts,
    )


def build_test_result(
    outcome: RunOutcome, *, origin: str, tree_size: int, root: bytes
) -> dict[str, object]:
    """State how a run came out.

    Args:
        outcome: The run, all of its records within the tree.
        origin: Name of the ledger.
        tree_size: Of a checkpoint.
        root: Of that checkpoint; these 32 bytes are the subject's sha256, as they are: RFC 6962's
            tree hash of the ledger.

    Returns:
        The Statement, of JSON types; `canonical_bytes` of it is what is signed.

    Raises:
        ValueError: The root has another length.
    """
    if len(root) != _HASH_BYTES:
        raise ValueError(f"a root has {_HASH_BYTES} bytes, not {len(root)}")
    ledger = _descriptor(Artifact(origin, f"sha256:{root.hex()}"))
    counts = outcome.counts
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            _descriptor(outcome.model),
            ledger | {"annotations": {"treeSize": tree_size}},
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": outcome.result,
            "configuration": [_descriptor(one) for one in (outcome.policy, *outcome.inputs)],
            "passedTests": list(outcome.passed),
            "warnedTests": list(outcome.warned),
            "failedTests": list(outcome.failed),
            "certRun": {
                "id": outcome.run_id,
                "passed": counts.passed,
                "inconclusive": counts.inconclusive,
                "failed": counts.failed,
                "errors": counts.errors,
                "refused": counts.refused,
            },
        },
    }


def sign_dsse(
    payload: bytes, payload_type: str, sign: Callable[[bytes], bytes], keyid: str
) -> bytes:
    """Put a payload into a signed envelope.

    Args:
        payload: Any bytes.
        payload_type: How to read them.
        sign: Makes a signature over the bytes that it is given.
        keyid: A hint for whoever has several keys; not signed.

    Returns:
        The envelope, canonical JSON without a newline.
    """
    signature = sign(_pre_authentication(payload_type, payload))
    return canonical_bytes(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
        }
    )


def verify_dsse(envelope: bytes, public_key: bytes, *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Check that a key signed an envelope's payload.

    One good signature of this key is enough; others and key ids are not looked at. Both alphabets
    of base64 are read, as DSSE demands.

    Args:
        envelope: JSON.
        public_key: 32 bytes, Ed25519.
        payload_type: The only one that is accepted.

    Returns:
        The payload.

    Raises:
        ProofError: It is no envelope, of another payload type, or not signed by this key.
        SigningKeyError: The key has another length.
    """
    key = PublicKey(public_key)
    try:
        found = orjson.loads(envelope)
        payload = _from_base64(found["payload"])
        stated = found["payloadType"]
        signatures = [_from_base64(one["sig"]) for one in found["signatures"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProofError(f"no DSSE envelope: {error!r}") from error
    if stated != payload_type:
        raise ProofError(f"the payload is {str(stated)[:80]!r}, not {payload_type!r}")
    if len(signatures) > MAX_SIGNATURES:
        raise ProofError(f"an envelope of more than {MAX_SIGNATURES} signatures")
    signed = _pre_authentication(payload_type, payload)
    for signature in signatures:
        try:
            key.verify(signature, signed)
        except ProofError:
            continue
        return payload
    raise ProofError(f"the envelope has no signature of {key.text}")


def _pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """PAE of the DSSE protocol, 1.0: lengths in bytes keep type and payload apart."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _from_base64(text: str) -> bytes:
    standard = text.replace("-", "+").replace("_", "/")
    decoded = base64.b64decode(standard, validate=True)
    if base64.b64encode(decoded).decode() != standard:
        raise ValueError("base64 in another than its canonical form")
    return decoded


def _descriptor(artifact: Artifact) -> dict[str, object]:
    return {"name": artifact.name, "digest": {"sha256": artifact.digest.removeprefix("sha256:")}}


def _model(model: Mapping[str, Any]) -> Artifact:
    return Artifact(model["name"], model["digest"])


def _policy(policy: Mapping[str, Any]) -> Artifact:
    return Artifact(f"{policy['id']}@{policy['version']}", policy["digest"])


def _only(what: str, found: set[Any]) -> Any:  # noqa: ANN401 - whatever the set holds
    if len(found) != 1:
        raise LedgerError(f"an attestation is of one {what}, and there are {len(found)}")
    return next(iter(found))
