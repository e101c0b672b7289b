"""Logs from files: every stream in them scanned, named and accounted for.

One input can hold one stream or many (stern, journals, exports); one node's log can be spread over many inputs. This
module turns inputs into `FileStream`s; who they are judged to be is the business of `find`.
"""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from kdnsctl.logs.framing import Line
from kdnsctl.logs.klog import TextClock
from kdnsctl.logs.scan import Scanner
from kdnsctl.logs.signatures import Kind, Known
from kdnsctl.logs.sinks import StreamKey
from kdnsctl.logs.sources.documents import CHUNK, chunks
from kdnsctl.logs.sources.naming import Origin, is_kube_proxy, node_of_static_pod, origin_of
from kdnsctl.logs.sources.opening import SourceError
from kdnsctl.logs.sources.parallel import cores, each
from kdnsctl.logs.sources.refusals import LARGEST as LARGEST_REFUSAL
from kdnsctl.logs.sources.refusals import refusal
from kdnsctl.logs.sources.repeats import MarkedTally
from kdnsctl.logs.sources.walking import LogStream, Unreadable, walk
from kdnsctl.logs.times import from_datetime, to_datetime
from kdnsctl.model import KdnsctlError, Reporter

WORTH_PROCESSES = 64 * 1024 * 1024
"""Bytes on disk from which several processes are faster than one, their start included."""
_FIRST_YEAR = 2014
"""Before it there was no Kubernetes: a file from then has a time that some archiver made up (0, or 1980)."""
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
    `records` says whether any line of it was klog's at all; `size` counts bytes of the whole input. `others` says whose
    log it is when that is certainly not kube-proxy's; it may then not have been read at all.
    """

    source: str
    path: str
    explicit: bool
    origin: Origin
    tally: MarkedTally
    size: int = 0
    records: bool = False
    own: bool = True
    others: str = ""
    damages: list[Damage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read: `since` (microseconds, UTC) begins the window; `year` dates klog lines that have none.

    `absolute`: the window was given by a time, and not as so long before the newest record. kube-proxy in a pod logs in
    UTC; as a service of the host it logs in the host's zone, and so does the journal, without saying which.
    """

    since: int | None = None
    year: int | None = None
    absolute: bool = False


class Inputs:
    """The inputs of one run. To be read twice, what comes through a pipe is kept in unnamed files, until `close`."""

    def __init__(self, paths: Sequence[str], stdin: BinaryIO, *, twice: bool) -> None:
        self._paths = paths
        self._stdin = stdin
        self._kept: dict[str, BinaryIO] = {}
        if twice:
            seen: set[tuple[int, int]] = set()
            for path in paths:
                if path == "-":
                    if path not in self._kept:
                        self._kept[path] = _keep(stdin)
                    continue
                try:
                    status = Path(path).stat()
                    # Nobody writes into a pipe for a second time.
                    if not stat.S_ISFIFO(status.st_mode) or (status.st_dev, status.st_ino) in seen:
                        continue
                    pipe = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed below
                except OSError:
                    continue  # the walk says what is wrong with it
                seen.add((status.st_dev, status.st_ino))
                with pipe:
                    self._kept[path] = _keep(pipe)

    def close(self) -> None:
        """Give the kept files back."""
        for kept in self._kept.values():
            kept.close()

    def walk(self) -> Iterator[LogStream | Unreadable]:
        """The inputs from the beginning."""
        for kept in self._kept.values():
            kept.seek(0)
        return walk(self._paths, self._kept.get("-", self._stdin), self._kept)


def _keep(pipe: BinaryIO) -> BinaryIO:
    """What comes through a pipe, in an unnamed file."""
    kept: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the inputs
    try:
        while data := pipe.read(CHUNK):
            kept.write(data)
    except OSError as error:
        kept.close()
        raise KdnsctlError(
            f"--since has to read a pipe twice, and it could not be kept in {tempfile.gettempdir()}: {error.strerror}",
            hint="write it to a file and name that, or give --since-time",
        ) from error
    return kept


def newest_record(inputs: Inputs, *, year: int | None, now: datetime, reporter: Reporter) -> int | None:
    """The time of the newest dated record in all inputs (microseconds, UTC), None when there is none.

    What kube-proxy's logs say counts; the times of other files only when those say nothing. A log that ends in the
    future has a wrong clock in it, and would move the window past all that happened.
    """
    streams = read_all(inputs, ReadOptions(year=year), now=now, reporter=reporter, what="looking for the newest record")
    latest = _latest(now)
    times = [
        (stream.tally.ours, stream.tally.last)
        for stream in streams
        if isinstance(stream, FileStream) and stream.tally.last is not None and stream.tally.last <= latest
    ]
    return max((last for ours, last in times if ours), default=max((last for _, last in times), default=None))


def _latest(now: datetime) -> int:
    """The latest time that a record can have; clocks may be a day ahead, of whatever zone they are."""
    return from_datetime(now) + 86_400_000_000


def read_all(
    inputs: Inputs, options: ReadOptions, *, now: datetime, reporter: Reporter, what: str = "reading logs"
) -> list[FileStream | Unreadable]:
    """Scan every input, in order: each gives at least one FileStream, or the Unreadable that it is."""
    reporter.started(what, None)
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
    """Scan one input. What could be read is counted, also when the input ends in an error.

    What was only met on the way and is another container's by its place is not opened: a tree of all pods is large.
    """
    collector = _Collector(stream, options, _latest(now))
    if collector.origin.is_anothers and not stream.explicit:
        return [collector.input_itself(others=f"the log of container {collector.origin.container}")]
    written = stream.modified
    if written is None or written.year < _FIRST_YEAR:
        written = now
    clock = TextClock(from_datetime(written), options.year)
    scanner = Scanner(collector, clock)
    size = 0
    body = b""
    damages: list[Damage] = []
    try:
        with stream.open() as source:
            for data in chunks(source):
                size += len(data)
                if len(body) <= LARGEST_REFUSAL:
                    body += data[: LARGEST_REFUSAL + 1]
                scanner.feed(data)
    except SourceError as error:
        damages.append(Damage(error.code, str(error)))
    scanner.finish()
    if not scanner.klog_records and (message := refusal(body)):
        damages.append(Damage("errorText", f"holds an error message instead of a log: {message}"))
    return collector.streams(size=size, records=scanner.klog_records, damages=damages)


class _Ignored:
    """Takes what another component logged, and drops it: up to the first failure that only kube-proxy can log.

    A process has any name: with Docker's journald driver, a container's id.
    """

    def __init__(self, take: Callable[[], MarkedTally] | None = None) -> None:
        self._take = take
        self._taken: MarkedTally | None = None

    def hit(self, known: Known, time: int | None, payload: bytes) -> None:
        if self._taken is None and self._take is not None and known.signature.kind is Kind.FAILURE:
            self._taken = self._take()
        if self._taken is not None:
            self._taken.hit(known, time, payload)

    def seen(self, time: int, file: str) -> None:
        if self._taken is not None:
            self._taken.seen(time, file)

    def text(self, line: bytes) -> None:
        if self._taken is not None:
            self._taken.text(line)

    def cut(self, why: str) -> None:
        if self._taken is not None:
            self._taken.cut(why)


class _Collector:
    """Gives each stream of one input its tally."""

    def __init__(self, stream: LogStream, options: ReadOptions, latest: int) -> None:
        self._stream = stream
        self._latest = latest
        self._without_zone: set[StreamKey] = set()
        self._options = options
        self.origin = origin_of(stream.path)
        self._tallies: dict[StreamKey, tuple[Origin, MarkedTally]] = {}
        self._overflow = False
        self._ignored: set[str] = set()

    def stream(self, key: StreamKey, line: Line | None) -> MarkedTally | _Ignored:
        """The tally of a stream, or a sink that drops everything when the stream is another component's."""
        if key == ("", "", "") or line is None:
            return self._add(key, self.origin)
        container = line.container
        if len(self._tallies) >= MOST_STREAMS:
            self._overflow = True
            return _Ignored()
        if container and not is_kube_proxy(container):
            return self._ignore(f"container {container}")
        if line.process and not _may_hold_kube_proxy(line.process):
            return self._ignore(line.process, lambda: self._named(key, line))
        return self._named(key, line)

    def _named(self, key: StreamKey, line: Line) -> MarkedTally:
        """The tally of a stream that its lines name."""
        if line.process and line.time is None:
            self._without_zone.add(key)
        node, node_from, folder = line.node, "field" if line.node else "", -1
        if not node:
            node = node_of_static_pod(line.pod)
            node_from = "pod" if node else ""
        if not node and self.origin.node:
            node, node_from, folder = self.origin.node, self.origin.node_from, self.origin.folder
        tally = self._add(key, Origin(node, node_from, line.pod or self.origin.pod, line.container, folder=folder))
        if "kube-proxy" in line.process:
            tally.ours = True
        elif line.process:
            tally.shared_process = True
        return tally

    def _ignore(self, whose: str, take: Callable[[], MarkedTally] | None = None) -> _Ignored:
        if len(self._ignored) < _MOST_IGNORED_NAMED:
            self._ignored.add(whose)
        return _Ignored(take)

    def _add(self, key: StreamKey, origin: Origin) -> MarkedTally:
        tally = MarkedTally(since=self._options.since)
        # Under this name it is kube-proxy's, whatever it says; "sdn" holds more than that.
        tally.ours = "kube-proxy" in origin.container
        self._tallies[key] = (origin, tally)
        return tally

    def input_itself(
        self, *, size: int = 0, records: bool = False, others: str = "", damages: Sequence[Damage] = ()
    ) -> FileStream:
        """The input as one stream, though nothing in it made one."""
        return FileStream(
            source=self._stream.name,
            path=self._stream.path,
            explicit=self._stream.explicit,
            origin=self.origin,
            tally=MarkedTally(since=self._options.since),
            size=size,
            records=records,
            others=others,
            damages=[*damages],
        )

    def streams(self, *, size: int, records: bool, damages: list[Damage]) -> list[FileStream]:
        """Every stream found; the input itself when it had none, so that it is not lost from the count."""
        if self._overflow:
            damages = [*damages, Damage("tooManyStreams", f"more than {MOST_STREAMS} streams in one input")]
        named = {key: found for key, found in self._tallies.items() if key != ("", "", "")}
        own = self._tallies.get(("", "", ""))
        if own is not None and (named or self._ignored) and not own[1].counts and not own[1].ours:
            # Lines without a name in an input whose lines have names: headings, continuation lines, nothing of ours.
            damages = [*damages, *(Damage("cutRecord", why) for why in own[1].cuts)]
            own = None
        found = ([(own, True)] if own else []) + [(entry, False) for entry in named.values()]
        if not found:
            others = f"only what {', '.join(sorted(self._ignored))} logged" if self._ignored else ""
            return [self.input_itself(size=size, records=records, others=others, damages=damages)]
        streams = []
        for (where, tally), is_own in found:
            tally.settle()
            origin = where
            found_in_it = [*damages, *(Damage("cutRecord", why) for why in tally.cuts), *self._doubts(tally)]
            alone = len(found) == 1 and is_own
            if not alone and not tally.records and (message := refusal(tally.first_text.encode())):
                found_in_it.append(Damage("errorText", f"holds an error message instead of a log: {message}"))
            if where.node_from == "field":
                pass
            elif len(tally.hostnames) > 1:
                # `kubectl logs -l k8s-app=kube-proxy` without --prefix: which line is whose is lost.
                origin = Origin(component=where.component)
                names = ", ".join(sorted(tally.hostnames))
                found_in_it.append(Damage("severalNodes", f"lines of several nodes, not told apart: {names}"))
            elif tally.hostname:
                origin = Origin(tally.hostname, "flag", where.pod, where.container, where.component)
            streams.append(
                FileStream(
                    source=self._stream.name,
                    path=self._stream.path,
                    explicit=self._stream.explicit,
                    origin=origin,
                    tally=tally,
                    size=size,
                    records=records if alone else tally.records,
                    own=is_own,
                    damages=found_in_it,
                )
            )
        return streams

    def _doubts(self, tally: MarkedTally) -> Iterator[Damage]:
        """What is wrong with the times of a stream."""
        relative = self._options.since is not None and not self._options.absolute
        if relative and tally.last is not None and tally.last > self._latest:
            yield Damage("wrongClock", f"a record is dated {to_datetime(tally.last):%Y-%m-%d}, in the future")
        if self._options.absolute and any(self._tallies[key][1] is tally for key in self._without_zone):
            yield Damage("zoneUnknown", "a journal without time zones cannot be held against an absolute time")


_MOST_IGNORED_NAMED = 5
_HOLD_KUBE_PROXY = ("proxy", "k3s", "rke2", "k0s", "kubelite", "hyperkube", "openshift", "origin", "k8s")


def _may_hold_kube_proxy(process: str) -> bool:
    """Whether a journal identifier can be kube-proxy's, or a process's that runs kube-proxy inside."""
    return any(word in process for word in _HOLD_KUBE_PROXY)
