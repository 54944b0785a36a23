"""Renders HTML pages for operators: self-contained files without scripts, with every value escaped."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

# Styles are inline in the page and in its plots. The policy is a second defence: HTML that a bug fails to escape
# cannot run scripts, load resources or send data.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render_page(package: str, name: str, **values: object) -> str:
    """Return a page.

    Args:
        package: the package that holds the template.
        name: file of the template, which extends ``base.html``.
        values: the template's variables; each is escaped unless the template marks it as safe.
    """
    return _load_template(package, name).render(values, policy=POLICY)


@cache
def _load_template(package: str, name: str) -> Template:
    from jinja2 import DictLoader, Environment, StrictUndefined  # noqa: PLC0415 - only for pages

    sources = {
        "base.html": files(__package__).joinpath("base.html").read_text(encoding="utf-8"),
        name: files(package).joinpath(name).read_text(encoding="utf-8"),
    }
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)
