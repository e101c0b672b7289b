"""The same nodes drained by a stock kubectl 1.36 and by ours: the same pods go, and the same nodes are refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.drain.cases import ALL, Case
from tests.lab.drain.cluster import NODE, lab, working
from tests.lab.kubectl import Kubectl, obtain


@dataclass(frozen=True)
class Outcome:
    gone: frozenset[str]
    done: bool
    said: str


def by_kubectl(case: Case, directory: Path) -> Outcome:
    with lab(directory) as made:
        case.set_up(made)
        before = made.on()
        with working(made):
            kubectl = Kubectl(made.kubeconfig, directory)
            result = kubectl.run("drain", NODE, *case.arguments, check=False)
        gone = frozenset(name for uid, name in before.items() if uid not in made.on())
    return Outcome(gone, result.returncode == 0, result.stderr.decode())


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    """kubectl on every case, four at a time: most of its time it sleeps."""
    root = tmp_path_factory.mktemp("kubectl")
    obtain()
    with ThreadPoolExecutor(4) as pool:
        yield {case.name: pool.submit(by_kubectl, case, root / str(number)) for number, case in enumerate(ALL)}


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_the_same_pods_go(case: Case, stock: dict[str, Future[Outcome]], tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        case.set_up(made)
        before = made.on()
        with working(made):
            [result] = made.drain(case.options)
        gone = frozenset(name for uid, name in before.items() if uid not in made.on())
    theirs = stock[case.name].result()
    assert (gone, result.drained) == (theirs.gone, theirs.done), (theirs.said, result)
    assert case.refused in result.refusal
    assert case.refused in theirs.said
    assert bool(result.refusal) == bool(case.refused)
    if not case.refused:
        assert [pod for pod in result.pods if pod.reason] == []


def test_the_table_is_no_smaller_than_was_asked_for() -> None:
    assert len(ALL) >= 25
    assert sum(1 for case in ALL if case.refused) >= 5
