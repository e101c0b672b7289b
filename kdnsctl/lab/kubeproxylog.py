"""The kube-proxy stand-in's voice: klog lines (text or JSON) in the words and with the line numbers of a version.

The words are data: one table of messages per range of versions, from `reference` examples and recordings of real
kube-proxies (1.30: public logs of that minor; 1.36: a recorded 1.36.2). Escaping follows klog: values are Go-quoted,
a value with newlines becomes a block of tab-indented lines (Kubernetes 1.24 and later), lists are JSON from 1.28 on.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Place:
    """Where in kube-proxy's source a message is written: directory and file, line."""

    directory: str
    file: str
    line: int


_OLD = {
    "version": Place("app", "server.go", 872),
    "golang": Place("app", "server.go", 874),
    "mode": Place("app", "server_linux.go", 165),
    "service_controller": Place("config", "config.go", 192),
    "slice_controller": Place("config", "config.go", 101),
    "node_controller": Place("config", "config.go", 319),
    "synced": Place("cache", "shared_informer.go", 320),
    "not_syncing": Place("iptables", "proxier.go", 777),
    "syncing": Place("iptables", "proxier.go", 808),
    "reloading": Place("iptables", "proxier.go", 1494),
    "restore_failed": Place("iptables", "proxier.go", 1511),
    "sync_failed": Place("iptables", "proxier.go", 810),
    "complete": Place("iptables", "proxier.go", 799),
    "save_failed": Place("iptables", "proxier.go", 1391),
    "deleted_endpoint": Place("proxy", "endpointschangetracker.go", 318),
    "new_service": Place("conntrack", "cleanup.go", 48),
    "delete_endpoint_failed": Place("conntrack", "cleanup.go", 99),
    "delete_service_failed": Place("conntrack", "cleanup.go", 70),
    "delete_port_failed": Place("conntrack", "cleanup.go", 77),
    "clearing": Place("conntrack", "conntrack.go", 66),
    "cleared": Place("conntrack", "conntrack.go", 88),
}
_NEW = {
    "flag": Place("flag", "flags.go", 64),
    "version": Place("app", "server.go", 539),
    "golang": Place("app", "server.go", 541),
    "mode": Place("app", "server_linux.go", 137),
    "service_controller": Place("config", "config.go", 200),
    "slice_controller": Place("config", "config.go", 106),
    "node_controller": Place("config", "config.go", 309),
    "synced": Place("cache", "shared_informer.go", 388),
    "not_syncing": Place("iptables", "proxier.go", 644),
    "syncing": Place("iptables", "proxier.go", 668),
    "reloading": Place("iptables", "proxier.go", 1389),
    "restore_failed": Place("iptables", "proxier.go", 1406),
    "sync_failed": Place("iptables", "proxier.go", 673),
    "complete": Place("iptables", "proxier.go", 662),
    "save_failed": Place("iptables", "proxier.go", 1286),
    "reconciling": Place("conntrack", "cleanup.go", 49),
    "list_failed": Place("conntrack", "cleanup.go", 56),
    "clear_failed": Place("conntrack", "cleanup.go", 151),
    "reconciled": Place("conntrack", "cleanup.go", 153),
}
_FLAG = Place("flag", "flags.go", 64)


@dataclass(frozen=True, slots=True)
class Version:
    """A Kubernetes version such as v1.30.14 and what changed in kube-proxy with its minor."""

    text: str
    minor: int

    @staticmethod
    def parse(text: str) -> Version:
        """Raises ValueError for what is not v1.N.P with N from 28 on (older ones wrote other words)."""
        parts = text.removeprefix("v").split(".")
        if len(parts) != 3 or parts[0] != "1" or not all(part.isdigit() for part in parts) or int(parts[1]) < 28:
            raise ValueError(f"the lab's kube-proxy speaks as v1.28.0 to v1.36.x, not {text!r}")
        return Version(f"v{text.removeprefix('v')}", int(parts[1]))

    @property
    def reconciles(self) -> bool:
        """From 1.32 on conntrack is cleaned over netlink by comparing all entries (kubernetes#126847, #127318)."""
        return self.minor >= 32

    @property
    def names_family(self) -> bool:
        """From 1.31 on the iptables proxier's lines carry ipFamily."""
        return self.minor >= 31


def go_quote(text: str) -> str:
    """A string as Go's strconv.Quote writes it, for the characters that occur here."""
    return json.dumps(text, ensure_ascii=False).replace("\\u007f", "\\x7f")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        if "\n" in value:
            lines = value.removesuffix("\n").split("\n") + ([""] if value.endswith("\n\n") else [])
            return "<\n" + "".join(f"\t{line}\n" for line in lines) + " >"
        return go_quote(value)
    return json.dumps(value, separators=(",", ":"))


class Klog:
    """Writes log lines to standard error. Verbosity can change at run time (`PUT /debug/flags/v`). Thread-safe."""

    def __init__(self, version: Version, verbosity: int, *, as_json: bool = False, out: TextIO | None = None) -> None:
        self.version = version
        self.verbosity = verbosity
        self._json = as_json
        self._out = out
        self._places: Mapping[str, Place] = _NEW if version.reconciles else _OLD
        self._lock = threading.Lock()

    def info(self, place: str, message: str, level: int = 0, **values: object) -> None:
        """An I line, when the verbosity in force is at least `level`."""
        if level <= self.verbosity:
            self._write("I", self._places[place], message, values, level)

    def error(self, place: str, message: str, err: str, **values: object) -> None:
        """An E line, at every verbosity. In text `err` comes first, in JSON last."""
        self._write("E", self._places[place], message, values, 0, err)

    def flags(self, flags: Mapping[str, str]) -> None:
        """The FLAG lines of the start, shown from verbosity 1 on."""
        if self.verbosity >= 1:
            for name, value in sorted(flags.items()):
                self._write("I", _FLAG, f'FLAG: --{name}="{value}"', {}, 1, plain=True)

    def plain(self, place: str, message: str, level: int = 0) -> None:
        """A line of the unstructured kind, without quotes."""
        if level <= self.verbosity:
            self._write("I", self._places[place], message, {}, level, plain=True)

    def _write(
        self,
        severity: str,
        place: Place,
        message: str,
        values: Mapping[str, object],
        level: int,
        err: str | None = None,
        *,
        plain: bool = False,
    ) -> None:
        now = time.time()
        if self._json:
            record: dict[str, object] = {
                "ts": round(now * 1000, 4),
                "caller": f"{place.directory}/{place.file}:{place.line}",
                "msg": message,
            }
            if err is None:
                record |= {"v": level, **values}
            else:
                record |= {**values, "err": err}
            text = json.dumps(record, separators=(",", ":"))
        else:
            moment = datetime.fromtimestamp(now, UTC)
            header = f"{severity}{moment:%m%d %H:%M:%S.%f}       1 {place.file}:{place.line}] "
            pairs = ([] if err is None else [f"err={_value(err)}"]) + [
                f"{key}={_value(each)}" for key, each in values.items()
            ]
            text = header + " ".join([message if plain else go_quote(message), *pairs])
        with self._lock:
            out = self._out or sys.stderr
            out.write(text + "\n")
            out.flush()


def go_duration(seconds: float) -> str:
    """A duration as Go prints it: 220.597617ms, 1.5s."""
    if seconds < 1:
        return f"{seconds * 1000:.6f}".rstrip("0").rstrip(".") + "ms"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
