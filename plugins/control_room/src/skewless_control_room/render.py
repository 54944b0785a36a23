"""Templates of pages, and how they show values: every value is text, in its own direction, of bounded length."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from urllib.parse import quote, urlencode

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from skewless.contract.readable import duration_text, share_text, time_text
from skewless.contract.render import shorten
from skewless.infra.platform.host.plugins import load_plugins
from skewless_control_room import plots
from skewless_control_room.evaluation_plots import evaluation_plots
from skewless_control_room.fact_texts import facts_text, guardrail_texts
from skewless_control_room.page import Unknown

_MOST_CHARS = 300
_EXACT = 2**53  # below it, a float has all digits of a whole number, such as microseconds
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@cache
def templates() -> Environment:
    """Return the environment of all templates of the pages; they cannot load others."""
    folder = files(__package__).joinpath("templates")
    sources = {item.name: item.read_text(encoding="utf-8") for item in folder.iterdir() if item.name.endswith(".html")}
    # A registered page cannot replace one of the room's templates.
    sources = {page.template: page.source for page in load_plugins("skewless.pages").values()} | sources
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "age": show_age,
        "count": show_count,
        "facts": facts_text,
        "isolate": isolate,
        "lines": show_lines,
        "time": show_time,
        "number": show_number,
        "share": share_text,
        "url": to_url,
    }
    environment.tests["unknown"] = lambda part: isinstance(part, Unknown)
    named = ("plot_bars", "plot_histogram", "plot_lines", "plot_timeline")
    environment.globals |= {name: getattr(plots, name) for name in named}
    environment.globals |= {
        "evaluation_plots": evaluation_plots,
        "guardrail_texts": guardrail_texts,
        "to_url": to_url,
        "is_saved": False,
    }
    return environment


def isolate(value: object) -> Markup:
    r"""Return a value from outside as HTML: escaped, shortened, control characters visible, in its own direction.

    >>> isolate("<b>\u202e")
    Markup('<bdi>&lt;b&gt;\\u202e</bdi>')
    """
    text = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), shorten(str(value), _MOST_CHARS))
    return Markup("<bdi>{}</bdi>").format(text)


def show_lines(text: str) -> Markup:
    r"""Return the lines of a text from outside, each isolated.

    >>> show_lines("a\n<b>")
    Markup('<bdi>a</bdi>\n<bdi>&lt;b&gt;</bdi>')
    """
    return Markup("\n").join(isolate(line) for line in text.splitlines())


def show_number(value: float | str | None) -> Markup:
    """Return a number, short, with all its digits in the tooltip; a missing one as "null"; whole numbers in full.

    >>> show_number(0.1 + 0.2), show_number(3), show_number(None)
    (Markup('<data value="0.30000000000000004" title="0.30000000000000004">0.3</data>'), Markup('3'), Markup('null'))
    >>> show_number(1_796_017_173_469_000.0)
    Markup('<data value="1796017173469000.0" title="1796017173469000.0">1,796,017,173,469,000</data>')
    """
    if value is None:
        return Markup("null")
    if isinstance(value, bool | str):
        return isolate(value)
    if isinstance(value, int):
        return Markup(f"{value:,}")  # noqa: S704 - digits
    exact, short = repr(value), f"{value:,.0f}" if value.is_integer() and abs(value) < _EXACT else f"{value:.6g}"
    return Markup('<data value="{0}" title="{0}">{1}</data>').format(exact, short) if exact != short else escape(exact)


def show_count(value: int | None) -> str:
    """Return a whole number with separators; None is "?".

    >>> show_count(1234), show_count(None)
    ('1,234', '?')
    """
    return "?" if value is None else f"{value:,}"


def show_time(value: int | str | None) -> Markup:
    """Return a time in UTC; None is "never".

    Args:
        value: microseconds since 1970, or ISO 8601.
    """
    text = time_text(value)
    if text is None:
        return Markup("never")
    return Markup('<time datetime="{}">{}</time>').format(text.replace(" ", "T"), text)


def show_age(seconds: float | None) -> str:
    """Return a duration as people read it; None is "unknown".

    >>> show_age(125.2), show_age(None)
    ('2 min 5 s', 'unknown')
    """
    return "unknown" if seconds is None else duration_text(seconds)


def to_url(path: str, **query: object) -> str:
    """Return a path with each part quoted, and a query.

    >>> to_url("/models/a b", key="<x>&", empty=None)
    '/models/a%20b?key=%3Cx%3E%26'
    """
    words = urlencode({name: value for name, value in query.items() if value is not None})
    return quote(path, safe="/") + (f"?{words}" if words else "")


def render(template: str, values: Mapping[str, object]) -> str:
    """Return a page."""
    return templates().get_template(template).render(values)
