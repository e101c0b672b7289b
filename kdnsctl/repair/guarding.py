"""A DaemonSet whose command line is raised is watched: the work within ends as soon as it is not as it was left.

Who sets the update strategy back while the command line is raised has every kube-proxy restarted, so it must be noticed
in seconds, and not at the next step. What is done then is known to `raising`. Nothing is changed here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import proxies
from kdnsctl.changes.proxies import ON_DELETE, line_of, strategy_of
from kdnsctl.changes.raised import RaisedTemplate
from kdnsctl.changes.verbs import DriftError
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import Change, watch
from kdnsctl.model import KdnsctlError, Reason

if TYPE_CHECKING:
    from kdnsctl.repair.raiseplan import Template

DRIFT: Final = DriftError.code
OVER: Final = Reason("over", "nothing is watched any more")


def drifted(found: Mapping[str, Any], record: RaisedTemplate) -> str:
    """Why a DaemonSet is not as it was left when it was raised; "" when it is."""
    strategy = strategy_of(found).get("type")
    if strategy != ON_DELETE:
        return f"the update strategy is {strategy} again: somebody else looks after this DaemonSet"
    container = next((one for one in proxies.containers_of(found) if one.get("name") == record.container), {})
    return "" if line_of(container) == record.line else "its command line was changed by somebody else"


def drift_of(scope: CancelScope) -> str:
    """Why a guarded scope has ended, if it has by somebody else's change; else ""."""
    return scope.reason.message if scope.reason is not None and scope.reason.code == DRIFT else ""


@contextlib.contextmanager
def guarded(connection: Connection, templates: Sequence[Template], scope: CancelScope) -> Iterator[CancelScope]:
    """A scope for the length of the block that ends, with the code `drift`, when a DaemonSet is not as it was left.

    Where it cannot be watched, it is not noticed here.
    """
    with scope.child() as watching, scope.child() as inner:
        threads = [
            threading.Thread(target=_watch, args=(connection, one, watching, inner), name="daemonset", daemon=True)
            for one in templates
        ]
        for thread in threads:
            thread.start()
        try:
            yield inner
        finally:
            watching.cancel(OVER)
            for thread in threads:
                thread.join(1.0)


def _watch(connection: Connection, template: Template, watching: CancelScope, inner: CancelScope) -> None:
    path, _, name = template.path.rpartition("/")
    try:
        for event in watch(connection, path, dict[str, Any], fields=f"metadata.name={name}", scope=watching):
            gone = event.change is Change.DELETED or (event.change is Change.LISTED and not event.items)
            changes = (drifted(found, template.record) for found in event.items)
            why = "the DaemonSet was deleted" if gone else next(filter(None, changes), "")
            if why:
                inner.cancel(Reason(DRIFT, why))
                return
    except KdnsctlError:
        return  # the block is over; or it may not be watched, and is only looked at between the steps
