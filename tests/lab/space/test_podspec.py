"""A pod's spec names paths; none of them leads out of the directories that are the pod's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdnsctl.lab import podspec
from kdnsctl.lab.podspec import PodPlace, SpecError

TOOLS = "kdnsctl.io/lab/tools:1"


@pytest.fixture
def place(tmp_path: Path) -> PodPlace:
    return PodPlace(
        node="knode1", host_ip="10.88.0.11", pod_ip="10.244.1.2", volumes=tmp_path / "pod" / "volumes", rootless=False,
        ca=b"", api_host="10.88.0.1", api_port=6443, token=lambda *_: "token",
        config_map=lambda *_: {"data": {"key": "text"}},
    )  # fmt: skip


def mounts(place: PodPlace, volume: dict[str, Any], **mount: Any) -> list[str]:
    """The sources of what the container would see."""
    container = {
        "name": "main", "image": TOOLS, "command": ["true"],
        "volumeMounts": [{"name": volume["name"], "mountPath": "/v", **mount}],
    }  # fmt: skip
    spec = {"automountServiceAccountToken": False, "volumes": [volume], "containers": [container]}
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}
    return [each.source for each in podspec.launch(pod, container, place, place.volumes / "root").mounts]


def files(place: PodPlace) -> list[str]:
    root = place.volumes.parents[1]
    return sorted(str(each.relative_to(root)) for each in root.rglob("*") if each.is_file())


@pytest.mark.parametrize("name", ["../../out", "/etc/out", "kube-api-access"])
def test_a_volumes_name_is_no_path(place: PodPlace, name: str) -> None:
    assert mounts(place, {"name": name, "emptyDir": {}}) == [str(place.volumes / "0")]


@pytest.mark.parametrize("path", ["../../../out", "/etc/out", "a/../../out"])
def test_items_stay_in_their_volume(place: PodPlace, path: str) -> None:
    volume = {"name": "v", "configMap": {"name": "c", "items": [{"key": "key", "path": path}]}}
    with pytest.raises(SpecError, match="leads out of it; nothing was written") as caught:
        mounts(place, volume)
    assert caught.value.reason == "CreateContainerConfigError"
    assert files(place) == []


def test_an_item_in_a_directory_of_the_volume(place: PodPlace) -> None:
    mounts(place, {"name": "v", "configMap": {"name": "c", "items": [{"key": "key", "path": "a/b"}]}})
    assert files(place) == ["pod/volumes/0/a/b"]


def test_a_link_in_the_volume_leads_items_and_sub_paths_nowhere_else(place: PodPlace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (place.volumes / "0").mkdir(parents=True)
    (place.volumes / "0" / "link").symlink_to(outside)
    inside = place.volumes / "0" / outside.relative_to("/")
    items = [{"key": "key", "path": "link/file"}]
    mounts(place, {"name": "v", "configMap": {"name": "c", "items": items}})
    assert list(outside.iterdir()) == []
    assert (inside / "file").read_text() == "text"
    assert mounts(place, {"name": "v", "emptyDir": {}}, subPath="link") == [str(inside)]


@pytest.mark.parametrize("path", ["..", "/etc", "a/../../b"])
@pytest.mark.parametrize("kind", [{"emptyDir": {}}, {"hostPath": {"path": "/var/log"}}])
def test_a_sub_path_stays_in_its_volume(place: PodPlace, kind: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError, match="leads out of it"):
        mounts(place, {"name": "v", **kind}, subPath=path)


def test_a_host_paths_sub_path(place: PodPlace) -> None:
    assert mounts(place, {"name": "v", "hostPath": {"path": "/var/log"}}, subPath="pods") == ["/var/log/pods"]


def test_a_working_directory_stays_in_the_container(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "away").symlink_to(tmp_path)
    for path in ("../../x", "/../x"):
        assert podspec.inside(root, path, "workingDir") == root / "x"
    assert podspec.inside(root, "/away/x", "workingDir") == root / tmp_path.relative_to("/") / "x"
