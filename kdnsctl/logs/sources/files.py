"""Logs from files: every stream in them scanned, named and accounted for.

One input can hold one stream or many (stern, journals, exports); one node's log can be spread over many inputs. This
module turns inputs into `FileStream`s; who they are judged to be is the business of `find`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from kdnsctl.logs.envelopes import split_document
from kdnsctl.logs.framing import Line
from kdnsctl.logs.klog import TextClock
from kdnsctl.logs.scan import Scanner, StreamKey
from kdnsctl.logs.sources.naming import Origin, is_kube_proxy, node_of_static_pod, origin_of
from kdnsctl.logs.sources.opening import ByteSource, SourceError
from kdnsctl.logs.sources.parallel import cores, each
from kdnsctl.logs.sources.walking import LogStream, Unreadable, walk
from kdnsctl.logs.tally import Tally
from kdnsctl.logs.times import from_datetime
from kdnsctl.model import KdnsctlError, Reporter

CHUNK = 256 * 1024
LARGEST_DOCUMENT = 64 * 1024 * 1024
"""Bytes of a JSON document that is read whole; a larger one has to be given as JSON lines."""
WORTH_PROCESSES = 64 * 1024 * 1024
"""Bytes on disk from which several processes are faster than one, their start included."""
MOST_STREAMS = 20_000
"""Streams told apart in one input; a stranger's file could name any number."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of an input that could not be read; `code` is stable, `message` for people."""

    code: str
    message: str


@dataclass(slots=True)
class FileStream:
    """One stream of one input: where it is from, what was counted in it, what is wrong with it.

    `own` is True for what the input itself is (a file of one stream), False for a stream named by its lines.
    `records` says whether any line was klog's at all; `size` counts bytes of the whole input.
    """

    source: str
    path: str
    explicit: bool
    origin: Origin
    tally: Tally
    size: int = 0
    records: bool = False
    own: bool = True
    damages: list[Damage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read: `since` (microseconds, UTC) begins the window; `year` dates klog lines that have none."""

    since: int | None = None
    year: int | None = None


class Inputs:
    """The inputs of one run. To be read twice, what comes through a pipe is kept in unnamed files."""

    def __init__(self, paths: Sequence[str], stdin: BinaryIO, *, twice: bool) -> None:
        self._paths = paths
        self._stdin = stdin
        self._kept: dict[str, BinaryIO] = {}
        if twice:
            for path in paths:
                if path == "-":
                    self._kept[path] = _keep(stdin)
                elif Path(path).is_fifo():
                    with Path(path).open("rb", buffering=0) as pipe:
                        self._kept[path] = _keep(pipe)

    def walk(self) -> Iterator[LogStream | Unreadable]:
        """The inputs from the beginning."""
        for kept in self._kept.values():
            kept.seek(0)
        return walk(self._paths, self._kept.get("-", self._stdin), self._kept)


def _keep(pipe: BinaryIO) -> BinaryIO:
    """What comes through a pipe, in an unnamed file that goes with the process."""
    kept: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the inputs
    try:
        while data := pipe.read(CHUNK):
            kept.write(data)
    except OSError as error:
        raise KdnsctlError(
            f"--since has to read a pipe twice, and it could not be kept in {tempfile.gettempdir()}: {error.strerror}",
            hint="write it to a file and name that, or give --since-time",
        ) from error
    return kept


def newest_record(inputs: Inputs, *, year: int | None, now: datetime) -> int | None:
    """The time of the newest dated record in all inputs (microseconds, UTC), None when there is none."""
    newest: int | None = None
    for item in inputs.walk():
        if isinstance(item, LogStream):
            for stream in read_stream(item, ReadOptions(year=year), now=now):
                last = stream.tally.last
                if last is not None and (newest is None or last > newest):
                    newest = last
    return newest


def read_all(
    inputs: Inputs, options: ReadOptions, *, now: datetime, reporter: Reporter
) -> list[FileStream | Unreadable]:
    """Scan every input, in order: each gives at least one FileStream, or the Unreadable that it is."""
    reporter.started("reading logs", None)
    try:
        return list(_read_all(inputs, options, now, reporter))
    finally:
        reporter.finished()


def _read_all(
    inputs: Inputs, options: ReadOptions, now: datetime, reporter: Reporter
) -> Iterator[FileStream | Unreadable]:
    found: list[list[FileStream | Unreadable]] = []
    later: list[tuple[int, LogStream]] = []
    done = 0
    for item in inputs.walk():
        found.append([])
        if isinstance(item, Unreadable):
            found[-1].append(item)
        elif item.size is not None:
            later.append((len(found) - 1, item))
            continue
        else:
            found[-1].extend(read_stream(item, options, now=now))
        done += 1
        reporter.advanced(done)
    later.sort(key=lambda place: -(place[1].size or 0))
    files = [stream for _, stream in later]
    read = partial(read_stream, options=options, now=now)
    for index, streams in _each_file(files, read):
        found[later[index][0]].extend(streams)
        done += 1
        reporter.advanced(done, len(found))
    for items in found:
        yield from items


def _each_file(
    files: Sequence[LogStream], read: Callable[[LogStream], list[FileStream]]
) -> Iterator[tuple[int, list[FileStream]]]:
    processes = min(cores(), len(files))
    if processes > 1 and sum(stream.size or 0 for stream in files) >= WORTH_PROCESSES:
        yield from each(files, read, processes=processes)
    else:
        for index, stream in enumerate(files):
            yield index, read(stream)


def read_stream(stream: LogStream, options: ReadOptions, now: datetime) -> list[FileStream]:
    """Scan one input. What could be read is counted, also when the input ends in an error."""
    collector = _Collector(stream, options)
    clock = TextClock(from_datetime(stream.modified or now), options.year)
    scanner = Scanner(collector, clock)
    size = 0
    damages: list[Damage] = []
    try:
        with stream.open() as source:
            for data in _chunks(source, damages):
                size += len(data)
                scanner.feed(data)
    except SourceError as error:
        damages.append(Damage(error.code, str(error)))
    scanner.finish()
    return collector.streams(size=size, records=scanner.klog_records, damages=damages)


def _chunks(source: ByteSource, damages: list[Damage]) -> Iterator[bytes]:
    """The input's bytes; a JSON document is taken apart into JSON lines on the way."""
    first = source.read(CHUNK)
    if not _may_be_document(first):
        while first:
            yield first
            first = source.read(CHUNK)
        return
    parts, size = [first], len(first)
    failed: SourceError | None = None
    try:
        while size <= LARGEST_DOCUMENT and (data := source.read(CHUNK)):
            parts.append(data)
            size += len(data)
    except SourceError as error:
        failed = error
    whole = b"".join(parts)
    parts.clear()
    lines = split_document(whole) if failed is None and size <= LARGEST_DOCUMENT else None
    if lines is not None:
        for line in lines:
            yield line + b"\n"
        return
    # What is no document, or a cut-off one, may still have lines that can be read as they are.
    yield whole
    if failed is not None:
        raise failed
    if size > LARGEST_DOCUMENT:
        limit = LARGEST_DOCUMENT // 1024 // 1024
        damages.append(Damage("tooLarge", f"a JSON document of more than {limit} MiB; give JSON lines (jq -c '.[]')"))
    while data := source.read(CHUNK):
        yield data


def _may_be_document(beginning: bytes) -> bool:
    """Whether the input begins like a JSON document that is not JSON lines."""
    text = beginning.lstrip()
    if text[:1] == b"[":
        return text[1:2] in (b"", b"{", b"\n", b"\r", b" ", b"]")
    if text[:1] != b"{":
        return False
    line = text.partition(b"\n")[0].rstrip()
    if line == b"{":
        return True
    return any(line.startswith(b'{"' + key + b'":') for key in (b"events", b"results", b"status", b"took", b"hits"))


class _Ignored:
    """Takes what another component logged, and drops it."""

    def hit(self, known: object, time: int | None, payload: bytes) -> None:
        pass

    def seen(self, time: int, file: str) -> None:
        pass

    def cut(self, why: str) -> None:
        pass


class _Collector:
    """Gives each stream of one input its tally."""

    def __init__(self, stream: LogStream, options: ReadOptions) -> None:
        self._stream = stream
        self._options = options
        self._origin = origin_of(stream.path)
        self._tallies: dict[StreamKey, tuple[Origin, Tally]] = {}
        self._overflow = False

    def stream(self, key: StreamKey, line: Line | None) -> Tally | _Ignored:
        """The tally of a stream, or a sink that drops everything when the stream is another component's."""
        if key == ("", "", "") or line is None:
            return self._add(key, self._origin)
        container = line.container
        if container and not is_kube_proxy(container):
            return _Ignored()
        if line.process and not _may_hold_kube_proxy(line.process):
            return _Ignored()
        if len(self._tallies) >= MOST_STREAMS:
            self._overflow = True
            return _Ignored()
        node, node_from = line.node, "field" if line.node else ""
        if not node:
            node = node_of_static_pod(line.pod)
            node_from = "pod" if node else ""
        if not node and self._origin.node:
            node, node_from = self._origin.node, self._origin.node_from
        tally = self._add(key, Origin(node, node_from, line.pod or self._origin.pod, container))
        tally.shared_process = bool(line.process) and "kube-proxy" not in line.process
        return tally

    def _add(self, key: StreamKey, origin: Origin) -> Tally:
        tally = Tally(since=self._options.since)
        self._tallies[key] = (origin, tally)
        return tally

    def streams(self, *, size: int, records: bool, damages: list[Damage]) -> list[FileStream]:
        """Every stream found; the input itself when it had none, so that it is not lost from the count."""
        if self._overflow:
            damages = [*damages, Damage("tooManyStreams", f"more than {MOST_STREAMS} streams in one input")]
        named = {key: found for key, found in self._tallies.items() if key != ("", "", "")}
        own = self._tallies.get(("", "", ""))
        if own is not None and named and not own[1].counts:
            # Lines without a name in an input whose lines have names: headings, continuation lines, nothing of ours.
            own = None
        found = ([(own, True)] if own else []) + [(entry, False) for entry in named.values()]
        if not found:
            found = [((self._origin, Tally(since=self._options.since)), True)]
        streams = []
        for (where, tally), is_own in found:
            tally.settle()
            origin = where
            if tally.hostname and where.node_from != "field":
                origin = Origin(tally.hostname, "flag", where.pod, where.container)
            streams.append(
                FileStream(
                    source=self._stream.name,
                    path=self._stream.path,
                    explicit=self._stream.explicit,
                    origin=origin,
                    tally=tally,
                    size=size,
                    records=records,
                    own=is_own,
                    damages=[*damages, *(Damage("cutRecord", why) for why in tally.cuts)],
                )
            )
        return streams


_HOLD_KUBE_PROXY = ("proxy", "k3s", "rke2", "k0s", "kubelite", "hyperkube", "openshift", "origin", "k8s")


def _may_hold_kube_proxy(process: str) -> bool:
    """Whether a journal identifier can be kube-proxy's, or a process's that runs kube-proxy inside."""
    return any(word in process for word in _HOLD_KUBE_PROXY)
