"""What the API of a really started lab refuses to store, so that no node has to cope with it."""

from __future__ import annotations

import pytest

from kdnsctl.lab.kubeclient import ApiError, KubeClient

TOOLS = "kdnsctl.io/lab/tools:1"


def test_a_guarded_namespace_takes_no_pod_that_owns_the_node(api: KubeClient) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    api.create("/api/v1/namespaces", {"metadata": {"name": "guarded", "labels": labels}})
    container = {"name": "c", "image": TOOLS, "command": ["sleep", "600"], "securityContext": {"privileged": True}}
    pod = {"metadata": {"name": "intruder"}, "spec": {"hostPID": True, "containers": [container]}}
    for query in ("?dryRun=All", ""):
        with pytest.raises(ApiError, match=r'PodSecurity "baseline:latest": privileged .*hostPID=true') as caught:
            api.create(f"/api/v1/namespaces/guarded/pods{query}", pod)
        assert caught.value.code == 403
    assert api.get("/api/v1/namespaces/guarded/pods")["items"] == []
    api.delete("/api/v1/namespaces/guarded")
