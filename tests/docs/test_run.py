"""The blocks of the pages, run: each command ends as its page says, and prints what its page shows."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.text import Text

from kdnsctl.lab import space
from tests.docs import images, places
from tests.docs.blocks import ROOT, RUN_AS_RUNBOOKS, Block, blocks_of, pages
from tests.docs.printed import difference
from tests.lab import kubectl

TO_RUN: dict[tuple[Path, str], list[Block]] = {}
for _page in pages():
    if not _page.is_relative_to(RUN_AS_RUNBOOKS):
        for _block in blocks_of(_page):
            if _block.mark is not None and _block.mark.place is not None:
                TO_RUN.setdefault((_page, _block.mark.place), []).append(_block)


def at(place: str) -> pytest.MarkDecorator:
    """The pages with blocks for a place, each with all of them."""
    return pytest.mark.parametrize(
        "blocks",
        [blocks for (_, where), blocks in TO_RUN.items() if where == place],
        ids=[str(page.relative_to(ROOT)) for (page, where) in TO_RUN if where == place],
    )


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of a page's own. Its labs are gone afterwards, whatever the page did."""
    directory = Path(tempfile.mkdtemp(prefix="kdnsctl-page-"))
    yield directory
    labs = places.labs_of(directory)
    left = sorted(each.name for each in labs.iterdir()) if labs.exists() else []
    for name in left:
        space.down(name, root=labs)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def shared() -> Iterator[dict[str, str]]:
    """The lab of all pages that only read. Afterwards its nodes are as they were, and no pod of ours is left."""
    directory = Path(tempfile.mkdtemp(prefix="kdnsctl-pages-"))
    try:
        variables = places.broken_lab(directory, kubectl.obtain())
        before = nodes(variables)
        yield variables
        assert nodes(variables) == before
        listed = ["kubectl", "get", "pods", "-A", "-l", "app.kubernetes.io/managed-by=kdnsctl", "-o", "name"]
        assert subprocess.run(listed, env=variables, capture_output=True, text=True, check=True).stdout == ""
    finally:
        space.down("default", root=places.labs_of(directory))
        shutil.rmtree(directory)


def nodes(variables: dict[str, str]) -> list[object]:
    ran = subprocess.run(
        ["kubectl", "get", "nodes", "-o", "json"], env=variables, capture_output=True, text=True, check=True
    )
    items = json.loads(ran.stdout)["items"]
    return [(node["metadata"].get("annotations"), node["metadata"]["labels"], node["spec"]) for node in items]


def hold(ended: list[places.Ended]) -> None:
    """Each command ended with the code that its page says, and printed what its page shows."""
    wrong = []
    for block in dict.fromkeys(each.block for each in ended):
        assert block.mark is not None
        of_block = [each for each in ended if each.block is block]
        codes = block.mark.codes or (0,) * len(of_block)
        for each, code in zip(of_block, codes, strict=True):
            said = "\n".join(each.printed)
            if each.code != code:
                wrong.append(f"{each.where}: {each.command.text}\nended with {each.code}, not {code}:\n{said}")
            elif each.command.printed is not None and (why := difference(each.command.printed, each.printed)):
                wrong.append(f"{each.where}: {each.command.text}\n{why}")
    assert not wrong, "\n\n".join(wrong)


def with_our_files(directory: Path) -> Path:
    """A directory that looks like this checkout, for what only reads it."""
    for name in ("tests", "docs", "images"):
        (directory / name).symlink_to(ROOT / name)
    return directory


@at(places.FILES)
def test_on_files(blocks: list[Block], home: Path, tmp_path: Path) -> None:
    variables = places.environment(home, kubectl.obtain())
    hold(places.run(blocks, with_our_files(tmp_path), variables))


@at(places.SHARED)
def test_in_a_lab_that_is_only_read(blocks: list[Block], shared: dict[str, str], tmp_path: Path) -> None:
    hold(places.run(blocks, with_our_files(tmp_path), shared))


@pytest.mark.parametrize("shot", images.SHOTS, ids=lambda shot: shot.name)
def test_a_picture_shows_what_is_printed(shot: images.Shot, shared: dict[str, str]) -> None:
    shown = images.compared(shot, images.described(images.PLACE / f"{shot.name}.svg"))
    printed = images.compared(shot, Text.from_ansi(images.take(shot, shared)).plain.splitlines())
    assert shown
    assert difference(shown, printed) is None, difference(shown, printed)


@at(places.OWN_BROKEN)
def test_in_a_broken_lab_of_its_own(blocks: list[Block], home: Path, tmp_path: Path) -> None:
    hold(places.run(blocks, with_our_files(tmp_path), places.broken_lab(home, kubectl.obtain())))


@at(places.OWN)
def test_from_nothing(blocks: list[Block], home: Path, tmp_path: Path) -> None:
    variables = places.environment(home, kubectl.obtain())
    hold(places.run(blocks, with_our_files(tmp_path), variables))
    assert not list(places.labs_of(home).glob("*")), "the page leaves a lab behind"
