"""The lab's own socket answers what makes no sense, too."""

from __future__ import annotations

import pytest

from kdnsctl.lab import control
from kdnsctl.lab.spacedir import LabDir, LabError


@pytest.mark.parametrize(
    "request_", [{"op": ["x"]}, {"op": "run", "node": "knode1", "argv": 5}, {"op": "node-pid", "node": {}}]
)
def test_a_request_of_the_wrong_types_gets_an_error(lab: LabDir, request_: dict[str, object]) -> None:
    with pytest.raises(LabError, match=r"unhashable|iterable"):
        control.ask(lab, request_)
