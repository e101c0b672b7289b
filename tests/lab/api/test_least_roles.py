"""Each command with exactly the Roles that `kdnsctl rbac COMMAND` prints, and with each rule of them less.

On the recorded cluster: the API is real, nodes are played, knode2 is the one whose entries and rules are stale. The
user is impersonated, as an administrator would try it. tests/lab/test_quarantine.py does it for a drain in the kernel.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from kdnsctl.access import Permission
from kdnsctl.access.roles import bindings, roles
from kdnsctl.cli import app
from kdnsctl.cli.commands import named_object
from kdnsctl.lab import kinds
from kdnsctl.lab.api.access import Rule
from kdnsctl.lab.api.server import ApiServer, listen
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.recorded import cluster
from kdnsctl.lab.recorded.playback import Playback
from kdnsctl.lab.store import Store
from tests.lab.conftest import Kdnsctl, Ran

JANE: Final = ("--as", "jane")
NODE: Final = "knode2"
OURS: Final = {"app.kubernetes.io/managed-by": "kdnsctl", "kdnsctl.io/run": "20261123-030000-abcdef"}


@dataclass(frozen=True)
class Case:
    """One way to call a command. `missed` are the permissions without which it says so; the rest is another case's."""

    command: str
    words: tuple[str, ...]
    code: int
    granting: tuple[str, ...] = ()  # options of rbac
    before: Callable[[Kdnsctl, Store], object] = lambda _kdnsctl, _store: None
    missed: tuple[str, ...] = ()
    whole: bool = True  # whether it can be run to its end here
    codes: tuple[int, ...] = field(default=(1, 4, 5))  # without a permission


def contained(kdnsctl: Kdnsctl, _: Store) -> None:
    assert kdnsctl("quarantine", NODE, "--yes", "--no-collect", "--no-drain", "--incident", "before").code == 0


def left_pod(_: Kdnsctl, store: Store) -> None:
    meta = {"name": "kdnsctl-left", "namespace": "kube-system", "labels": OURS}
    spec = {"nodeName": NODE, "containers": [{"name": "tools", "image": "tools:1"}]}
    made = store.create(kinds.PODS, {"metadata": meta, "spec": spec})
    store.update(kinds.PODS, {**made, "status": {"phase": "Failed"}}, subresource="status")


PROXY: Final = ("list nodes", "list pods in kube-system")
TRUTH: Final = ("list services", "list endpointslices.discovery.k8s.io")
EXEC: Final = ("get pods/exec in kube-system", "create pods/exec in kube-system")
CHANGE: Final = ("get nodes", "patch nodes", "get namespaces kube-system")
SETTLE: Final = ("--settle", "1s")
CAPTURE: Final = ("--via", "exec")
CASES: Final = [
    Case("find-affected", ("find-affected",), 4, missed=(*PROXY, "get pods/log in kube-system"), codes=(4,)),
    Case(
        "find-affected",
        ("find-affected", "--live", *SETTLE),
        3,
        ("--with-live",),
        missed=(*PROXY, *TRUTH, *EXEC, "get services"),
        codes=(3, 4),
    ),
    Case("analyze", ("analyze", NODE, *SETTLE), 3, missed=(*PROXY, *TRUTH, *EXEC), codes=(1, 3, 4)),
    Case(
        "analyze",
        ("analyze", NODE, *SETTLE, "--service", "kube-system/kube-dns"),
        3,
        missed=("get services",),
    ),
    Case(
        "collect",
        ("collect", NODE, "-O", "evidence", "--no-archive", "--item", "conntrack.a", *CAPTURE),
        0,
        missed=(*PROXY, *TRUTH, *EXEC),
    ),
    # What it measures is not on loopback: without a permission it ends before.
    Case("probe", ("probe",), 0, missed=("list services", "list endpointslices.discovery.k8s.io"), whole=False),
    Case(
        "quarantine",
        ("quarantine", NODE, "--yes", *CAPTURE),
        0,
        missed=(
            *CHANGE,
            *PROXY,
            *TRUTH,
            *EXEC,
            "list pods",
            "list daemonsets.apps",
            "get pods",
            "create pods/eviction",
        ),
    ),
    Case("status", ("status",), 0, missed=("list nodes",)),
    # It is still affected: refused with a Role, and without it.
    Case("release", ("release", NODE, "--yes"), 5, before=contained, missed=(*CHANGE, *PROXY, *TRUTH, *EXEC)),
    Case("incident", ("incident", "undo", "before", "--yes"), 0, before=contained, missed=CHANGE),
    # Its rules lead to dead endpoints, so nothing is flushed.
    Case("flush", ("flush", NODE, "--yes", *SETTLE), 5, missed=(*PROXY, *TRUTH, *EXEC, "get services")),
    Case(
        "repair",
        ("repair", "restart-kube-proxy", NODE, "--yes", "--no-collect", "--timeout", "1s"),
        1,  # there is nobody here who would make a new kube-proxy
        missed=("list pods in kube-system", "get namespaces kube-system", "delete pods in kube-system"),
    ),
    Case(
        "cleanup",
        ("cleanup", "--yes"),
        0,
        ("--with-pods",),
        left_pod,
        ("list pods", "delete pods in kube-system", "list leases.coordination.k8s.io in kube-system"),
    ),
    Case("verbosity", ("verbosity", "show"), 0, missed=PROXY),
    Case("verbosity", ("verbosity", "raise", NODE, "--no-restart", "--yes"), 5, missed=CHANGE),
]


@dataclass
class Lab:
    """A recorded cluster of its own for one run."""

    server: ApiServer
    store: Store
    kdnsctl: Kdnsctl

    def allow(self, manifests: Iterable[dict[str, Any]]) -> None:
        """Grant what roles allow to the users that they are bound to, as RBAC would."""
        for one in manifests:
            namespace = one["metadata"].get("namespace")
            for rule in one.get("rules", ()):
                self.server.policy.grant_user(
                    "jane",
                    Rule(
                        tuple(rule["verbs"]),
                        tuple(rule["apiGroups"]),
                        tuple(rule["resources"]),
                        tuple(rule.get("resourceNames", ())),
                        (namespace,) if namespace else (),
                    ),
                )


Labs = Callable[[], "contextlib.AbstractContextManager[Lab]"]


@pytest.fixture
def labs(kdnsctl: Kdnsctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labs:
    @contextlib.contextmanager
    def lab() -> Iterator[Lab]:
        store = new_store()
        cluster.fill(store)
        pods = store.select(kinds.PODS, "kube-system")
        places = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods}
        logs = {name: cluster.DATA / node / "kube-proxy.log" for name, node in places.items() if "proxy" in name}
        shutil.rmtree(tmp_path, ignore_errors=True)
        tmp_path.mkdir()
        with ApiServer(store, Playback(places, logs), [listen()], bookmark_seconds=3600) as server:
            config = tmp_path / "kubeconfig"
            config.write_text(server.kubeconfig(), encoding="utf-8")
            monkeypatch.setenv("KUBECONFIG", str(config))
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
            monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
            monkeypatch.chdir(tmp_path)
            yield Lab(server, store, kdnsctl)

    return lab


def said(ran: Ran) -> str:
    return ran.out + ran.err


def of_words(case: Case) -> str:
    return " ".join(word for word in case.words if word not in ("1s", "--settle", "--yes"))


@pytest.mark.parametrize("case", [case for case in CASES if case.whole], ids=of_words)
def test_with_exactly_its_role_a_command_does_its_work_and_nothing_is_refused(labs: Labs, case: Case) -> None:
    with labs() as lab:
        case.before(lab.kdnsctl, lab.store)
        printed = lab.kdnsctl("rbac", case.command, "--bind-to", "user:jane", *case.granting)
        assert printed.code == 0, printed.err
        lab.allow(yaml.safe_load_all(printed.out))
        ran = lab.kdnsctl(*case.words, *JANE)
        assert ran.code == case.code, said(ran)
        assert not re.search(r"forbidden|not allowed|HTTP 403", said(ran)), said(ran)


def permissions_of(case: Case) -> list[Permission]:
    needs = named_object(app.COMMANDS[case.command].needs)
    options = {"--with-live": "--live", "--with-pods": "--via pod"}
    extra = [one for option in case.granting for one in needs.with_option[options[option]]]
    return list(dict.fromkeys((*needs.needed, *needs.helpful, *extra)))


@pytest.mark.parametrize(
    ("case", "missing"),
    [
        pytest.param(case, missing, id=f"{of_words(case)}-{missing}".replace(" ", "_"))
        for case in CASES
        for missing in case.missed
    ],
)
def test_with_one_rule_less_it_names_the_rule_and_who_prints_the_role(labs: Labs, case: Case, missing: str) -> None:
    known = permissions_of(case)
    lacking = next(one for one in known if str(one) == missing)

    def covers(one: Permission) -> bool:
        """Whether granting `one` would grant what is to be missing."""
        return (one.verb, one.group, one.resource_path) == (lacking.verb, lacking.group, lacking.resource_path) and (
            one.namespace in (None, lacking.namespace) or lacking.namespace is None
        )

    less = roles([one for one in known if not covers(one)], "less")
    with labs() as lab:
        case.before(lab.kdnsctl, lab.store)
        before = lab.store.select(kinds.NODES)
        lab.allow([*less, *bindings(less, [])])
        ran = lab.kdnsctl(*case.words, *JANE)
        assert ran.code in case.codes, said(ran)
        assert "Traceback" not in ran.err
        text = said(ran)
        named = rf"{lacking.verb} (resource )?\"?{re.escape(lacking.resource.rstrip('s'))}"
        assert re.search(named, text), text
        assert f"`kdnsctl rbac {case.command}" in text, text
        if ran.code == 5:
            assert lab.store.select(kinds.NODES) == before  # refused: nothing was changed


def test_every_command_that_asks_a_cluster_is_tried() -> None:
    asking = {name for name, entry in app.COMMANDS.items() if entry.needs}
    assert {case.command for case in CASES} == asking


@pytest.mark.parametrize("case", CASES, ids=of_words)
def test_every_needed_permission_is_missed_or_known_to_be_done_without(case: Case) -> None:
    needs = named_object(app.COMMANDS[case.command].needs)
    known = {str(one) for one in needs.needed}
    tried = {missing for one in CASES if one.command == case.command for missing in one.missed}
    assert known - tried <= DONE_WITHOUT.get(case.command, set())


# Listed as needed, and done without in what is run here; or met by the code of another command, which is tried with it.
DONE_WITHOUT: Final = {
    "quarantine": {"watch pods"},  # a drain that waits notices later
    "release": {"get services"},  # of Services that are named, which release has no option for
    # Restarting judges afterwards by them; here no new kube-proxy comes that could be judged.
    "repair": {*TRUTH, *EXEC, "get services", "watch pods in kube-system", "list nodes"},
    "flush": {"get namespaces kube-system"},  # nothing is flushed here
    "verbosity": {"get pods/portforward in kube-system", "create pods/portforward in kube-system"},  # played nodes
}


def test_who_names_a_node_and_may_not_list_them_touches_no_other(labs: Labs) -> None:
    with labs() as lab:
        needs = named_object(app.COMMANDS["repair"].needs)
        granted = [one for one in (*needs.needed, *needs.helpful) if str(one) != "list nodes"]
        lab.allow(roles(granted, "less"))
        ran = lab.kdnsctl("repair", "restart-kube-proxy", NODE, "--dry-run=client", "-o", "yaml", *JANE)
        assert ran.code in (0, 4), said(ran)
        assert [node["name"] for node in yaml.safe_load(ran.out)["nodes"]] == [NODE]
        ran = lab.kdnsctl("collect", NODE, "-O", "one", "--no-archive", "--item", "conntrack.a", *CAPTURE, *JANE)
        assert ran.code == 4, said(ran)
        assert [path.name for path in Path("one/nodes").iterdir()] == [NODE]
