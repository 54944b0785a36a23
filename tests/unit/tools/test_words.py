"""Each rule of the lint matches its bad example and not its good one; code is not read, in any version of Python."""

from __future__ import annotations

import pytest

from tools.words import Rule, find_matches, main, read_rules

RULES = read_rules()
RULE = (Rule(pattern=r"\bin force\b", instead="`applied`", bad="", good=""),)


def lines(path: str, text: str) -> list[int]:
    """Return the lines on which the rule about "in force" matches."""
    return [match.line for match in find_matches(path, text, RULE)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.bad)
def test_each_rule_matches_its_bad_example_and_not_its_good_one(rule: Rule) -> None:
    assert rule.expression.search(rule.bad)
    assert not rule.expression.search(rule.good)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.bad)
def test_no_good_example_breaks_another_rule(rule: Rule) -> None:
    assert [other.bad for other in RULES if other.expression.search(rule.good)] == []


@pytest.mark.parametrize(
    "text",
    [
        "There is no champion.",
        "There are no late events.",
        "The plan is no longer applied.",
        "It takes up to 3 s.",
        "Hops are whole seconds.",
        "See how it is compared.",
        "The moments of generating functions.",
    ],
)
def test_plain_english_is_not_an_alarm(text: str) -> None:
    assert list(find_matches("page.md", text, RULES)) == []


@pytest.mark.parametrize(
    "source",
    [
        '"""The plan in force."""\n',
        'X = "the plan in force"\n',
        'X = f"the plan in force of {x!r} is old"\n',
        'X = f"of {x:{width}} the plan in force"\n',
        "X = 1  # the plan in force\n",
        'log.info("plan_in_force", view=view)\n',
    ],
    ids=["docstring", "string", "f-string", "f-string with a nested format", "comment", "log event"],
)
def test_a_module_is_read(source: str) -> None:
    assert lines("a.py", source) == [1]


def test_the_line_of_a_match_is_reported() -> None:
    assert lines("a.py", '"""A plan.\n\nIt is\nin force.\n"""\n\n# One.\n# The plan in\n# force.\n') == [8, 4]
    assert lines("page.md", "# Plan\n\nA plan is in\nforce.\n") == [3]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", "in_force = plan.in_force  # the applied plan\n"),
        ("a.py", 'X = f"the plan {in_force!r}, {plan["x"] if in_force else 0}"\n'.replace('"x"', "'x'")),
        ("a.py", 'X = f"in {a} force"\n'),
        ("a.py", '"""Return ``in force`` and `in force`."""\n'),
        ("a.py", '"""Return it.\n\n    >>> plan("in force")\n    1\n"""\n'),
        ("page.md", "Read `in force` and ``in force``, or `plan in\nforce`.\n"),
        ("page.md", "Read:\n\n```console\n$ echo in force\n```\n\nDone.\n"),
        ("page.md", "- Read:\n\n  ````text\n  ```\n  in force\n  ```\n  ````\n"),
        ("page.md", "[a plan](plans.md#in force)\n"),
    ],
    ids=["names", "values", "around a value", "code", "doctest", "inline code", "block", "indented block", "link"],
)
def test_code_is_not_read(path: str, text: str) -> None:
    assert lines(path, text) == []


def test_text_after_a_block_of_code_is_read() -> None:
    assert lines("page.md", "```sh\nmake\n```\nThe plan is in force. Read `a`.\n\n```\nx\n```\n") == [4]


def test_the_command_prints_each_match_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.words.read_rules", lambda: (Rule(r"\bglossary\b", "`words`", "", ""),))
    with pytest.raises(SystemExit, match=r"^\d+ places\. Fix: "):
        main(["docs/glossary.md"])
    assert capsys.readouterr().out.startswith("docs/glossary.md:1: 'Glossary'; write `words`\n")
    monkeypatch.setattr("tools.words.read_rules", lambda: ())
    main(["docs/glossary.md"])
