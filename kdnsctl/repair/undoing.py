"""What taking back an incident needs to be allowed: whatever its steps may be about. Nothing is undone here."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kdnsctl.access.needs import Needs
from kdnsctl.changes import fields, incidents, lock
from kdnsctl.quarantine import holds
from kdnsctl.repair.raiseplan import TEMPLATE_NEEDS

NEEDS: Final = Needs(
    needed=(*fields.NEEDED, *incidents.NEEDED),
    helpful=tuple(
        dict.fromkeys(
            (
                *lock.needed(),
                *holds.HELPFUL,
                *(
                    replace(one, without="a verbosity that was raised by kube-proxy's DaemonSet stays")
                    for one in TEMPLATE_NEEDS
                    if one.resource == "daemonsets"
                ),
            )
        )
    ),
)
