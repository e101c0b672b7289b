"""`kdnsctl lab break` and `kdnsctl lab heal`: a mode and a node in, what came of it out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdnsctl.cli import values
from kdnsctl.cli.lab.shared import (
    DEFAULT_NAME,
    Mode,
    Name,
    complete_node,
    contained,
    interruptible,
    kube_proxy_logs,
    named,
    need_packages,
    say,
    say_filled,
)
from kdnsctl.cli.options import Answer, Common, Form
from kdnsctl.model import API_VERSION

if TYPE_CHECKING:
    from kdnsctl.lab.incident import Incident

WHAT_HAPPENED = {
    Mode.DELETE_FAILS: (
        "CoreDNS was replaced, and kube-proxy failed to delete the entries that lead to the old pods.",
        "Clients that keep their source port get no answer, those with fresh ports do. kube-proxy has logged it.",
    ),
    Mode.DOWN: (
        "CoreDNS was replaced while kube-proxy was stopped; it still is.",
        "Clients get no answer, whatever their port. kube-proxy has logged nothing.",
    ),
    Mode.RESTORE_FAILS: (
        "A CoreDNS pod was replaced, and kube-proxy fails to write its rules.",
        (
            "Clients that keep their source port get no answer, a share of those with fresh ports neither. "
            "kube-proxy has logged it."
        ),
    ),
}

BreakMode = Annotated[
    Mode,
    typer.Option(
        "--mode",
        help="How: conntrack -D fails; kube-proxy is down; iptables-restore fails. Always while CoreDNS is replaced.",
        case_sensitive=False,
    ),
]


def break_dns(
    common: Common,  # noqa: ARG001
    answer: Answer,
    name: Name = DEFAULT_NAME,
    mode: BreakMode = Mode.DELETE_FAILS,
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            metavar="NODE",
            parser=values.node,
            autocompletion=complete_node,
            help="Which node. Default: the second.",
        ),
    ] = None,
) -> int:
    """Make DNS fail on one node of a lab.

    Examples:
      # kube-proxy cannot delete entries: held ports are dead, fresh ones answer
      kdnsctl lab break
      # kube-proxy is down: nothing answers, nothing is logged
      kdnsctl lab break --mode down --node knode3
      # kube-proxy cannot write its rules
      kdnsctl lab break --mode restore-fails

    It returns when the clients on the node see the failure, and all others are well. 'kdnsctl lab heal' undoes it.
    """
    need_packages()

    from kdnsctl.lab import incident, recorded, space  # noqa: PLC0415
    from kdnsctl.lab.network import DNS_ADDRESS  # noqa: PLC0415

    with (
        contained(),
        interruptible(name, leaves=f"the lab may be half broken; undo with: kdnsctl lab heal{named(name)}"),
    ):
        recorded.refuse(name, "broken")
        made = incident.break_dns(incident.Mode(mode.value), name=name, node=node)
    if answer.output is not Form.TABLE:
        from kdnsctl.cli import output  # noqa: PLC0415

        output.document({"apiVersion": API_VERSION, "kind": "LabIncident", **to_json(made)}, answer.format)
        return 0
    root = space.status(name).directory
    say_filled(
        f"DNS is broken on {made.node} ({made.mode}). {WHAT_HAPPENED[mode][0]}",
        WHAT_HAPPENED[mode][1],
        f"Gone: {', '.join(made.dead)}",
        "See it:",
        f"  kdnsctl lab status{named(name)}",
        f"  kdnsctl find-affected --logs {kube_proxy_logs(root)}",
        f"  kdnsctl lab shell{named(name)} --node {made.node} -- conntrack -L -p udp --orig-dst {DNS_ADDRESS}",
        "Undo it:",
        f"  kdnsctl lab heal{named(name)}",
    )
    return 0


def to_json(made: Incident) -> dict[str, Any]:
    """The incident as plain data, in its documented names (docs/schemas/LabIncident.schema.json)."""
    data = dataclasses.asdict(made)
    return {
        "mode": data["mode"],
        "node": data["node"],
        "began": data["began"],
        "deadEndpoints": list(data["dead"]),
        "kubeProxyPod": data["kube_proxy"],
    }


def heal(common: Common, name: Name = DEFAULT_NAME) -> int:  # noqa: ARG001
    """Undo what break did, and wait until DNS answers.

    Examples:
      kdnsctl lab heal

    Faults are lifted, and kube-proxy's pod is replaced where it would not catch up by itself; the log of the old pod
    goes with it, as on a real node.
    """
    need_packages()

    from kdnsctl.lab import incident, recorded  # noqa: PLC0415

    with (
        contained(),
        interruptible(name, leaves=f"the lab may be half healed; run it again: kdnsctl lab heal{named(name)}"),
    ):
        recorded.refuse(name, "healed")
        healed = incident.heal(name=name)
    if healed is None:
        say(f"nothing is broken in the lab '{name}'")
    else:
        say(f"{healed.node} is healed ({healed.mode}): DNS answers on every node of the lab '{name}'")
    return 0
