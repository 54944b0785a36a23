"""The pages build into a site without a warning; it needs no other host, and describes every public name."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import skewless
import skewless.client
from tests.docs.pages import ROOT

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
# What a browser loads by itself; a link that a reader may follow is not among them.
_LOADED = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
_STYLE = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(folder / "doctrees")]
    build = subprocess.run(
        [*command, "-c", "docs", "-b", "html", ".", str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder / "html"


def foreign(texts: Iterable[str], pattern: re.Pattern[str]) -> set[str]:
    """Return the addresses of other hosts that some files load."""
    addresses = {match[match.lastindex or 0] for text in texts for match in pattern.finditer(text)}
    return {address for address in addresses if re.match(r"(?:https?:)?//", address)}


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(pages) > 50
    assert foreign(pages, _LOADED) == set()
    styles = [path.read_text(encoding="utf-8") for suffix in ("css", "svg") for path in site.rglob(f"*.{suffix}")]
    assert styles
    assert foreign(styles, _STYLE) == set()


def test_the_search_has_an_index_of_the_pages(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "docs/serving" in index
    assert "watermark" in index


def test_every_public_name_is_described(site: Path) -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in (site / "docs" / "api").glob("*.html"))
    identifiers = {name.rsplit(".", 1)[-1] for name in re.findall(r'id="(skewless\.[\w.]+)"', texts)}
    public = {name for name in (*skewless.__all__, *skewless.client.__all__) if not name.startswith("_")}
    assert public - identifiers == set()
    methods = {name for name in vars(skewless.Project) if not name.startswith("_")}
    assert methods - identifiers == set()


def test_the_front_page_leads_to_the_readme(site: Path) -> None:
    assert 'url=README.html"' in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "README.html").is_file()


def test_the_menu_has_the_kinds_of_pages(site: Path) -> None:
    menu = (site / "README.html").read_text(encoding="utf-8")
    captions = re.findall(r'<span class="caption-text">([^<]+)</span>', menu)
    assert captions == ["Tutorials", "How-to guides", "Reference", "Explanation", "The project"]
