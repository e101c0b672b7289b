"""A connection to a host over SSH, through as many hosts as it takes, and commands over it.

Every host on the way must show a key that is known for it; whoever cannot is not talked to. Nothing waits for longer
than the limits say, whatever the other side does, and the end of the scope ends all of it. What is run, and what its
output means, is not known here.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import paramiko

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import NoConnectionError
from kdnsctl.cluster.network import Dialer, shut
from kdnsctl.model import KdnsctlError
from kdnsctl.reach.hostkeys import HostKeys
from kdnsctl.reach.knownhosts import HostKey, name_of
from kdnsctl.reach.sshconfig import Hop
from kdnsctl.reach.sshlogin import KeyRing, SshError, log_in

# What it logs is raised as well, and said once, by us; without a handler Python prints it to the operator's terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# Bytes on their way before the other side must wait, as OpenSSH has it (channels.h, CHAN_SES_WINDOW_DEFAULT): 20 MB/s
# over a path of 100 ms. What has come and is not compressed yet is held, for each node that is read: no more than this.
WINDOW: Final = 2 * 1024 * 1024
_PIECE: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each step may take, in seconds; `keepalive` is between two signs of life, three missing ends it."""

    connect: float = 10.0
    banner: float = 15.0  # an sshd whose own DNS hangs takes its time
    login: float = 30.0  # so does PAM
    open: float = 15.0
    keepalive: int = 15


class SshConnection:
    """One host, logged in at. Commands can be run one after the other, or at once from several threads."""

    def __init__(self, hop: Hop, transports: Sequence[paramiko.Transport], limits: Limits) -> None:
        self.hop = hop
        self._transports = transports
        self._limits = limits

    @classmethod
    def open(
        cls,
        hops: Sequence[Hop],
        host_keys: HostKeys,
        keys: KeyRing,
        scope: CancelScope,
        *,
        dialer: Dialer | None = None,
        limits: Limits = Limits(),
    ) -> Self:
        """Connect to the last of `hops`, through the others. Raises SshError, or what ended the scope."""
        dialer = dialer or Dialer()
        transports: list[paramiko.Transport] = []
        with contextlib.ExitStack() as on_failure:
            for hop in hops:
                with _said_of(hop, scope):
                    stream = _stream_to(hop, transports, dialer, scope, limits)
                    on_failure.callback(stream.close)
                    transport = _transport(stream, hop, host_keys, scope, limits)
                    on_failure.callback(transport.close)
                    transports.append(transport)
                    with _ending(transport, scope):
                        log_in(transport, hop, keys, limits.login)
                    transport.set_keepalive(limits.keepalive)
            on_failure.pop_all()
        return cls(hops[-1], tuple(transports), limits)

    def run(
        self,
        command: str,
        *,
        stdout: Callable[[bytes], None],
        stderr: Callable[[bytes], None],
        scope: CancelScope,
        stdin: bytes = b"",
        opened: Callable[[], None] = lambda: None,
    ) -> int:
        """Run one line in the user's shell there, and return its exit code. Output goes to the callbacks as it comes.

        `stdin` is all that it can read. `opened` is called when the command has been accepted. Raises SshError with the
        code `cutOff` when the connection ends before the command, what ended the scope, and what a callback raises.
        """
        with _said_of(self.hop, scope):
            channel = self._transports[-1].open_session(window_size=WINDOW, timeout=self._limits.open)
            try:
                with scope.closing(channel.close):
                    channel.exec_command(command)
                    opened()
                    if stdin:
                        channel.sendall(stdin)
                    channel.shutdown_write()
                    return _carry(channel, stdout, stderr, self.hop)
            finally:
                channel.close()

    def close(self) -> None:
        """End it, and the connections that it goes through."""
        for transport in reversed(self._transports):
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stream_to(
    hop: Hop, through: Sequence[paramiko.Transport], dialer: Dialer, scope: CancelScope, limits: Limits
) -> Any:
    """A stream to a host's SSH port: straight, through the last connection, or through a program of the operator's."""
    if hop.proxy_command and not through:
        return _Program(hop.proxy_command)
    if through:
        return through[-1].open_channel(
            "direct-tcpip", (hop.hostname, hop.port), ("127.0.0.1", 0), timeout=limits.connect
        )
    with scope.child(limits.connect) as limit:
        return dialer.dial(hop.hostname, hop.port, limit)


class _Program:
    """The ProxyCommand, as a socket that paramiko reads from. It ends when the socket is closed.

    The line is of the operator's own ssh_config and is run as OpenSSH runs it: by a shell, as `exec LINE`.
    """

    def __init__(self, command: str) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def close(self) -> None:
        shut(self._socket)
        self._socket.close()
        if self._process.poll() is None:
            self._process.terminate()
        # It is not waited for here, in whatever thread this is; a thread of its own keeps it from staying a zombie.
        threading.Thread(target=self._process.wait, name="proxy-command", daemon=True).start()


def _transport(stream: Any, hop: Hop, host_keys: HostKeys, scope: CancelScope, limits: Limits) -> paramiko.Transport:
    """An encrypted connection with a host that has shown a key that is known for it."""
    stream.settimeout(None)  # paramiko's own thread reads; what waits is bounded by banner and handshake
    transport = paramiko.Transport(stream, default_window_size=WINDOW)
    transport.banner_timeout = limits.banner
    transport.handshake_timeout = limits.banner
    name = name_of(hop.name if hop.host_key_alias else hop.hostname, hop.port, hop.host_key_alias)
    options = transport.get_security_options()
    options.key_types = host_keys.preferred(hop, name, tuple(options.key_types))
    with _ending(transport, scope):
        transport.start_client(timeout=limits.banner)
        shown = transport.get_remote_server_key()
        try:
            host_keys.check(hop, name, HostKey(shown.get_name(), shown.asbytes()))
        except BaseException:
            transport.close()
            raise
    return transport


@contextlib.contextmanager
def _ending(transport: Any, scope: CancelScope) -> Iterator[None]:
    """The end of the scope closes the transport's stream: its threads, and whoever waits for them, notice at once."""

    def end() -> None:
        transport.active = False
        with contextlib.suppress(OSError):
            transport.sock.close()

    with scope.closing(end):
        yield


def _carry(
    channel: paramiko.Channel, stdout: Callable[[bytes], None], stderr: Callable[[bytes], None], hop: Hop
) -> int:
    """Hand over both outputs until they end. They come at the same time, so the second has a thread of its own."""
    errors = threading.Thread(target=_pump, args=(channel.recv_stderr, stderr), name="ssh-stderr", daemon=True)
    errors.start()
    try:
        _pump(channel.recv, stdout)
    finally:
        if not channel.eof_received:
            channel.close()
        errors.join()
    code = channel.recv_exit_status() if channel.exit_status_ready() or channel.eof_received else -1
    if code < 0:
        raise SshError(f"the connection to {hop.name} ended before the command", code="cutOff")
    return code


def _pump(receive: Callable[[int], bytes], take: Callable[[bytes], None]) -> None:
    while piece := receive(_PIECE):
        take(piece)


@contextlib.contextmanager
def _said_of(hop: Hop, scope: CancelScope) -> Iterator[None]:
    """Errors in the words of an operator, and with the host they are about."""
    where = hop.name if hop.name == hop.hostname else f"{hop.name} ({hop.hostname}:{hop.port})"
    try:
        yield
    except NoConnectionError as error:
        scope.check()
        raise SshError(f"no SSH connection to {where}: {error}", code="sshUnreachable") from error
    except KdnsctlError:
        scope.check()
        raise
    except paramiko.ChannelException as error:
        scope.check()
        raise SshError(f"{where} opens no channel: {error.text or error}", code="sshRefused") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        scope.check()
        raise SshError(f"no SSH connection to {where}: {_why(error)}", code="sshUnreachable") from error


def _why(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "it closed the connection"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return text[:200]
