"""From a name and a port to a connected socket: look-ups that end, fixed and remembered addresses, a SOCKS proxy.

The operator's own DNS may be what is broken. So a look-up runs in a thread that is given up after a while, `--resolve`
fixes an address, and the address that answered last for a context is remembered, tried when resolving fails, and said.
TLS is not done here and always checks the name, whichever address was used.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster.caches import replace
from kdnsctl.cluster.errors import BehindProxyError, NoConnectionError

log = logging.getLogger(__name__)

LOOK_UP = 10.0  # seconds at most, and at most half of what is left: glibc asks its second server after 5
SLACK = 2.0  # seconds
KEEP_FOR = dt.timedelta(days=1)  # an unchanged address is not written again before that
SOCKS_ERRORS = {  # RFC 1928, section 6
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
}

LookUp = Callable[[str, int], list[str]]  # a name and a port → addresses; raises OSError


class _Remembered(msgspec.Struct, frozen=True):
    address: str
    at: dt.datetime


class AddressMemory:
    """The addresses that answered last, by context, name and port, in one small file. A cache: it never fails."""

    def __init__(self, file: Path, context: str) -> None:
        self._file = file
        self._context = context
        self._lock = threading.Lock()

    def recall(self, host: str, port: int) -> tuple[str, dt.datetime] | None:
        """The address that answered last, and when."""
        found = self._read().get(self._key(host, port))
        return None if found is None else (found.address, found.at)

    def remember(self, host: str, port: int, address: str) -> None:
        """Note that this address has answered now."""
        now = dt.datetime.now(dt.UTC)
        with self._lock:
            known = self._read()
            before = known.get(self._key(host, port))
            if before and before.address == address and now - before.at < KEEP_FOR:
                return
            known[self._key(host, port)] = _Remembered(address, now)
            try:
                replace(self._file, msgspec.json.format(msgspec.json.encode(known)))
            except OSError:
                log.debug("the address is not remembered: %s cannot be written", self._file, exc_info=True)

    def _key(self, host: str, port: int) -> str:
        return f"{self._context} {host}:{port}"

    def _read(self) -> dict[str, _Remembered]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, _Remembered])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError):
            log.debug("remembered addresses cannot be read: %s", self._file, exc_info=True)
            return {}


def system_look_up(host: str, port: int) -> list[str]:
    """All addresses of a name, as this machine resolves it, in the order to try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Socks:
    """A SOCKS5 proxy, which resolves names itself. Without a password."""

    host: str
    port: int


class Dialer:
    """Connects. `fixed` are the addresses of --resolve; `note` is told what the operator should know."""

    def __init__(
        self,
        *,
        fixed: Mapping[str, str] | None = None,
        memory: AddressMemory | None = None,
        note: Callable[[str], None] = lambda _: None,
        look_up: LookUp = system_look_up,
    ) -> None:
        self._fixed = {name.lower().rstrip("."): address for name, address in (fixed or {}).items()}
        self._memory = memory
        self._note = note
        self._look_up = look_up
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], list[str]] = {}  # looked up once in a run, unless connecting fails
        self._connected: dict[tuple[str, int], str] = {}
        self.reached = ""  # the address that was connected to last

    def dial(self, host: str, port: int, scope: CancelScope, socks: Socks | None = None) -> socket.socket:
        """A connected TCP socket, with a timeout of what is left of `scope`. Raises NoConnectionError."""
        if socks:
            connected = self.dial(socks.host, socks.port, scope)
            try:
                _through_socks(connected, host, port, f"{socks.host}:{socks.port}", scope)
            except BaseException:
                connected.close()
                raise
            return connected
        addresses = self._addresses(host, port, scope)
        failures: list[str] = []
        for number, address in enumerate(addresses):
            last = number == len(addresses) - 1
            left = scope.remaining()
            share = None if left is None else patience(scope) if last else left / (len(addresses) - number)
            try:
                connected = _connect(address, port, share, scope)
            except OSError as error:
                scope_ended(scope, f"no connection to {host}:{port} ({address})")
                why = _why(error, share)
                failures.append(why if address == host else f"{address}: {why}")
                continue
            with self._lock:
                self._known[host, port] = [address, *(other for other in addresses if other != address)]
                self._connected[host, port] = address
                self.reached = address
            connected.settimeout(patience(scope))
            return connected
        with self._lock:
            self._known.pop((host, port), None)
        raise NoConnectionError(
            f"no connection to {host}:{port}: {'; '.join(failures)}",
            hint="is it the right --context, and is the VPN or tunnel to it up?",
        )

    def answered(self) -> None:
        """What was connected to last has answered: remember it."""
        if self._memory is None:
            return
        with self._lock:
            connected = dict(self._connected)
            self._connected.clear()
        for (host, port), address in connected.items():
            if not is_address(host):
                self._memory.remember(host, port, address)

    def _addresses(self, host: str, port: int, scope: CancelScope) -> list[str]:
        fixed = self._fixed.get(host.lower().rstrip("."))
        if fixed:
            return [fixed]
        if is_address(host):
            return [host]
        with self._lock:
            known = self._known.get((host, port))
        if known:
            return known
        seconds = look_up_time(scope)
        try:
            return look_up_within(self._look_up, host, port, seconds, scope)
        except OSError as error:
            scope_ended(scope, f"cannot resolve {host}")
            return [self._recalled(host, port, error)]

    def _recalled(self, host: str, port: int, error: OSError) -> str:
        why = f"cannot resolve {host}: {error.strerror or error}"
        found = self._memory.recall(host, port) if self._memory else None
        if found is None:
            raise NoConnectionError(why, hint=f"if you know its address: --resolve {host}=ADDRESS") from error
        address, at = found
        self._note(f"{why}; using {address}, which answered last at {at:%Y-%m-%dT%H:%M:%SZ}")
        return address


def patience(scope: CancelScope) -> float | None:
    """The timeout for a socket used in `scope`: a little more than is left.

    It is the scope's end that shuts the socket, and that knows why; a timeout of the same moment would win now and
    then.
    """
    left = scope.remaining()
    return None if left is None else left + SLACK


def scope_ended(scope: CancelScope, what: str) -> None:
    """Raise what ended the scope, if it has ended: NoConnectionError for a deadline, saying `what` was not achieved."""
    reason = scope.reason
    if reason is None:
        return
    if reason.code == "deadline":
        raise NoConnectionError(f"{what}: {reason.message}", hint="raise --request-timeout if it is only slow")
    scope.check()


def look_up_time(scope: CancelScope) -> float:
    """How many seconds a look-up may take: what is left of `scope` has to be enough for connecting, too."""
    left = scope.remaining()
    return LOOK_UP if left is None else min(LOOK_UP, left / 2)


def look_up_within(look_up: LookUp, host: str, port: int, seconds: float, scope: CancelScope) -> list[str]:
    """The addresses; OSError also when there is no answer in time. A look-up that hangs is left behind."""
    done = threading.Event()
    addresses: list[str] = []
    failure: list[OSError] = []

    def ask() -> None:
        try:
            addresses.extend(look_up(host, port))
        except OSError as error:
            failure.append(error)
        except UnicodeError as error:  # a label of more than 63 bytes, or an empty one
            failure.append(OSError(f"not a host name ({error})"))
        finally:
            done.set()

    threading.Thread(target=ask, name=f"look-up {host}", daemon=True).start()
    with scope.closing(done.set):
        done.wait(seconds)
    if failure:
        raise failure[0]
    if not addresses:
        raise TimeoutError(f"the resolver did not answer within {duration(round(seconds, 1))}")
    return addresses


def _connect(address: str, port: int, seconds: float | None, scope: CancelScope) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        with scope.closing(lambda: shut(connecting)):
            connecting.settimeout(seconds)
            connecting.connect((address, port))
        scope.check()  # shut while it connected, which may look like success
    except BaseException:
        connecting.close()
        raise
    connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A watch is silent for a minute at a time: a dead path is noticed within 60 s. Not every system has all three.
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connecting.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connecting


def shut(connected: socket.socket) -> None:
    """Wake whoever reads from or writes to it, and let them fail. May be called from any thread, and after a close.

    The TCP shutdown of the plain socket class: that of SSLSocket takes its state away under the reading thread.
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _through_socks(connected: socket.socket, host: str, port: int, proxy: str, scope: CancelScope) -> None:
    """Have the SOCKS5 proxy connect to a name (RFC 1928), without authentication."""
    try:
        with scope.closing(lambda: shut(connected)):
            connected.sendall(b"\x05\x01\x00")
            if _exactly(connected, 2) != b"\x05\x00":
                raise BehindProxyError(f"the SOCKS proxy {proxy} wants a password, or is none")
            name = host.encode("idna")
            connected.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
            _, answer, _, kind = _exactly(connected, 4)
            if answer != 0:
                why = SOCKS_ERRORS.get(answer, f"error {answer}")
                raise BehindProxyError(f"the SOCKS proxy {proxy} cannot connect to {host}:{port}: {why}")
            length = {1: 4, 4: 16}.get(kind) or _exactly(connected, 1)[0]
            _exactly(connected, length + 2)
    except OSError as error:
        scope_ended(scope, f"no answer from the SOCKS proxy {proxy}")
        raise BehindProxyError(f"the SOCKS proxy {proxy} failed: {_why(error, None)}") from error


def _exactly(connected: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        more = connected.recv(count - len(received))
        if not more:
            raise ConnectionResetError("it closed the connection")
        received += more
    return received


def _why(error: OSError, seconds: float | None) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no answer within {duration(round(seconds, 1))}" if seconds else "no answer"
    return (error.strerror or str(error)).lower()


def is_address(host: str) -> bool:
    """Whether `host` is an address, and there is nothing to look up."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
