"""Runbooks: what is understood and what is refused, and runs that go on where they were left."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.cli import table
from kdnsctl.cli.runbook.page import lines_of as page_lines
from kdnsctl.model import UsageError
from kdnsctl.runbook import parsing, shelf, words
from tests.unit.runbook.conftest import Run

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "docs/runbooks").glob("*.md"))


STEP = """## {number}. Step

**{kind}:** something.

```sh
{code}
```

| exit code | what it means | next |
|---|---|---|
| 0 | well | {then} |
"""


def page(*steps: tuple[str, str, str]) -> str:
    text = "# Title\n\nWhat it is for.\n\n## Variables\n\n| variable | what it is | default |\n|---|---|---|\n"
    text += "| `WORDS` | some words | |\n| `PLACE` | a file | `at-$INCIDENT` |\n\n"
    return text + "\n".join(
        STEP.format(number=number, kind=kind, code=code, then=then)
        for number, (kind, code, then) in enumerate(steps, 1)
    )


def report(out: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(out)  # nothing else is on standard output
    jsonschema.validate(data, json.loads((ROOT / f"docs/schemas/{data['kind']}.schema.json").read_text("utf-8")))
    return data


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_is_a_runbook_that_comes_with_the_package(path: Path, kdnsctl: Run) -> None:
    assert (shelf.BUILT_IN / path.name).read_text("utf-8") == path.read_text("utf-8")
    code, out, _ = kdnsctl("show", path.stem, "-o", "json")
    assert code == 0
    assert report(out)["name"] == path.stem


def test_list_has_them_and_yours_and_names_what_is_no_runbook(kdnsctl: Run) -> None:
    Path("books/mine.md").write_text(page(("Reads", "true", "done")), "utf-8")
    Path("books/broken.md").write_text("# Title\n\n## 1. Step\n", "utf-8")
    code, out, err = kdnsctl("list", "-o", "json")
    assert code == 4
    assert "broken, line 3: step 1 does not say what it does" in err
    found = {item["name"]: item["builtIn"] for item in report(out)["items"]}
    assert found == {"mine": False, **dict.fromkeys([path.stem for path in PAGES], True)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a 'b c' \"d $WORDS\" | e\\ f # not this", [["a", "b c", "d one"], ["e f"]]),
        ("a $WORDS x${WORDS}y '$WORDS' a#b", [["a", "one", "xoney", "$WORDS", "a#b"]]),
        ("", []),
        ('a $TWO "$TWO" "x $TWO"', [["a", "2", "3", "2 3", "x 2 3"]]),
    ],
)
def test_words_mean_what_they_mean_to_a_shell(line: str, expected: list[list[str]]) -> None:
    found = [
        words.arguments(command, {"WORDS": ["one"], "TWO": ["2", "3"]})
        for one in words.pipelines(line)
        for command in one
    ]
    assert found == expected


@pytest.mark.parametrize(
    "line", ["a; b", "a & b", "a > b", "a *", "a `b`", 'a "$(b)"', "a $(b)", "a || b", "a |", "a 'b"]
)
def test_what_only_a_shell_understands_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        words.pipelines(line)


@pytest.mark.parametrize("value", ["-rf", "a\x1b[2J", ""])
def test_a_value_never_becomes_an_option_and_always_prints(value: str) -> None:
    with pytest.raises(UsageError):
        words.checked("NODES", [value])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no title\n", "no title"),
        (page(("Reads", "echo $OTHER", "done")), "OTHER, which is not among its variables"),
        (page(("Reads", "true", "step 7")), "step 7, which does not exist"),
        (page(("Reads", "true", "perhaps")), "not 'perhaps'"),
        (page(("Reads", "", "done")), "no commands"),
        (page(("Reads", "true", "done")).replace("## 1.", "## 2."), "numbered|steps of runbook"),
    ],
)
def test_what_is_no_runbook_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parsing.parse("x", text)


def test_a_run_stops_where_it_cannot_go_on_and_goes_on_from_there(kdnsctl: Run) -> None:
    steps = [("Changes", "mkdir one", "go on"), ("Reads", "ls $PLACE", "go on"), ("Changes", "mkdir two", "done")]
    Path("books/mine.md").write_text(page(*steps), "utf-8")
    code, out, _ = kdnsctl("run", "mine", "--yes", "--incident", "try", "-o", "json")
    data = report(out)
    assert (code, data["end"], data["next"]) == (1, "failed", 2)
    assert [step["exitCode"] for step in data["steps"]] == [0, 2]
    assert not Path("two").exists()
    Path("at-try").touch()
    code, out, _ = kdnsctl("run", "mine", "--yes", "--incident", "try", "-o", "json")
    assert (code, [step["step"] for step in report(out)["steps"]]) == (0, [2, 3])
    assert Path("two").is_dir()
    code, out, _ = kdnsctl("run", "mine", "--yes", "--incident", "try", "-o", "json")
    assert (code, report(out)["end"], report(out)["steps"]) == (0, "done", [])  # at its end: mkdir would fail


def test_what_steps_print_is_on_standard_output_or_beside_the_report(kdnsctl: Run) -> None:
    steps = page(("Reads", "echo seen", "go on"), ("Reads", "printf '1\\n2\\n' | sort -r", "done"))
    Path("books/mine.md").write_text(steps, "utf-8")
    code, out, err = kdnsctl("run", "mine", "--yes")
    assert (code, out) == (0, "seen\n2\n1\n")
    assert "\nseen\n" not in err
    code, out, err = kdnsctl("run", "mine", "--yes", "-o", "json")
    assert (code, report(out)["end"]) == (0, "done")
    assert "\nseen\n" in err
    assert "\n2\n1\n" in err


def test_files_that_are_no_runbooks_are_named_and_never_run(kdnsctl: Run) -> None:
    books = Path("books")
    (books / "latin.md").write_bytes(b"# Titl\xe9\n")
    (books / "large.md").write_text("# Title\n" + "x" * parsing.LARGEST, "utf-8")
    (books / "empty.md").touch()
    (books / "open.md").write_text("# Title\n\n## 1. Step\n\n```sh\ntrue\n", "utf-8")
    (books / "directory.md").mkdir()
    (books / "gone.md").symlink_to("nowhere")
    (books / "Not a name.md").write_text(page(("Reads", "true", "done")), "utf-8")
    os.mkfifo(books / "pipe.md")
    code, out, err = kdnsctl("list", "-o", "json")
    assert code == 4
    assert {item["name"] for item in report(out)["items"]} == {path.stem for path in PAGES}
    whys = {"latin": "not UTF-8", "large": "larger than", "empty": "no title", "open": "has no end"}
    for name, why in whys.items():
        assert [line for line in err.splitlines() if name in line and why in line], (name, err)
        code, out, said = kdnsctl("run", name, "--yes")
        assert (code, out) == (2, "")
        assert why in said
    for name in ("directory", "gone", "pipe", "Not a name"):
        code, out, said = kdnsctl("run", name, "--yes")
        assert (code, f"there is no runbook {name}" in said) == (2, True)


def test_a_step_is_laid_out_for_the_terminal_and_nothing_of_it_is_lost() -> None:
    step = parsing.parse("x", page(("Reads", "true", "done"))).steps[0]
    more = step.text + "\nA [page](other.md) and an [issue](https://example.com/1), and a good many words more.\n"
    more += "\n```\nas it   stands \x1b[2J\n```\n\n- one\n- two\n"
    plain, bold = table.painter(color=False), table.painter(color=True)
    for width in (40, 60, 200):
        lines = page_lines(more, commands=True, width=width, paint=plain)
        assert all(len(line) <= width for line in lines)
        text = " ".join(" ".join(lines).split())
        assert text.startswith("1. Step Reads: something.")
        assert "A page and an issue (https://example.com/1), and a good" in text
        assert "as it stands \\x1b[2J - one - two" in text
        assert "```" not in text
        assert "EXIT CODE" in text
    assert "\x1b[1mReads:\x1b[0m something." in page_lines(more, commands=True, width=60, paint=bold)


def test_yes_to_reads_says_yes_to_no_change(kdnsctl: Run) -> None:
    Path("books/mine.md").write_text(page(("Reads", "true", "go on"), ("Changes", "mkdir one", "done")), "utf-8")
    code, out, _ = kdnsctl("run", "mine", "--yes-to-reads", "--no-input", "-o", "json")
    assert (code, report(out)["next"]) == (4, 2)
    code, _, err = kdnsctl("run", "mine", "--no-input")
    assert (code, "nothing was run" in err) == (5, True)
    assert not Path("one").exists()


def test_what_a_person_does_is_not_done_by_saying_yes(kdnsctl: Run) -> None:
    Path("books/mine.md").write_text(page(("Reads", "true", "go on"), ("By hand", "true", "done")), "utf-8")
    assert kdnsctl("run", "mine", "--yes", "--no-input")[0] == 4


def test_a_step_that_says_it_reads_and_changes_is_refused(kdnsctl: Run) -> None:
    for line in ("kdnsctl --context x quarantine a", "kdnsctl incident undo x", "kdnsctl repair flush a"):
        Path("books/mine.md").write_text(page(("Reads", "mkdir one", "go on"), ("Reads", line, "done")), "utf-8")
        code, _, err = kdnsctl("run", "mine", "--yes")
        assert (code, "nothing was run" in err) == (2, True)
    assert not Path("one").exists()


def test_a_changed_runbook_and_one_that_anybody_may_write_are_not_run(kdnsctl: Run) -> None:
    book = Path("books/mine.md")
    book.write_text(page(("Reads", "false", "done")), "utf-8")
    assert kdnsctl("run", "mine", "--yes", "--incident", "try")[0] == 1
    book.write_text(page(("Reads", "true", "done")), "utf-8")
    assert kdnsctl("run", "mine", "--yes", "--incident", "try")[0] == 5
    assert kdnsctl("run", "mine", "--yes", "--incident", "try", "--from", "1")[0] == 0
    book.chmod(0o666)
    code, _, err = kdnsctl("run", "mine", "--yes")
    assert (code, "written by anybody" in err) == (2, True)


def test_the_cluster_and_the_incident_are_handed_on_and_what_is_printed_is_remembered(kdnsctl: Run) -> None:
    text = page(("Reads", "printenv KDNSCTL_CONTEXT KDNSCTL_INCIDENT", "go on"), ("Changes", "touch $WORDS", "done"))
    text = text.replace("```\n\n| exit", "```\n\n**Remember:** `WORDS`\n\n| exit", 1)
    Path("books/mine.md").write_text(text, "utf-8")
    assert kdnsctl("run", "mine", "--yes", "--context", "prod", "--incident", "try")[0] == 0
    assert Path("prod").exists()
    assert Path("try").exists()
