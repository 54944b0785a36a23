"""Strings that mean something to a browser, a template, a shell or a path; and what a browser would make of a page."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlsplit

from hypothesis import strategies as st

from skewless.contract.names import is_name

MARKUP = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    '" onfocus="alert(1)" autofocus="',
    "</style><script>alert(1)</script>",
    "</title><iframe srcdoc='<script>alert(1)</script>'>",
    "</td></tr></table><form action=https://evil.example>",
    "<a href=javascript:alert(1)>click</a>",
    "<!--<script>-->",
    "]]><script>alert(1)</script>",
    "{{ 7 * 7 }}{% for x in () %}",
    "$template $styling ${content}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<base href=https://evil.example>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "\u2028<b>\u202e",
)
_PIECES = st.one_of(st.sampled_from(MARKUP), st.text(max_size=12), st.sampled_from(("<", ">", '"', "'", "&", "/", "=")))
# Texts without lone surrogates: no file and no page can hold one.
MARKED_UP = st.lists(_PIECES, min_size=1, max_size=4).map(
    lambda pieces: "".join(pieces).encode(errors="replace").decode()
)
NAMES = (
    "../../v",
    "..",
    ".",
    "",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "..\\..\\v",
    "%2e%2e%2fv",
    "a\x00b",
    "a\nb",
    "a ",
    " a",
    "-rf",
    "--repo",
    ".hidden",
    "~root",
    "$HOME",
    "`id`",
    "a;b",
    "a|b",
    "a*",
    "a?",
    "[a]",
    "{a}",
    "a:b",
    "a'b",
    'a"b',
    "a%b",
    "a#b",
    "a@v1",
    "con\u202e",
    "ﬁle",
    "é",
    "x" * 101,
    "x" * 5_000,
    *MARKUP[:3],
)
_ODD = st.sampled_from(("/", "..", "\\", "\x00", "%2f", "*", "{", "}", ":", " ", "-", "~", "\n", "é", "x" * 60))
# Names that nothing may have.
WRONG_NAMES = st.one_of(
    st.sampled_from(NAMES),
    st.lists(st.one_of(_ODD, st.text(max_size=6)), min_size=1, max_size=5).map(
        lambda parts: "".join(parts).encode(errors="replace").decode()
    ),
).filter(lambda name: not is_name(name))
_LOADING = {"src", "srcset", "href", "action", "formaction", "data", "poster", "background", "xlink:href", "srcdoc"}
_RUNNING = {"script", "iframe", "object", "embed", "form", "base", "link", "input", "img", "foreignobject"}


class Browser(HTMLParser):
    """What a browser would find in a page.

    Args:
        page: its text.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.policies: list[str] = []
        self.refreshes = 0
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = {name: value or "" for name, value in attrs}
        self.attributes |= found.keys()
        self.links += [value for name, value in found.items() if name in _LOADING]
        if tag == "meta" and "http-equiv" in found:
            is_policy = found["http-equiv"].lower() == "content-security-policy"
            self.policies += [found["content"]] if is_policy else []
            self.refreshes += not is_policy

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def dangers(self) -> list[str]:
        """Return what runs, loads, leads elsewhere or takes the page over; none in a page of ours."""
        running = [tag for tag in self.tags if tag in _RUNNING]
        handlers = [name for name in self.attributes if name.startswith("on") or name == "srcdoc"]
        outside = [link for link in self.links if urlsplit(link).scheme not in {"", "file"} or urlsplit(link).netloc]
        lacks = [] if self.policies and "default-src 'none'" in self.policies[0] else ["no policy"]
        return running + handlers + outside + lacks + ["refresh"] * self.refreshes
