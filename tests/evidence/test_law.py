from __future__ import annotations

import re

from cert.evidence.law import describe_law, load_law_mapping

CLAIMED = {"9(8)", "11", "12", "13(3)(b)(ii)", "15(3)", "19(1)", "26(6)", "72"}


def test_the_mapping_names_the_articles_of_the_design() -> None:
    mapping = load_law_mapping()
    found = {re.match(r"Art\. (\S+)", one.article)[1] for one in mapping.articles}  # type: ignore[index]
    assert found == CLAIMED
    assert [one.since for one in mapping.applies] == ["2027-12-02", "2028-08-02"]


def test_its_words_carry_the_date_and_claim_no_compliance() -> None:
    mapping = load_law_mapping()
    words = " ".join(describe_law(mapping).split())
    assert mapping.mapped_on in words
    assert "not in the Official Journal" in words
    assert "may support" in words
    assert not re.search(r"complian|complies|certif", words, re.IGNORECASE)
