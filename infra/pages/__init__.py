"""HTML pages for operators: one file each, every value escaped, no scripts, nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

# Styles stand in the page and in its plots. Whatever slips through the escaping can neither run, load nor send.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render_page(package: str, name: str, **values: object) -> str:
    """Return a page.

    Args:
        package: the package that holds the template.
        name: file of the template, which extends ``base.html``.
        values: what the template shows; each is escaped but what the template itself calls safe.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined  # noqa: PLC0415 - only for pages

    sources = {
        "base.html": files(__package__).joinpath("base.html").read_text(encoding="utf-8"),
        name: files(package).joinpath(name).read_text(encoding="utf-8"),
    }
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name).render(values, policy=POLICY)
