from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cluster import kubeconfig
from kdnsctl.cluster.errors import KubeconfigError
from kdnsctl.model import KdnsctlError, UsageError


def write(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({key.replace("_", "-"): value for key, value in content.items()}))
    return path


def cluster(name: str, server: str) -> dict[str, Any]:
    return {"name": name, "cluster": {"server": server}}


def context(name: str, cluster: str, user: str = "") -> dict[str, Any]:
    return {"name": name, "context": {"cluster": cluster, "user": user}}


def test_the_first_of_several_files_wins_as_in_kubectl(tmp_path: Path) -> None:
    one = write(
        tmp_path / "a" / "config",
        clusters=[cluster("c", "https://first")],
        contexts=[context("prod", "c", "u")],
        current_context="prod",
    )
    two = write(
        tmp_path / "b" / "config",
        clusters=[cluster("c", "https://second"), cluster("d", "https://d")],
        contexts=[context("test", "d")],
        users=[{"name": "u", "user": {"client-certificate": "me.crt"}}],
        current_context="test",
    )
    listed = f"{tmp_path}/missing:{one}:{two}:{one}"
    files, named = kubeconfig.files_of(None, {"KUBECONFIG": listed})
    assert (files, named) == ([one, two], f"KUBECONFIG={listed}")
    chosen = kubeconfig.select(kubeconfig.read(files), None, None, None)
    assert (chosen.context, chosen.cluster.entry.server) == ("prod", "https://first")
    assert chosen.user is not None
    assert chosen.user.path("me.crt") == tmp_path / "b" / "me.crt"  # beside the file that names it
    other = kubeconfig.select(kubeconfig.read(files), "test", None, None)
    assert (other.cluster.name, other.user) == ("d", None)


def test_which_files_are_read(tmp_path: Path) -> None:
    default = write(tmp_path / ".kube" / "config")
    environment = {"HOME": str(tmp_path), "KUBECONFIG": ""}
    assert kubeconfig.files_of(None, environment) == ([default], str(default))
    assert kubeconfig.files_of(None, environment | {"KUBECONFIG": "/no/such"}) == ([], "KUBECONFIG=/no/such")
    explicit = write(tmp_path / "mine")
    assert kubeconfig.files_of(str(explicit), environment | {"KUBECONFIG": "x"})[0] == [explicit]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("clusters: [", "is not YAML: "),
        ("clusters: 7", r"is not as it should be: Expected `array \| null`, got `int` - at `\$.clusters`"),
        (
            "users: [{name: u, user: {token: 7}}]",
            r"Expected `str \| null`, got `int` - at `\$.users\[.*\].user.token`",
        ),
        ("a: &a [*a]", "no context is current"),
        ("", "no context is current"),
        ("- 1", "is not as it should be"),
        ("\x00", "is not YAML"),
        ("0000-0-0T0:00:00", "is not YAML: ValueError"),
        ("!!timestamp x", "is not YAML: AttributeError"),
        ("[" * 5000, "is not YAML"),
        ("current-context: gone", "names the context 'gone', which is not in"),
        ("contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x", "names the cluster 'c', which is not in"),
        ("contexts: [{name: x}]\ncurrent-context: x", "the context names no cluster"),
        (
            "contexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: [{name: c}]\ncurrent-context: x",
            "names the user 'u', which is not in",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(KubeconfigError, match=said) as caught:
        kubeconfig.select(kubeconfig.read([path]), None, None, None)
    assert str(path) in str(caught.value) + caught.value.hint
    assert str(caught.value).isprintable()


def test_what_an_option_names_and_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    names = [cluster(f"c{number:02}", "https://x") for number in range(25)]
    users = [{"name": "u", "user": {}}]
    path = write(tmp_path / "c", clusters=names, users=users, contexts=[context("x", "c00", "u")], current_context="x")
    config = kubeconfig.read([path])
    with pytest.raises(UsageError, match="no cluster 'c' in") as caught:
        kubeconfig.select(config, None, "c", None)
    assert caught.value.hint.endswith("c18, c19 and 5 more")
    with pytest.raises(UsageError, match="no user 'v' in"):
        kubeconfig.select(config, None, None, "v")
    assert kubeconfig.select(config, None, "c01", None).user is not None


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="cannot be read: Is a directory"):
        kubeconfig.read([tmp_path])


@given(st.binary(max_size=200))
def test_any_content_is_read_or_one_clear_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    said = "read"
    try:
        kubeconfig.select(kubeconfig.read([path]), None, None, None)
    except KdnsctlError as error:
        said = str(error)
    assert said.isprintable()
