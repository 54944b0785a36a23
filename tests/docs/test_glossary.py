"""The glossary has at most 70 words, each once and with one sentence."""

from __future__ import annotations

import re

from tests.docs.pages import page

ROWS = re.findall(r"^\| \*\*([^*]+)\*\* \| (.+) \|$", page("glossary.md"), re.MULTILINE)


def test_the_glossary_is_short_and_names_each_word_once() -> None:
    words = [word for word, _ in ROWS]
    assert 50 <= len(words) <= 70
    assert sorted(set(words)) == sorted(words)


def test_each_word_has_a_meaning_that_is_a_sentence() -> None:
    assert [word for word, meaning in ROWS if not meaning.endswith(".") or not meaning[0].isupper()] == []
