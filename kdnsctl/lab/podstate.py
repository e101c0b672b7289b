"""What is known of one container of a pod, from before its first start to after its last. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdnsctl.lab.container import Launch
from kdnsctl.lab.kubeclient import JSON
from kdnsctl.lab.podlogs import ContainerLog


@dataclass(slots=True)
class ContainerState:
    """One container of the pod. Written by the worker only; readers take what they see."""

    spec: JSON
    is_init: bool = False
    pid: int | None = None
    """First process, as the node counts; None when nothing runs."""
    container_id: str = ""
    attempt: int = -1
    launch: Launch | None = None
    root: Path | None = None
    log: ContainerLog | None = None
    previous_log: ContainerLog | None = None
    started_at: str = ""
    started_clock: float = 0.0
    waiting: tuple[str, str] = ("ContainerCreating", "")
    terminated: JSON | None = None
    last_terminated: JSON | None = None
    ready: bool = False
    successes: int = 0
    failures: int = 0
    restart_at: float | None = None
    backoff: float = 0.0
    next_probe: float = 0.0

    @property
    def name(self) -> str:
        return str(self.spec["name"])
