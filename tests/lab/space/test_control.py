"""The lab's own socket answers what makes no sense, too, and its end is told as what it is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnsctl.lab import control, relay
from kdnsctl.lab.spacedir import LabDir, LabError


@pytest.mark.parametrize(
    "request_", [{"op": ["x"]}, {"op": "run", "node": "knode1", "argv": 5}, {"op": "node-pid", "node": {}}]
)
def test_a_request_of_the_wrong_types_gets_an_error(lab: LabDir, request_: dict[str, object]) -> None:
    with pytest.raises(LabError, match=r"unhashable|iterable"):
        control.ask(lab, request_)


def hang_up(link: socket.socket) -> None:
    link.close()


def break_off(link: socket.socket) -> None:
    link.recv(4096)
    link.sendall(b'{"server": "https:')
    link.close()


@pytest.fixture(params=[hang_up, break_off])
def dying(request: pytest.FixtureRequest, tmp_path: Path) -> LabDir:
    """A lab that ends while it is asked something."""
    where = LabDir(tmp_path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(where.control_socket))
    listener.listen()
    end: Callable[[socket.socket], None] = request.param

    def answer() -> None:
        with listener:
            end(listener.accept()[0])

    threading.Thread(target=answer).start()
    return where


def test_a_lab_that_ends_meanwhile_is_an_error_of_the_lab(dying: LabDir) -> None:
    with pytest.raises(LabError, match=r"ended while it was asked for 'status'|gave no answer to 'status'"):
        control.ask(dying, {"op": "status"})


def test_a_lab_that_ends_meanwhile_is_one_line_for_ssh(dying: LabDir, capfd: pytest.CaptureFixture[str]) -> None:
    assert relay.main([str(dying.root), "10.88.0.11", "22"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "ended" in line
