"""TAB: names of nodes, live and kept; contexts; nothing, and no word, when anything goes wrong."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnsctl.__main__ import complete_for_kubectl
from kdnsctl.cli import completing
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_process import HEAVY, TELL_MODULES
from tests.unit.cluster.apiserver import Answer, Server, reply, reset, status
from tests.unit.cluster.conftest import Kubeconfig
from tests.unit.find.clusters import FORBIDDEN, NODES

ROOT = Path(__file__).parents[3]
LIMIT = completing.LIMIT  # the tests have another
NAMES = {"items": [{"metadata": {"name": name}} for name in ("knode2", "knode1", "other")]}
Tab = Callable[..., list[str]]


@pytest.fixture
def tab(at_home: None, run: Run, monkeypatch: pytest.MonkeyPatch) -> Tab:  # noqa: ARG001
    """Press TAB after `words` in a shell; what is offered. Nothing may be said. A slow machine is no slow cluster."""
    monkeypatch.setattr(completing, "LIMIT", 60.0)

    def tab(words: str, shell: str = "bash", **variables: str) -> list[str]:
        with monkeypatch.context() as pressed:
            for name, value in (asking(words, shell) | variables).items():
                pressed.setenv(name, value)
            ran = run()
        assert (ran.code, ran.err) == (0, ""), ran
        return ran.out.split() if shell == "bash" else [ran.out]

    return tab


def asking(words: str, shell: str) -> dict[str, str]:
    """What the shell's script tells when TAB is pressed."""
    line = f"kdnsctl {words}"
    return {
        "_KDNSCTL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


def pressed_in_a_process(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """TAB in a process of its own, which tells on stderr what it has imported."""
    return subprocess.run(
        [sys.executable, "-c", TELL_MODULES],
        capture_output=True,
        text=True,
        check=False,
        env=environment | asking("find-affected kn", "bash"),
    )


@pytest.fixture
def cluster(api: Server, kubeconfig: Kubeconfig) -> Server:
    kubeconfig(api.url)
    api.on(NODES, reply(NAMES))
    return api


def kept(environment: dict[str, str]) -> list[Path]:
    return list((Path(environment["HOME"]) / ".cache/kdnsctl/nodes").glob("*"))


def test_nodes_are_offered_as_they_are_being_typed(cluster: Server, tab: Tab) -> None:
    assert tab("find-affected ") == ["knode1", "knode2", "other"]
    assert tab("find-affected kn") == ["knode1", "knode2"]
    assert tab("find-affected node/k") == ["node/knode1", "node/knode2"]
    assert tab("find-affected knode1 node/other ") == ["knode2"]
    assert tab("find-affected x") == []
    (asked,) = cluster.requests
    assert "as=PartialObjectMetadataList" in (asked.header("Accept") or "")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_nodes_are_offered_in_every_shell(tab: Tab, shell: str) -> None:
    (offered,) = tab("find-affected kn", shell)
    assert "knode1" in offered
    assert "knode2" in offered
    assert "other" not in offered


def test_names_are_kept_for_their_owner_only_and_asked_for_again_after_a_while(
    cluster: Server, tab: Tab, environment: dict[str, str]
) -> None:
    tab("find-affected ")
    (file,) = kept(environment)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    cluster.on(NODES, reply({"items": [{"metadata": {"name": "new"}}]}))
    assert tab("find-affected ") == ["knode1", "knode2", "other"]
    age(file, completing.FRESH + 1)
    assert tab("find-affected ") == ["new"]


def age(file: Path, seconds: float) -> None:
    held = json.loads(file.read_text())
    file.write_text(json.dumps(held | {"asked": held["asked"] - seconds, "known": held["known"] - seconds}))


def test_while_the_cluster_does_not_answer_old_names_are_offered_for_a_day(
    cluster: Server, tab: Tab, environment: dict[str, str]
) -> None:
    tab("find-affected ")
    (file,) = kept(environment)
    cluster.on(NODES, reset)
    age(file, completing.FRESH + 1)
    assert tab("find-affected kn") == ["knode1", "knode2"]
    asked = len(cluster.requests)
    assert tab("find-affected kn") == ["knode1", "knode2"]
    assert len(cluster.requests) == asked  # that it failed is kept too
    age(file, completing.OUTDATED)
    assert tab("find-affected kn") == []


def test_another_cluster_user_or_kubeconfig_has_other_names(cluster: Server, kubeconfig: Kubeconfig, tab: Tab) -> None:
    tab("find-affected ")
    cluster.on(NODES, reply({"items": [{"metadata": {"name": "seen-by-jane"}}]}))
    assert tab("find-affected --as jane ") == ["seen-by-jane"]
    assert tab("--as jane find-affected ") == ["seen-by-jane"]
    assert tab("find-affected ", KDNSCTL_AS="jane") == ["seen-by-jane"]
    assert [request.header("Impersonate-User") for request in cluster.requests] == [None, "jane"]
    kubeconfig(cluster.url, {"token": "another"})
    assert tab("find-affected ") == ["seen-by-jane"]
    assert cluster.requests[-1].header("Authorization") == "Bearer another"


def test_a_context_that_is_not_there_offers_nothing(cluster: Server, tab: Tab) -> None:
    assert tab("find-affected --context there ") == []
    assert cluster.requests == []


@pytest.mark.parametrize(
    "answer",
    [FORBIDDEN, status(500, "InternalError", "x"), reply(b"<html>"), reset],
    ids=["forbidden", "failed", "nonsense", "reset"],
)
def test_what_goes_wrong_is_not_said(cluster: Server, tab: Tab, answer: Answer) -> None:
    cluster.on(NODES, answer)
    assert tab("find-affected ") == []


def test_a_server_that_hangs_is_given_up(
    kubeconfig: Kubeconfig, tab: Tab, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LIMIT <= 3
    monkeypatch.setattr(completing, "LIMIT", 0.3)
    kubeconfig(f"https://127.0.0.1:{silent_port}")
    assert tab("find-affected ") == []


def test_without_a_kubeconfig_or_with_a_broken_one_nothing_is_offered(tab: Tab, environment: dict[str, str]) -> None:
    assert tab("find-affected ") == []
    config = Path(environment["HOME"]) / ".kube" / "config"
    config.parent.mkdir()
    config.write_text("{")
    assert tab("find-affected ") == []
    assert tab("find-affected --context ") == []


def test_a_cache_that_cannot_be_written_or_read_is_done_without(
    cluster: Server, tab: Tab, environment: dict[str, str]
) -> None:
    tab("find-affected ")
    (file,) = kept(environment)
    for broken in (b"", b"[]", b'{"asked": "x", "known": 1, "names": []}', b"\xff"):
        file.write_bytes(broken)
        assert tab("find-affected kn") == ["knode1", "knode2"]
    assert len(cluster.requests) == 5
    blocked = Path(environment["HOME"]) / "file"
    blocked.write_text("")
    assert tab("find-affected kn", XDG_CACHE_HOME=str(blocked)) == ["knode1", "knode2"]


@pytest.mark.usefixtures("cluster")
def test_the_cache_does_not_grow_without_end(tab: Tab, environment: dict[str, str]) -> None:
    tab("find-affected ")
    (file,) = kept(environment)
    for number in range(completing.MOST_FILES + 5):
        other = file.with_name(f"{number}.json")
        other.write_text("{}")
        os.utime(other, (number, number))
    tab("find-affected --as jane ")
    left = kept(environment)
    assert len(left) == completing.MOST_FILES
    assert file in left


def test_a_credential_plug_in_that_asks_is_not_asked(
    api: Server, kubeconfig: Kubeconfig, tab: Tab, tmp_path: Path
) -> None:
    plugin = tmp_path / "sign-in"
    plugin.write_text("#!/bin/sh\necho 'who are you?' >&2\nexit 1\n")
    plugin.chmod(0o755)
    version = "client.authentication.k8s.io/v1"
    kubeconfig(api.url, {"exec": {"apiVersion": version, "command": str(plugin), "interactiveMode": "IfAvailable"}})
    assert tab("find-affected ") == []
    assert api.requests == []


def test_words_that_are_paths_are_the_shells(cluster: Server, tab: Tab) -> None:
    assert tab("find-affected --logs logs ") == []
    assert cluster.requests == []


def test_contexts_clusters_and_users_come_from_the_kubeconfig_alone(cluster: Server, tab: Tab) -> None:
    assert tab("find-affected --context ") == ["here"]
    assert tab("--context h") == ["here"]
    assert tab("doctor --cluster ") == ["c"]
    assert tab("doctor --user ") == ["u"]
    assert tab("doctor --context x") == []
    assert cluster.requests == []


@pytest.mark.usefixtures("cluster")
def test_names_that_are_kept_cost_nothing_heavy(tab: Tab, environment: dict[str, str]) -> None:
    tab("find-affected ")
    ran = pressed_in_a_process(environment)
    assert ran.stdout.split() == ["knode1", "knode2"]
    assert set(ran.stderr.split()) & (HEAVY | {"rich", "urllib3", "ssl"}) == set()


@pytest.mark.usefixtures("cluster")
def test_names_that_are_asked_for_do_not_need_the_kubernetes_package(environment: dict[str, str]) -> None:
    ran = pressed_in_a_process(environment)
    assert ran.stdout.split() == ["knode1", "knode2"]
    assert set(ran.stderr.split()) & {"kubernetes", "rich", "pydantic", "aiohttp"} == set()


@pytest.mark.usefixtures("cluster")
def test_bashs_own_script_offers_the_nodes_live_and_then_from_the_cache(
    cluster: Server, environment: dict[str, str], tmp_path: Path
) -> None:
    command = tmp_path / "bin" / "kdnsctl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m kdnsctl "$@"\n')
    command.chmod(0o755)
    script = (
        "source <(kdnsctl completion bash); COMP_WORDS=(kdnsctl find-affected kn); COMP_CWORD=2; "
        '_kdnsctl_completion kdnsctl; echo "${COMPREPLY[@]}"'
    )
    around = environment | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def press() -> tuple[str, str]:
        pressed = subprocess.run(
            ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, env=around
        )
        return pressed.stdout, pressed.stderr

    assert press() == ("knode1 knode2\n", "")
    asked = len(cluster.requests)
    assert asked == 1
    assert press() == ("knode1 knode2\n", "")
    assert len(cluster.requests) == asked


@pytest.mark.usefixtures("cluster", "at_home")
def test_kubectl_is_told_candidates_and_that_files_are_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["kubectl_complete-kdns", *words])
        assert complete_for_kubectl() == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    assert press("find-affected", "kn") == "knode1\nknode2\n:4\n"
    assert press("find-aff").startswith("find-affected\tTell which nodes")
    assert press("find-affected", "--logs", "/e") == ":0\n"
    assert press("") != ":0\n"
