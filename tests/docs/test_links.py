"""Every link in the pages leads to a page, a file and a heading that exist, and every page can be reached.

Addresses elsewhere are not asked for: no test needs a network but loopback.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.docs.blocks import ROOT, pages

DOCS = ROOT / "docs"
SITE: dict[str, Any] = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]


class Page(HTMLParser):
    """What a page of the built site links to, and the places in it that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            elif (tag, name) in {("a", "href"), ("img", "src")} and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `nox -s docs` does."""
    directory = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, directory / "docs")
    shutil.copy(ROOT / "zensical.toml", directory)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return directory / "site"


def test_every_link_of_the_site_leads_to_a_page_and_a_place_on_it(site: Path) -> None:
    built = {path: Page(path) for path in site.rglob("*.html")}
    assert len(built) > len(list(DOCS.rglob("*.md"))) * 0.9
    wrong = []
    for path, page in built.items():
        if path.name == "404.html":
            continue  # is shown at any address
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            where, _, place = link.partition("#")
            target = (path.parent / unquote(where)).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                wrong.append(f"{path.relative_to(site)}: {link}: there is no such page or file")
            elif place and target in built and unquote(place) not in built[target].places | {"__comments"}:
                wrong.append(f"{path.relative_to(site)}: {link}: there is no such heading")
    assert not wrong, "\n".join(wrong)


def headings(page: Path) -> Iterator[str]:
    """The anchors that a page's headings have where a forge shows it: lower case, dashes, no punctuation."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        number = seen.get(anchor, 0)
        seen[anchor] = number + 1
        yield f"{anchor}-{number}" if number else anchor


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere_where_the_sources_are_shown(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        where, _, place = link.partition("#")
        target = (page.parent / where).resolve() if where else page
        if not target.exists():
            wrong.append(f"{link}: there is no such file")
        elif place and place not in set(headings(target)):
            wrong.append(f"{link}: there is no such heading")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_table_shows_the_escape_of_a_bar(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    shown = re.findall(r"`[^`\n]*\\\|[^`\n]*`", text)
    assert not shown, f"the site shows the backslash in {shown[0]}: write <code>a&#124;b</code>"


def test_every_page_is_in_the_navigation() -> None:
    def named(entries: list[Any]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                if isinstance(value, list):
                    yield from named(value)
                else:
                    yield value

    listed = list(named(SITE["nav"]))
    assert len(listed) == len(set(listed))
    assert set(listed) == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
