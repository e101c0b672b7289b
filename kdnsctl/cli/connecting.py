"""From the connection options of the command line to a connection; shared by the commands that talk to a cluster.

What the options mean is known to `cluster.connection`; here they only change their form.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdnsctl.cancel import CancelScope
from kdnsctl.cli.options import Common, Connection
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.transport import Connection as Connected
from kdnsctl.model import Reporter

REQUEST_TIMEOUT = 30.0  # seconds, as ConnectOptions has it


def connect_options(said: Connection, common: Common, incident: str | None = None) -> ConnectOptions:
    """What `cluster` is asked for; `incident` is named in every request.

    Credential plug-ins may ask the operator only where there is one.
    """
    interactive = not common.no_input and sys.stdin is not None and sys.stdin.isatty()
    return ConnectOptions(
        kubeconfig=_text(said.kubeconfig),
        context=said.context,
        cluster=said.cluster,
        user=said.user,
        server=said.server,
        tls_server_name=said.tls_server_name,
        token_file=_text(said.token_file),
        as_user=said.impersonate,
        as_groups=tuple(said.impersonate_groups),
        as_uid=said.impersonate_uid,
        request_timeout=said.request_timeout.total_seconds() if said.request_timeout else REQUEST_TIMEOUT,
        resolve=dict(host.split("=", 1) for host in said.resolve),
        incident=incident,
        interactive=interactive,
        environment=os.environ,
    )


@contextmanager
def connected(
    said: Connection, common: Common, scope: CancelScope, reporter: Reporter, incident: str | None = None
) -> Iterator[Connected]:
    """A connection for the length of the block. What it has to say (warnings, retries) goes to the reporter."""
    connection = connect(connect_options(said, common, incident), scope, note=reporter.noted)
    try:
        yield connection
    finally:
        connection.close()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
