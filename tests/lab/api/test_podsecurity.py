from __future__ import annotations

from typing import Any

import pytest

from kdnsctl.lab.podsecurity import violations

HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(security: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "i", "securityContext": security or {}}], **fields}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (spec(), []),
        (spec(hostNetwork=True, hostPID=True), ["host namespaces (hostNetwork=true, hostPID=true)"]),
        (spec({"privileged": True}), ['privileged (container "c" must not set securityContext.privileged=true)']),
        (
            spec({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}),
            [
                (
                    'non-default capabilities (container "c" must not include "NET_ADMIN" '
                    "in securityContext.capabilities.add)"
                )
            ],
        ),
        (spec(volumes=[{"name": "h", "hostPath": {"path": "/"}}]), ['hostPath volumes (volume "h")']),
        (
            {"containers": [{"name": "c", "ports": [{"containerPort": 53, "hostPort": 53}]}]},
            ['hostPort (container "c" uses hostPort 53)'],
        ),
    ],
)
def test_baseline(pod: dict[str, Any], expected: list[str]) -> None:
    assert violations("baseline", pod) == expected
    assert violations("privileged", pod) == []


def test_restricted_lets_only_hardened_pods_pass() -> None:
    assert violations("restricted", spec(HARDENED)) == []
    found = violations("restricted", spec())
    assert [text.partition(" (")[0] for text in found] == [
        "allowPrivilegeEscalation != false",
        "unrestricted capabilities",
        "runAsNonRoot != true",
        "seccompProfile",
    ]


@pytest.mark.parametrize("left_out", sorted(HARDENED))
def test_each_part_of_the_hardening_counts(left_out: str) -> None:
    security = {key: value for key, value in HARDENED.items() if key != left_out}
    assert len(violations("restricted", spec(security))) == 1


def test_restricted_knows_volume_types_and_the_one_capability() -> None:
    volumes = [{"name": "h", "hostPath": {"path": "/"}}]
    assert violations("restricted", spec(HARDENED, volumes=volumes)) == [
        'restricted volume types (volume "h" uses restricted volume type "hostPath")'
    ]
    binding = HARDENED | {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    assert violations("restricted", spec(binding)) == []
    raw = HARDENED | {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}
    assert len(violations("restricted", spec(raw))) == 1


@pytest.mark.parametrize(
    ("pod", "begins"),
    [
        (spec({"seccompProfile": {"type": "Unconfined"}}), "seccompProfile"),
        (spec(securityContext={"seccompProfile": {"type": "Unconfined"}}), "seccompProfile"),
        (spec(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}), "forbidden sysctls (kernel.msgmax)"),
        (spec({"procMount": "Unmasked"}), "procMount"),
        (spec({"appArmorProfile": {"type": "Unconfined"}}), "forbidden AppArmor profile"),
        (spec({"seLinuxOptions": {"type": "spc_t"}}), "seLinuxOptions"),
        (spec(securityContext={"seLinuxOptions": {"user": "root"}}), "seLinuxOptions"),
        ({"containers": [{"name": "c", "readinessProbe": {"httpGet": {"host": "1.2.3.4"}}}]}, "probe or lifecycle"),
    ],
)
def test_baseline_guards_the_node(pod: dict[str, Any], begins: str) -> None:
    (found,) = violations("baseline", pod)
    assert found.startswith(begins)
    assert any(text.startswith(begins) for text in violations("restricted", pod))


def test_what_is_safe_passes_baseline() -> None:
    safe = {"procMount": "Default", "seLinuxOptions": {"type": "container_t"}, "seccompProfile": {"type": "Localhost"}}
    assert violations("baseline", spec(safe, securityContext={"sysctls": [{"name": "net.ipv4.tcp_rmem"}]})) == []


def test_restricted_takes_no_root() -> None:
    assert violations("restricted", spec(HARDENED | {"runAsUser": 0})) == [
        'runAsUser=0 (container "c" must not set runAsUser=0)'
    ]
    assert violations("restricted", spec(HARDENED, securityContext={"runAsUser": 0})) == [
        "runAsUser=0 (pod must not set runAsUser=0)"
    ]
    assert violations("baseline", spec({"runAsUser": 0})) == []
    assert violations("restricted", spec(HARDENED | {"runAsUser": 1000})) == []
