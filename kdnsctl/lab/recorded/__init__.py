"""A lab for machines that cannot run one: the same API with five nodes whose state is played from recordings.

What is played, and where each piece was recorded, is in `data/README.md`. Nothing can be broken or healed here, no
command runs, and no root, namespace or tool is needed. `cluster` fills the API's store, `playback` answers for the
nodes, `process` serves both; this module is its life seen from outside, next to `space`.
"""

from __future__ import annotations

from pathlib import Path

from kdnsctl.lab import space
from kdnsctl.lab.spacedir import LabError, create, lab_dir, read_identity

BROKEN_NODE = "knode2"


def up(name: str, *, root: Path | None = None, port: int = 0, timeout: float = 30.0) -> space.Status:
    """Serve the recordings and return when the API answers. Raises LabError; what failed is removed."""
    where = lab_dir(name, root)
    create(where)
    try:
        space.start_process(where, "kdnsctl.lab.recorded.process", {}, port=port, timeout=timeout)
    except BaseException:
        space.down(name, root=root)
        raise
    return space.status(name, root=root)


def refuse(name: str, what: str, *, root: Path | None = None) -> None:
    """Raise LabError when lab `name` plays recordings and so cannot be `what` (broken, healed)."""
    identity = read_identity(lab_dir(name, root))
    if identity is not None and identity.recorded:
        raise LabError(
            f"the lab {name!r} plays recordings and cannot be {what}: {BROKEN_NODE} is broken, and stays so. "
            "Nothing was changed"
        )
