"""`kdnsctl lab …` without a lab: words in, calls and text out. What a lab really does is shown in tests/lab."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.cli import app, terminal
from kdnsctl.cli import lab as lab_commands
from kdnsctl.cli.lab import shared
from kdnsctl.cli.lab import up as up_command
from kdnsctl.lab import doctor, incident, recorded, space
from kdnsctl.lab.doctor import Check
from kdnsctl.lab.incident import Incident, Mode
from kdnsctl.lab.kubeclient import ApiError
from kdnsctl.lab.space import Status, UpOptions
from kdnsctl.lab.spacedir import LabError
from tests.unit.cli.conftest import Ran, Run

NAMES = list(lab_commands.COMMANDS)
MADE = Incident("delete-fails", "knode2", "2026-11-23T03:00:00Z", ("10.244.1.2", "10.244.2.2"), "kube-proxy-x7x2p")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without labs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "kdnsctl" / "lab"


def running(name: str = "default", **more: Any) -> Status:
    fields: dict[str, Any] = {"exists": True, "running": True, "directory": Path("/state/lab") / name}
    return Status(name, **{**fields, "server": "https://127.0.0.1:6443", "pid": 7, **more})


def client(*, answered: bool, row: int) -> dict[str, Any]:
    return {"answered": 9, "lost": 4, "last_answered": answered, "in_a_row": row}


NODES = (
    {"name": "knode1", "address": "10.88.0.11", "faults": [],
     "clients": {"fixed": client(answered=True, row=9), "fresh": client(answered=True, row=8)}},
    {"name": "knode2", "address": "10.88.0.12", "faults": ["restore"],
     "clients": {"fixed": client(answered=False, row=4), "fresh": client(answered=True, row=1)}},
)  # fmt: skip


def schema(root: Path, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "docs/schemas" / f"{kind}.schema.json").read_text("utf-8"))
    return found


def valid(root: Path, ran: Ran) -> dict[str, Any]:
    """The JSON printed, once it is shown to follow its schema."""
    document: dict[str, Any] = json.loads(ran.out)
    checker = jsonschema.Draft202012Validator(schema(root, document["kind"]), format_checker=jsonschema.FormatChecker())
    checker.validate(document)
    return document


class TestTheGroup:
    def test_alone_it_lists_its_commands(self, run: Run) -> None:
        ran = run("lab")
        assert (ran.code, ran.err) == (0, "")
        assert ran.lines[0] == "Usage: kdnsctl lab COMMAND [OPTIONS]"
        assert all(f"  {name} " in ran.out for name in NAMES)

    @pytest.mark.parametrize("flag", ["-h", "--help"])
    @pytest.mark.parametrize("name", NAMES)
    def test_every_command_has_help_with_an_example(self, run: Run, name: str, flag: str) -> None:
        ran = run("lab", name, flag)
        assert (ran.code, ran.err) == (0, "")
        assert ran.lines[0].startswith(f"Usage: kdnsctl lab {name} ")
        assert f"\n    kdnsctl lab {name}" in ran.out or f'\n    eval "$(kdnsctl lab {name})"' in ran.out

    def test_the_summaries_are_the_first_lines_of_the_commands_help(self) -> None:
        tree = app.build().load("lab")
        for name, entry in lab_commands.COMMANDS.items():
            real = tree.load(name)
            assert entry.summary == inspect.cleandoc(real.help).partition("\n")[0].rstrip("."), name
            assert tree.commands[name].get_short_help_str(200) == entry.summary

    def test_as_a_kubectl_plugin_the_usage_says_kubectl(self, run: Run) -> None:
        assert (
            run("lab", "up", "-h", program="/opt/bin/kubectl-kdns").lines[0].startswith("Usage: kubectl kdns lab up ")
        )

    def test_what_the_command_line_repeats_is_what_the_lab_says(self) -> None:
        assert [mode.value for mode in shared.Mode] == [mode.value for mode in Mode]
        assert (shared.DEFAULT_NAME, up_command.LAST_VERSION) == (space.DEFAULT_NAME, space.DEFAULT_VERSION)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["brek"], "unknown command 'brek'; did you mean 'break'?"),
        (["xyz"], "unknown command 'xyz' ('kdnsctl lab --help' lists them)"),
        (["--debug"], "no command given; 'kdnsctl lab --help' lists the commands"),
        (["up", "A_B"], "'A_B' is no name for a lab; use 1 to 32 of a-z, 0-9 and '-', not '-' at an end"),
        (["up", ""], "empty; use 1 to 32 of a-z, 0-9 and '-', not '-' at an end"),
        (["up", "--nodes", "0"], "--nodes: 0 is not in the range 1<=x<=50"),
        (
            ["up", "--kube-proxy-version", "1.20.3"],
            "--kube-proxy-version: the lab's kube-proxy speaks as v1.28.0 to v1.36.x, not '1.20.3'",
        ),
        (["up", "--timeout", "5"], "--timeout: '5' has no unit; write it like 90s, 10m, 24h, 1h30m or 2d"),
        (
            ["up", "--recorded", "--nodes", "2", "--no-ssh"],
            "--nodes, --ssh has no effect with --recorded: the recordings are what they are",
        ),
        (["break", "--mode", "fire"], "--mode: 'fire' is not one of 'delete-fails', 'down', 'restore-fails'"),
        (["break", "--node", "UP"], "--node: 'UP' is not a node name; write it like ip-10-0-0-1 or node/ip-10-0-0-1"),
        (["status", "-o", "xml"], "--output: 'xml' is not one of 'table', 'json', 'yaml'"),
        (["down", "--all", "x"], "--all and a NAME exclude each other"),
        (["shell", "a", "ls"], "one lab at a time; put -- before the command: kdnsctl lab shell -- a ls"),
        (["shell", "A_B"], "'A_B' is no name for a lab; use 1 to 32 of a-z, 0-9 and '-', not '-' at an end"),
        (["--context", "c", "status"], "--context has no effect on 'kdnsctl lab status'"),
        (["status", "--context", "c"], "--context has no effect on 'kdnsctl lab status'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(run: Run, state: Path, arguments: list[str], message: str) -> None:
    ran = run("lab", *arguments)
    assert (ran.code, ran.out, ran.error) == (2, "", f"error: {message}")
    assert not state.exists()


class TestWithoutALab:
    @pytest.mark.parametrize("arguments", [["break"], ["heal"], ["shell"], ["shell", "--", "ls"]])
    def test_a_command_that_needs_one_says_how_to_get_it(self, run: Run, arguments: list[str]) -> None:
        ran = run("lab", *arguments)
        assert (ran.code, ran.out) == (1, "")
        assert ran.error == "error: there is no lab 'default'; make one with: kdnsctl lab up default"

    def test_the_lines_for_a_shell_fail_and_lead_nowhere(self, run: Run, state: Path) -> None:
        ran = run("lab", "env", "nope")
        assert (ran.code, ran.error) == (1, "error: there is no lab 'nope'; make one with: kdnsctl lab up nope")
        shell = ["sh", "-c", 'KUBECONFIG=old; eval "$1"; echo "$? $KUBECONFIG"', "sh", ran.out]
        said = subprocess.run(shell, capture_output=True, text=True, check=True)
        assert said.stdout == f"1 {state / 'nope' / 'kubeconfig'}\n"
        assert not state.exists()

    def test_a_command_taken_for_a_name_is_told_how_to_run(self, run: Run) -> None:
        ran = run("lab", "shell", "ls")
        assert (ran.code, ran.err.splitlines()) == (
            1,
            [
                "error: there is no lab 'ls'",
                "hint: to run the command ls in the default lab: kdnsctl lab shell -- ls",
            ],
        )

    def test_status_and_down_have_nothing_to_do(self, run: Run) -> None:
        assert run("lab", "status").out == "there is no lab; make one with: kdnsctl lab up\n"
        assert run("lab", "down").out == "there is no lab 'default'\n"
        assert run("lab", "down", "--all").out == "there is no lab\n"
        assert json.loads(run("lab", "status", "-o", "json").out)["labs"] == []

    def test_status_of_a_lab_by_name_is_an_error(self, run: Run) -> None:
        ran = run("lab", "status", "demo")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.splitlines() == ["error: there is no lab 'demo'", "hint: make one with: kdnsctl lab up demo"]


class TestALabWhoseRecordCannotBeRead:
    @pytest.fixture(autouse=True)
    def damaged(self, state: Path) -> None:
        for name in ("bad", "good"):
            (state / name).mkdir(parents=True)
        (state / "bad" / "lab.json").write_text("{")

    def test_status_shows_the_others_and_fails(self, run: Run) -> None:
        ran = run("lab", "status")
        assert ran.code == 1
        assert ran.lines[-1] == "good: not running any more; clear it away with: kdnsctl lab down good"
        assert ran.err.splitlines()[0].startswith("error: bad: the record of the lab's first process cannot be read")

    def test_down_of_all_removes_the_others_and_fails(self, run: Run, state: Path) -> None:
        ran = run("lab", "down", "--all")
        assert (ran.code, ran.out) == (1, "the lab 'good' is gone\n")
        assert ran.err.splitlines()[0].startswith("error: bad: the record of the lab's first process cannot be read")
        assert [path.name for path in state.iterdir()] == ["bad"]

    @pytest.mark.parametrize("command", ["status", "down", "up"])
    def test_asked_for_by_name_it_is_an_error(self, run: Run, state: Path, command: str) -> None:
        ran = run("lab", command, "bad")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.splitlines()[0].startswith("error: the record of the lab's first process cannot be read")
        assert (state / "bad").exists()


class TestStatus:
    @pytest.fixture(autouse=True)
    def labs(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Status]:
        """Labs as `space.status` tells of them; fill it."""
        found: dict[str, Status] = {}
        monkeypatch.setattr(space, "status", lambda name: found[name])

        def add(lab: Status) -> None:
            found[lab.name] = lab
            (state / lab.name).mkdir(parents=True)

        add(running("a", nodes=NODES, directory=state / "a"))
        add(running("b", rootless=True, server="", directory=state / "b"))
        add(Status("c", exists=True, running=False, directory=state / "c"))
        add(running("d", recorded=True, nodes=({**NODES[0], "clients": {}},), directory=state / "d"))
        return found

    def test_every_lab_is_in_the_table_and_told_below(self, run: Run, state: Path) -> None:
        ran = run("lab", "status")
        assert (ran.code, ran.err) == (0, "")
        rows = [line.split("   ") for line in ran.lines[: ran.lines.index("")]]
        assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
            ["LAB", "NODE", "ADDRESS", "HELD-PORT", "FRESH-PORTS", "FAULTS"],
            ["a", "knode1", "10.88.0.11", "answered (9)", "answered (8)", "<none>"],
            ["a", "knode2", "10.88.0.12", "lost (4)", "answered (1)", "restore"],
            ["b", *["<none>"] * 5],
            ["c", *["<none>"] * 5],
            ["d", "knode1", "10.88.0.11", "<none>", "<none>", "<none>"],
        ]
        assert ran.lines[ran.lines.index("") + 1 :] == [
            f"a: as root, API https://127.0.0.1:6443, files {state}/a",
            f"b: running, but not answering (yet); its log is {state}/b/lab.log",
            "c: not running any more; clear it away with: kdnsctl lab down c",
            f"d: plays recordings, API https://127.0.0.1:6443, files {state}/d",
        ]

    def test_a_broken_lab_says_so_and_how_to_undo_it(self, run: Run, state: Path) -> None:
        (state / "a" / "incident.json").write_text(
            '{"mode": "down", "node": "knode2", "began": "2026-11-23T03:00:00Z", "dead": ["10.244.1.2"],'
            ' "kube_proxy": "kube-proxy-x7x2p"}'
        )
        assert run("lab", "status", "a").lines[-1] == (
            "  broken since 2026-11-23T03:00:00Z on knode2 (down); undo: kdnsctl lab heal a"
        )
        told = json.loads(run("lab", "status", "a", "-o", "json").out)["labs"][0]["incident"]
        assert told == {
            "mode": "down",
            "node": "knode2",
            "began": "2026-11-23T03:00:00Z",
            "deadEndpoints": ["10.244.1.2"],
            "kubeProxyPod": "kube-proxy-x7x2p",
        }

    def test_json_follows_the_schema(self, run: Run, pytestconfig: pytest.Config) -> None:
        document = valid(pytestconfig.rootpath, run("lab", "status", "-o", "json"))
        assert [lab["name"] for lab in document["labs"]] == ["a", "b", "c", "d"]
        assert [lab["running"] for lab in document["labs"]] == [True, True, False, True]
        assert [lab["kind"] for lab in document["labs"]] == ["kernel", "kernel", "kernel", "recorded"]
        assert document["labs"][0]["nodes"][1]["clients"][0] == {
            "kind": "fixed",
            "answered": 9,
            "lost": 4,
            "lastAnswered": False,
            "inARow": 4,
        }
        assert run("lab", "status", "-o", "yaml").out.startswith("apiVersion: kdnsctl.io/v1\nkind: LabStatus\n")

    def test_colour_repeats_what_the_words_say(self, run: Run) -> None:
        assert "\x1b[1;31mlost (4)\x1b[0m" in run("lab", "status", "--color", "always").out
        assert "\x1b[" not in run("lab", "status").out

    def test_colour_takes_no_room(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal, "columns", lambda _: 80)
        monkeypatch.setattr(shared, "columns", lambda _: 80)
        plain, coloured = run("lab", "status", "a").out, run("lab", "status", "a", "--color", "always").out
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain != coloured


class TestUp:
    @pytest.fixture(autouse=True)
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[UpOptions]:
        """What `space.up` was asked for, on a machine that can do it; it answers with a lab."""
        able = (Check("ip", ok=True, needed=True, detail="/usr/sbin/ip"),)
        monkeypatch.setattr(doctor, "examine", lambda: able)
        seen: list[UpOptions] = []

        def up(options: UpOptions) -> Status:
            seen.append(options)
            return running(options.name)

        monkeypatch.setattr(space, "up", up)
        return seen

    def test_the_options_arrive(self, run: Run, asked: list[UpOptions]) -> None:
        words = "new --nodes 1 --kube-proxy-version 1.36.2 --kube-proxy-verbosity 4 --no-ssh --timeout 2m"
        ran = run("lab", "up", *words.split())
        assert (ran.code, ran.err) == (0, "")
        assert asked == [
            UpOptions("new", 1, kube_proxy_version="v1.36.2", kube_proxy_verbosity=4, ssh=False, timeout=120.0)
        ]
        assert ran.lines[0].startswith("lab 'new' is up (as root, ")
        assert "1 node, kube-proxy v1.36.2" in ran.lines[0]
        assert any(line.startswith("  kdnsctl lab break new ") for line in ran.lines)

    def test_without_options_it_is_the_labs_own_default(self, run: Run, asked: list[UpOptions]) -> None:
        assert run("lab", "up").code == 0
        assert asked == [UpOptions()]

    def test_what_the_lab_says_of_its_failure_is_told_with_the_error_last(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: UpOptions) -> Status:
            raise LabError(
                "it fell\nIts log ended with:\nknode1: oops\nThe lab was removed. `kdnsctl lab doctor` looks."
            )

        monkeypatch.setattr(space, "up", fail)
        ran = run("lab", "up")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.splitlines() == [
            "Its log ended with:",
            "knode1: oops",
            "error: it fell",
            "hint: The lab was removed. 'kdnsctl lab doctor' looks.",
        ]

    def test_a_machine_that_cannot_is_told_what_to_do_and_of_the_recordings(
        self, run: Run, asked: list[UpOptions], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checks = (
            Check("ip", ok=False, needed=True, detail="missing", remedy="apt-get install iproute2"),
            Check("nft", ok=False, needed=False, detail="missing", remedy="apt-get install nftables"),
            Check("namespaces", ok=False, needed=True, detail="not permitted", remedy="run it as root"),
        )
        monkeypatch.setattr(doctor, "examine", lambda: checks)
        for command in ("up", "demo"):
            ran = run("lab", command)
            assert (ran.code, ran.out, asked) == (1, "", [])
            said, hint = ran.err.splitlines()
            assert said == "error: this machine cannot run the lab: ip: missing; namespaces: not permitted"
            assert hint.startswith("hint: apt-get install iproute2; or run it as root; or ")
            assert hint.endswith("; or play recordings instead: kdnsctl lab up --recorded")

    @pytest.mark.parametrize("command", [["up"], ["up", "--recorded"], ["demo"], ["break"], ["heal"]])
    def test_without_the_extra_it_is_named(
        self, run: Run, asked: list[UpOptions], command: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aiohttp" else real(name))
        ran = run("lab", *command)
        assert (ran.code, ran.out, asked) == (1, "", [])
        assert ran.err.splitlines() == [
            "error: the lab needs Python packages that are not installed: aiohttp; nothing was done",
            "hint: they come with the extra 'lab': pip install 'kdnsctl[lab]'",
        ]

    @pytest.mark.parametrize("command", ["up", "demo", "doctor"])
    def test_elsewhere_than_on_linux_it_is_said(
        self, run: Run, asked: list[UpOptions], command: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        ran = run("lab", command)
        assert (ran.code, ran.out, asked) == (1, "", [])
        assert ran.err.splitlines()[0] == (
            "error: the lab needs Linux: its nodes are made of the kernel's own namespaces"
        )

    def test_interrupted_it_removes_the_lab_that_it_was_making(
        self, run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(options: UpOptions) -> Status:
            (state / options.name).mkdir(parents=True)
            raise KeyboardInterrupt

        monkeypatch.setattr(space, "up", interrupted)
        ran = run("lab", "up")
        assert (ran.code, ran.error) == (
            130,
            "error: interrupted; the lab 'default' is gone, and nothing of it is left",
        )
        assert not (state / "default").exists()

    def test_interrupted_it_leaves_a_lab_that_was_there_before(
        self, run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(_: UpOptions) -> Status:
            raise KeyboardInterrupt

        (state / "default").mkdir(parents=True)
        monkeypatch.setattr(space, "up", interrupted)
        ran = run("lab", "up")
        assert (ran.code, ran.error) == (
            130,
            "error: interrupted; the lab 'default', which was there before, is as it was",
        )
        assert (state / "default").exists()


class TestBreakAndHeal:
    @pytest.fixture(autouse=True)
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        seen: list[tuple[Any, ...]] = []

        def break_dns(mode: Mode, *, name: str, node: str | None) -> Incident:
            seen.append((mode, name, node))
            return MADE

        monkeypatch.setattr(incident, "break_dns", break_dns)
        return seen

    def test_what_was_broken_and_how_to_see_and_undo_it(
        self, run: Run, asked: list[tuple[Any, ...]], state: Path
    ) -> None:
        ran = run("lab", "break", "--node", "node/knode2")
        assert (ran.code, ran.err, asked) == (0, "", [(Mode.DELETE_FAILS, "default", "knode2")])
        assert ran.lines[0].startswith("DNS is broken on knode2 (delete-fails). ")
        assert ran.lines[2] == "Gone: 10.244.1.2, 10.244.2.2"
        logs = f"{state}/default/nodes/*/var/log/pods/kube-system_kube-proxy-*"
        assert f"  kdnsctl find-affected --logs {logs}" in ran.lines
        assert "  kdnsctl lab shell --node knode2 -- conntrack -L -p udp --orig-dst 10.96.0.10" in ran.lines
        assert ran.lines[-1] == "  kdnsctl lab heal"

    @pytest.mark.parametrize("mode", list(Mode))
    def test_each_mode_arrives_and_is_explained(self, run: Run, asked: list[tuple[Any, ...]], mode: Mode) -> None:
        ran = run("lab", "break", "demo", "--mode", mode.value)
        assert asked == [(mode, "demo", None)]
        assert ("logged nothing" in ran.out) is (mode is Mode.DOWN)
        assert ran.lines[-1] == "  kdnsctl lab heal demo"

    def test_json_follows_the_schema(self, run: Run, pytestconfig: pytest.Config) -> None:
        document = valid(pytestconfig.rootpath, run("lab", "break", "-o", "json"))
        assert document["deadEndpoints"] == ["10.244.1.2", "10.244.2.2"]
        assert (document["node"], document["kubeProxyPod"]) == ("knode2", "kube-proxy-x7x2p")

    @pytest.mark.parametrize(("healed", "said"), [
        (MADE, "knode2 is healed (delete-fails): DNS answers on every node of the lab 'default'\n"),
        (None, "nothing is broken in the lab 'default'\n"),
    ])  # fmt: skip
    def test_heal_says_what_it_did(
        self, run: Run, healed: Incident | None, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(incident, "heal", lambda name: healed)  # noqa: ARG005  # called by its keyword
        assert run("lab", "heal").out == said

    def test_a_refusal_of_the_labs_api_is_one_line(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> Incident:
            raise ApiError(500, "no leader")

        monkeypatch.setattr(incident, "break_dns", refuse)
        ran = run("lab", "break")
        assert (ran.code, ran.err.splitlines()[0]) == (1, "error: the lab's API did not do it: no leader")

    def test_interrupted_they_say_how_the_lab_was_left(
        self, run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: Any, **__: Any) -> Incident:
            raise KeyboardInterrupt

        (state / "demo").mkdir(parents=True)
        monkeypatch.setattr(incident, "break_dns", interrupted)
        ran = run("lab", "break", "demo")
        assert (ran.code, ran.error) == (
            130,
            "error: interrupted; the lab may be half broken; undo with: kdnsctl lab heal demo",
        )

    @pytest.mark.parametrize(("command", "word"), [("break", "broken"), ("heal", "healed")])
    def test_recordings_are_neither_broken_nor_healed(self, run: Run, state: Path, command: str, word: str) -> None:
        (state / "default").mkdir(parents=True)
        record = {"pid": 1, "started": 1, "rootless": True, "recorded": True}
        (state / "default" / "lab.json").write_text(json.dumps(record))
        with pytest.raises(LabError, match="plays recordings"):
            recorded.refuse("default", word)
        ran = run("lab", command)
        assert ran.code == 1
        assert ran.error.startswith(f"error: the lab 'default' plays recordings and cannot be {word}: ")


class TestShell:
    @pytest.fixture
    def called(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        seen: list[tuple[Any, ...]] = []

        def shell(command: list[str], *, name: str, node: str | None) -> int:
            seen.append((command, name, node))
            return 7

        monkeypatch.setattr(space, "shell", shell)
        return seen

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ([], ([], "default", None)),
            (["--", "ls", "-l"], (["ls", "-l"], "default", None)),
            (["demo", "--", "ls"], (["ls"], "demo", None)),
            (["--node", "knode2", "--", "sh", "-c", "a -- b"], (["sh", "-c", "a -- b"], "default", "knode2")),
            (["demo", "--node", "knode1", "--", "--help", "--", "x"], (["--help", "--", "x"], "demo", "knode1")),
        ],
    )
    def test_the_command_is_what_follows_the_dashes(
        self, run: Run, called: list[tuple[Any, ...]], state: Path, words: list[str], expected: tuple[Any, ...]
    ) -> None:
        (state / "demo").mkdir(parents=True)
        ran = run("lab", "shell", *words)
        assert (ran.code, called) == (7, [expected])


class TestDoctor:
    CHECKS = (
        Check("kernel", ok=True, needed=True, detail="Linux 6.1"),
        Check("ip", ok=False, needed=True, detail="missing", remedy="apt-get install iproute2"),
        Check("conntrack", ok=False, needed=True, detail="missing", remedy="apt-get install conntrack"),
        Check("nft", ok=False, needed=False, detail="missing", remedy="apt-get install nftables"),
        Check("namespaces", ok=False, needed=True, detail="forbidden", remedy="run the lab as root"),
    )

    @pytest.fixture
    def examined(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[Check, ...]], None]:
        return lambda checks: monkeypatch.setattr(doctor, "examine", lambda: checks)

    def test_what_is_missing_is_listed_with_one_command_to_get_it(
        self, run: Run, examined: Callable[[tuple[Check, ...]], None]
    ) -> None:
        examined(self.CHECKS)
        ran = run("lab", "doctor")
        assert ran.code == 1
        assert [line.split()[:2] for line in ran.lines[1:6]] == [
            ["kernel", "ok"],
            ["ip", "missing"],
            ["conntrack", "missing"],
            ["nft", "optional"],
            ["namespaces", "missing"],
        ]
        assert ran.lines[5].endswith("forbidden; run the lab as root")
        assert ran.lines[-1] == "To get what is missing: apt-get install iproute2 conntrack nftables"
        assert ran.err.splitlines()[1].startswith("hint: apt-get install iproute2 conntrack; or run the lab as root; ")

    def test_pythons_packages_come_with_the_extra_and_recordings_need_them_as_well(
        self, run: Run, examined: Callable[[tuple[Check, ...]], None]
    ) -> None:
        examined(
            (
                *self.CHECKS[:2],
                Check("python aiohttp", ok=False, needed=True, detail="missing", remedy="pip install aiohttp"),
            )
        )
        ran = run("lab", "doctor")
        assert ran.lines[-1] == "To get what is missing: pip install 'kdnsctl[lab]' && apt-get install iproute2"
        assert ran.err.splitlines()[1] == "hint: pip install 'kdnsctl[lab]' && apt-get install iproute2"

    def test_a_machine_that_can_is_told_so(self, run: Run, examined: Callable[[tuple[Check, ...]], None]) -> None:
        examined((self.CHECKS[0], self.CHECKS[3]))
        ran = run("lab", "doctor")
        assert (ran.code, ran.err, ran.lines[-1]) == (0, "", "This machine can run the lab.")

    def test_json_follows_the_schema(
        self, run: Run, examined: Callable[[tuple[Check, ...]], None], pytestconfig: pytest.Config
    ) -> None:
        examined(self.CHECKS)
        ran = run("lab", "doctor", "-o", "json")
        document = valid(pytestconfig.rootpath, ran)
        assert (ran.code, ran.err, document["canRun"]) == (1, "", False)
        assert [check["name"] for check in document["checks"] if not check["ok"] and check["needed"]] == [
            "ip",
            "conntrack",
            "namespaces",
        ]


def test_paths_below_the_home_directory_are_shown_as_one_types_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert shared.shown_path(Path("/home/me/.local/state/x")) == "~/.local/state/x"
    assert shared.shown_path(Path("/home/me/a b")) == "'/home/me/a b'"
    assert shared.shown_path(Path("/var/x")) == "/var/x"
