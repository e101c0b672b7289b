"""Asking from a node: our prober in the tools image (`dnsprobe`), or the node's own python3 over SSH.

Both take the same batch and print one line of JSON for each query; which it is, the rung decides. Nothing is written on
the node. kube-proxy's image has neither: there is no way to ask through it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from kdnsctl.cancel import CancelScope
from kdnsctl.model import Fact, KdnsctlError, Privilege, Proof, Toolset
from kdnsctl.probe.queries import Attempt, Batch, Over, Take
from kdnsctl.reach.shell import NodeShell, Reading

NOT_FOUND: Final = (126, 127)  # a shell's exit codes for a program that cannot be run, or is not there
ANSWERED: Final = (0, 1)  # the prober's: all of them, or not all
_LINE: Final = 512  # bytes of one, at most
_SLACK: Final = 5  # seconds for a program to start

# Python 3.6 and its standard library are enough. It travels in the URL of an exec where the way is a privileged pod:
# hence so few words. It does what images/tools/dnsprobe.c does, and says it in the same form.
SCRIPT: Final = r"""
import json,os,socket,struct,sys,time
s,P,n,c,i,w,p,t,e=json.loads(sys.argv[1])
q=b"".join(bytes([len(l)])+l.encode() for l in n.rstrip(".").split("."))+b"\0\0\1\0\1"
o=b"\0\0\x29"+struct.pack("!H",e)+b"\0"*6 if e else b""
def opt(m):
    try:
        a=12+len(q)
        for k in range(sum(struct.unpack("!3H",m[6:12]))):
            while m[a] and m[a]<192:a+=1+m[a]
            a+=2 if m[a]else 1
            y,_,_,z=struct.unpack("!HHIH",m[a:a+10])
            if y==41:return True
            a+=10+z
    except(IndexError,struct.error):pass
    return False
def ask(x):
    d=time.monotonic()+w/1e3
    def left(k):
        z=d-time.monotonic()
        if z<=0:raise socket.timeout()
        k.settimeout(z)
    def whole(k,z):
        m=b""
        while len(m)<z:
            left(k);g=k.recv(z-len(m))
            if not g:raise OSError(0,"the server closed the connection")
            m+=g
        return m
    r={"sourcePort":x}
    k=socket.socket(socket.AF_INET6 if":"in s else socket.AF_INET,socket.SOCK_STREAM if t else socket.SOCK_DGRAM)
    try:
        if x and t:k.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
        if x:k.bind(("",x))
        left(k);k.connect((s,P));r["sourcePort"]=k.getsockname()[1]
        h=os.urandom(2)
        m=h+b"\1\0\0\1\0\0\0\0"+(b"\0\1"if e else b"\0\0")+q+o
        k.sendall(struct.pack("!H",len(m))+m if t else m)
        while 1:
            left(k)
            m=whole(k,struct.unpack("!H",whole(k,2))[0])if t else k.recv(65535)
            v=len(m)>=12+len(q)and m[2]&128 and m[4:6]==b"\0\1"
            if v and m[:2]==h and m[12:12+len(q)].lower()==q.lower():break
        r.update(rcode=m[3]&15,answers=m[6]<<8|m[7],truncated=bool(m[2]&2),edns=opt(m))
    except socket.timeout:r["error"]="timeout"
    except OSError as f:r["error"]=os.strerror(f.errno)if f.errno else str(f.strerror or f)
    finally:k.close()
    return r
b=0
for j in range(c):
    if j:time.sleep(i/1e3)
    u=time.monotonic();r=ask(p[j%len(p)]if p else 0);r.update(n=j+1,ms=round((time.monotonic()-u)*1e3,3))
    print(json.dumps(r),flush=True);b|="error"in r
sys.exit(b)
"""


def fact_of(batch: Batch) -> Fact:
    """What a node is asked to run for a batch."""
    return Fact(
        id="dns.probe",
        title="DNS from the node",
        privilege=Privilege.NONE,
        proof=Proof.TRAILER,
        max_bytes=batch.count * _LINE,
        seconds=batch.seconds + _SLACK,
        commands={Toolset.TOOLS: _dnsprobe(batch), Toolset.HOST: _python(batch)},
    )


def _dnsprobe(batch: Batch) -> tuple[str, ...]:
    words = ["dnsprobe", "-s", batch.address, "-P", str(batch.port), "-n", batch.name]
    words += ["-c", str(batch.count), "-i", str(batch.interval), "-w", str(batch.wait)]
    if batch.ports:
        words += ["-p", ",".join(map(str, batch.ports))]
    if batch.edns:
        words += ["-e", str(batch.edns)]
    return (*words, *(["-t"] if batch.over is Over.TCP else []))


def _python(batch: Batch) -> tuple[str, ...]:
    told = [batch.address, batch.port, batch.name, batch.count, batch.interval, batch.wait]
    asked = json.dumps([*told, batch.ports, batch.over is Over.TCP, batch.edns], separators=(",", ":"))
    return ("python3", "-I", "-c", SCRIPT, asked)


class OnNode:
    """An `Asker`: a node, through a shell that can run a prober."""

    def __init__(self, shell: NodeShell) -> None:
        self._shell = shell

    @property
    def where(self) -> str:
        return self._shell.node

    def ask(self, batch: Batch, take: Take, *, scope: CancelScope) -> None:
        fact = fact_of(batch)
        command = self._shell.command(fact)
        if command is None:
            why = f"nothing on {self._shell.node} asks DNS by way of {self._shell.rung}"
            raise KdnsctlError(why, code="noTool", hint=ADVICE)
        lines = _Lines(take, batch.count)
        reading = self._shell.read(fact, lines.feed, scope=scope)
        lines.finish()
        if reading.exit_code in NOT_FOUND:
            why = f"there is no {command[0]} that runs on {self._shell.node} (by way of {self._shell.rung})"
            raise KdnsctlError(why, code="noTool", hint=ADVICE)
        if lines.taken < batch.count or reading.exit_code not in ANSWERED:
            raise KdnsctlError(f"asking from {self._shell.node} broke off: {_why(reading)}", code="brokeOff")


ADVICE: Final = "name the tools image with --image, or allow SSH to a node that has python3"


class _Lines:
    """Takes lines of JSON in pieces. Whatever else a node writes is passed over: the attempts are counted."""

    def __init__(self, take: Take, most: int) -> None:
        self._take = take
        self._most = most
        self._rest = b""
        self.taken = 0

    def feed(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._rest = self._rest[: _LINE + 1]
        for line in lines:
            self._one(line)

    def finish(self) -> None:
        self._one(self._rest)
        self._rest = b""

    def _one(self, line: bytes) -> None:
        attempt = parsed(line) if len(line) <= _LINE else None
        if attempt is not None and self.taken < self._most:
            self.taken += 1
            self._take(attempt)


def parsed(line: bytes) -> Attempt | None:
    """One line of the prober; None for what is none."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    port, ms = _number(told.get("sourcePort"), 65535), told.get("ms")
    if port is None or isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 <= ms < 1e9:
        return None
    if isinstance(told.get("error"), str):
        return Attempt(port, float(ms), error=_plain(told["error"]))
    rcode, answers = _number(told.get("rcode"), 4095), _number(told.get("answers"), 65535)
    if rcode is None or answers is None:
        return None
    return Attempt(port, float(ms), rcode, answers, told.get("truncated") is True, told.get("edns") is True)


def _number(value: Any, most: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def _plain(text: str) -> str:
    """A node's words, bounded and without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:120]) or "no answer"


def _why(reading: Reading) -> str:
    said = _plain(reading.stderr.decode("utf-8", "replace").strip().partition("\n")[0]) if reading.stderr else ""
    problem = reading.problem.message if reading.problem else "fewer results came than queries were asked for"
    return f"{problem}: {said}" if said else problem
