"""README.txt of a bundle: what an auditor has in hand, what it shows and what not, how to check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cert.evidence.law import describe_law, load_law_mapping

if TYPE_CHECKING:
    from cert.ledger.findings import Report
    from cert.ledger.keys import PublicKey

_README: Final = """\
EVIDENCE BUNDLE
ledger {origin}

1. WHAT THIS IS

A ledger of measurements of a language model, with what it takes to check it. Each record holds one
prompt's measurements, the thresholds that they were held against, the outcome, and what is needed
to compute it again. Records are chained by SHA-256 and signed over in checkpoints (Ed25519).

    ledger/               the records, the signed checkpoints, time stamps if there are any
    head.note             the newest checkpoint{no_head}
    public-key.pem        the public key that signs the ledger now (read section 3 first)
    policies/             every set of thresholds that the ledger registers
    record-format.md      the format, complete enough to write a verifier of your own
    record.schema.json    JSON Schema of the records
    cert_verify.py        a verifier of one file, independent of the program that wrote the ledger

{content}

When this was packed, the ledger was

    state       {state}
    records     {records}{pruned}
    signed      the first {sealed}
    root        {root}

2. WHAT IT SHOWS, AND WHAT NOT

It shows that the records are unchanged since the checkpoints over them were signed, and that none
was inserted, removed or put in another place. That is all. It does not show that the records are
true, nor that they are complete: what was never recorded is not here. It does not show when they
were written, except where a time stamp of an authority that you trust says so. It does not show
that the measured system meets any requirement, legal or technical.

By itself it shows no more than that it follows from its own newest checkpoint: an older copy of the
ledger would look the same. That changes with a head that was kept elsewhere (section 4, --head).

{law}

None of these asks for hashes or signatures, and the signature of the ledger's key does not replace
that of the responsible person (section 5).

3. THE KEY

A key that came with the evidence proves nothing: whoever changed the one could change the other.
Get the key, or its fingerprint, from its owner by another way, and compare. The fingerprint
(SHA-256 of the 32 bytes of the key) of public-key.pem should be

    {fingerprint}

    openssl pkey -pubin -in public-key.pem -outform DER | tail -c 32 | sha256sum

The key as one word is

    {key}

4. HOW TO CHECK IT

KEY.pem stands for the key that you trust, and HEAD.note for a head (`cert ledger head`) that you
received earlier; leave out --head if there is none. head.note in here is no such head.

Without installing anything of ours: Python 3.9 or later and its package `cryptography`.

    python3 -m zipfile -e BUNDLE.zip unpacked
    python3 unpacked/cert_verify.py BUNDLE.zip --key KEY.pem --head HEAD.note --deep

A verifier that came with the evidence is to be trusted no more than the key. Take it from where
you trust it, or compare its digest with one from there; this one's SHA-256 is

    {verifier}

With the program itself:

    pip install cert-framework-core
    cert verify BUNDLE.zip --key KEY.pem --head HEAD.note

Both say `valid` where everything holds and a head was given, `unanchored` without a head,
`unsealed` where the last records are not signed yet, and otherwise (exit code 5) which line is the
first at fault.

5. SIGNATURE OF THE RESPONSIBLE PERSON (Annex IV(2)(g))

    SHA-256 of this bundle  ________________________________________________________________

    Name and function       ________________________________________________________________

    Date                    ____________________  Signature  _______________________________
"""

_CONTENT: Final = {
    True: "Texts that records only commit to are in ledger/content.sqlite. Handle them with care.",
    False: "Texts that records only commit to, if there are any, were kept back.",
}


def build_readme(report: Report, key: PublicKey, *, verifier_sha256: str, has_content: bool) -> str:
    """Write it; the same ledger gives the same text.

    Args:
        report: Of the ledger, verified with its own key.
        key: In force at its end.
        verifier_sha256: Of the verifier that is packed, in hex.
        has_content: Whether the texts behind commitments are packed.
    """
    return _README.format(
        origin=report.origin,
        law=describe_law(load_law_mapping()),
        no_head="" if report.sealed else " (there is none yet)",
        content=_CONTENT[has_content],
        state=_words(report),
        records=report.records,
        pruned=f", after {report.pruned} that were removed" if report.pruned else "",
        sealed=report.sealed,
        root=report.root,
        fingerprint=key.fingerprint,
        key=key.text,
        verifier=verifier_sha256,
    )


def _words(report: Report) -> str:
    first = report.first
    if first is None:
        return f"{report.state} (checked with its own key and without a head)"
    return f"{report.state}: line {first.line}: {first.message}"
