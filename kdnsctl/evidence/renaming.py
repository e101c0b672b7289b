"""The names and addresses of one bundle, and their pseudonyms in any text: rules, logs, what commands said. Pure.

Names are learned first, from all of the bundle; then each text is gone through once. What has a form (addresses, names
of chains, NAMESPACE/NAME:PORT, UIDs, hosts with dots) is replaced whether it was learned or not, single words if they
were. Names of chains hold hashes of what they are for: those are computed anew from the pseudonyms, so that a chain
still is that Service's, and one whose hash was wrong stays wrong. In doubt something is replaced.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final

from kdnsctl.evidence.pseudonyms import COMMON, Pseudonyms
from kdnsctl.netfilter import names

PROTOCOLS: Final = ("udp", "tcp", "sctp")
GONE: Final = "REDACTED"

_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_HOST: Final = r"[A-Za-z0-9](?:[-\w]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[-\w]*[A-Za-z0-9])?)+"
_NFT: Final = r"(?:service|local|external|firewall|endpoint|affinity)-[A-Z2-7]{8}-[^\s\"'{}\[\],;\\]+"
_CHAIN: Final = r"KUBE-(?:SVC|SVL|EXT|FW|XLB|SEP)-[A-Z2-7]{16}"
_IPV4: Final = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)(?:/\d{1,2}(?!\d))?"
_IPV6: Final = (
    r"(?<![\w:.])(?=[0-9A-Fa-f]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{2,39}(?:(?:\d{1,3}\.){3}\d{1,3})?(?!\w)(?:/\d{1,3})?"
)
_SERVICE: Final = rf"(?<![\w./:-])(?!0x[0-9a-f]+/)(?=[-0-9]*[a-z])({_LABEL})/({_LABEL})(?::({_LABEL}))?(?![\w/-]|\.\w)"
_UID: Final = r"(?<![\w-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\w-])"
_MAC: Final = r"(?<![\w:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:])"
_CREDENTIAL: Final = (
    r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?i:bearer|basic)\s+[\w.~+/=-]{8,}|-----BEGIN [A-Z ]+-----|[A-Za-z0-9+/]{48,}={0,2}"
)
_KNOWN: Final = re.compile(
    rf"(?P<secret>{_CREDENTIAL})|(?P<nft>{_NFT})|(?P<chain>{_CHAIN})|(?P<uid>{_UID})|(?P<mac>{_MAC})|(?P<v6>{_IPV6})"
    rf"|(?P<v4>{_IPV4})|(?P<service>{_SERVICE})"
)
_WORD: Final = re.compile(
    rf"(?P<host>(?<![\w@-]){_HOST}(?![\w-]))|(?P<word>(?<![\w.-])[A-Za-z0-9](?:[-\w]*[A-Za-z0-9])?)"
)
_NFT_PARTS: Final = re.compile(r"([a-z]+-)([A-Z2-7]{8})-(.+)", re.DOTALL)
_NFT_PATH: Final = re.compile(r"([^/]+)/([^/]+)/([^/]+)/([^/]*?)(?:__([0-9a-f.]+)/(\d{1,5}))?")
# Hosts that are none: files of Go's sources, settings of the kernel, what Kubernetes and its parts are called.
_NO_HOST: Final = re.compile(
    r"[\w.-]+\.(?:go|so|ko|yaml|yml|json|conf|log|sock|txt)|v?\d[\w.-]*|net\.[\w.-]+|(?:[\w-]+\.)*k8s\.io|kubernetes\.io"
    r"|(?:[\w-]+\.)*(?:kubernetes\.io|cluster\.local)|[A-Z]\w*\.[A-Z]\w*"
)
_NO_SERVICE: Final = frozenset(
    """
    api apis pkg cmd proc sys dev etc var usr run lib tmp and or tcp udp sctp http https input output read write
    """.split()  # noqa: SIM905 - read as prose
)
"""What stands before a slash and is no namespace."""


class Renaming:
    """Pseudonyms for all that was learned. Not to be used by several threads at once."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._words: dict[str, str] = {}
        self._services: dict[str, str] = {}
        self._pods: set[str] = set()
        self._chains: dict[str, str] = {}
        self._owned: set[tuple[str, str, str, int]] = set()

    # --- learning

    def learn(self, kind: str, name: str) -> None:
        """Take a name of a `node`, `pod`, `namespace`, `service`, `host`…: afterwards it is known as a single word."""
        if kind == "pod":
            self._pods.add(name)
        if name and name not in COMMON:
            self._words.setdefault(name, self.name(kind, name))

    def learn_service(self, service: str, protocols: Iterable[str] = PROTOCOLS) -> None:
        """Take a Service port as kube-proxy spells it: its chains are known by their hashes then."""
        renamed = self.service(service)
        if service in self._services:
            return
        self._services[service] = renamed
        namespace, _, rest = service.partition("/")
        self.learn("namespace", namespace)
        self.learn("service", rest.partition(":")[0])
        for protocol in protocols:
            self._chains[names.service_hash(service, protocol)] = names.service_hash(renamed, protocol)

    def learn_endpoint(self, service: str, protocol: str, address: str, port: int) -> None:
        """Take an endpoint of a Service port, by which its chain is called."""
        chain = names.endpoint_chain(service, protocol, address, port)
        renamed = names.endpoint_chain(self.service(service), protocol, self.address(address), port)
        self._chains[chain.removeprefix(names.ENDPOINT)] = renamed.removeprefix(names.ENDPOINT)

    def learn_owned(self, digest: str, protocol: str, address: str, port: int) -> None:
        """Take an endpoint of the Service port whose chains end in `digest`, whichever that will turn out to be."""
        self._owned.add((digest, protocol, address, port))

    def settle(self) -> None:
        """To be called when all has been learned, before anything is renamed."""
        services = {
            names.service_hash(service, protocol): (service, protocol)
            for service in self._services
            for protocol in PROTOCOLS
        }
        for digest, protocol, address, port in sorted(self._owned):
            service, hashed = services.get(digest, ("", ""))
            if hashed == protocol:
                self.learn_endpoint(service, protocol, address, port)
        self._owned.clear()

    # --- single things

    def name(self, kind: str, name: str) -> str:
        """The pseudonym of a name of that kind."""
        return self._pseudonyms.name(kind, name)

    def uid(self, uid: str) -> str:
        """The pseudonym of a UID; "" stays."""
        return self._pseudonyms.uid(uid) if uid else ""

    def service(self, service: str) -> str:
        """The pseudonym of NAMESPACE/NAME or NAMESPACE/NAME:PORT."""
        namespace, _, rest = service.partition("/")
        name, colon, port = rest.partition(":")
        return f"{self.name('namespace', namespace)}/{self.name('service', name)}{colon}{self.name('port', port)}"

    def address(self, text: str) -> str:
        """The pseudonym of an address, or of a network (ADDRESS/LENGTH); what is neither is given back."""
        plain, slash, length = text.partition("/")
        try:
            mapped = self._pseudonyms.address(plain)
            if not slash:
                return mapped
            return (
                str(ipaddress.ip_network(f"{mapped}/{length}", strict=False))
                if _is_network(text)
                else (f"{mapped}/{length}")
            )
        except ValueError:
            return text

    def chain(self, chain: str) -> str:
        """The pseudonym of a chain of iptables mode, the same kind of chain."""
        prefix, _, digest = chain.rpartition("-")
        return f"{prefix}-{self._chains.get(digest) or self._pseudonyms.token(digest)}"

    def nft_chain(self, chain: str) -> str:
        """The pseudonym of a chain or set of nftables mode; one that was cut off stays cut off."""
        match = _NFT_PARTS.fullmatch(chain)
        if match is None:
            return chain
        prefix, digest, path = match.groups()
        parts = _NFT_PATH.fullmatch(path)
        if parts is None or path.endswith("..."):
            cut = "..." if path.endswith("...") else ""
            return f"{prefix}{self._pseudonyms.token(digest)[:8]}-{self.name('chain', path)}{cut}"
        namespace, name, protocol, port, dotted, number = parts.groups()
        service = f"{namespace}/{name}:{port}" if port else f"{namespace}/{name}"
        address = (dotted if _is_v4(dotted) else dotted.replace(".", ":")) if dotted else ""

        def made(service: str, address: str) -> str:
            if address:
                whole = names.nft_endpoint_chain(service, protocol, address, int(number))
                return whole.removeprefix(names.NFT_ENDPOINT)
            return names.nft_service_chain(service, protocol).removeprefix(names.NFT_SERVICE_PREFIXES[0])

        renamed = made(self.service(service), self.address(address) if address else "")
        if made(service, address) != f"{digest}-{path}":  # its hash is of something else: so is the new one
            renamed = f"{self._pseudonyms.token(digest)[:8]}-{renamed.partition('-')[2]}"
        return prefix + renamed

    # --- texts

    def rules(self, text: str) -> str:
        """A text in which all that has a form is replaced, and single words stay: they belong to the rules."""
        return _KNOWN.sub(self._known, text)

    def prose(self, text: str) -> str:
        """A text in which what is known as a single word is replaced too, and all hosts with dots."""
        pieces: list[str] = []
        end = 0
        for match in _KNOWN.finditer(text):
            pieces += (_WORD.sub(self._word, text[end : match.start()]), self._pod(match) or self._known(match))
            end = match.end()
        pieces.append(_WORD.sub(self._word, text[end:]))
        return "".join(pieces)

    def learn_from(self, text: str) -> None:
        """Take the Services that a text names: NAMESPACE/NAME:PORT, and names of chains in nftables mode."""
        for match in _SERVICES.finditer(text):
            namespace, name, port = match.groups()
            if namespace not in _NO_SERVICE:
                self.learn_service(f"{namespace}/{name}:{port}" if port else f"{namespace}/{name}")
        for match in _NFT_CHAINS.finditer(text):
            if service := names.service_of_nft_chain(match[0]):
                self.learn_service(service)

    def _known(self, match: re.Match[str]) -> str:
        return self._BY_FORM[match.lastgroup or "service"](self, match[0])

    def _pod(self, match: re.Match[str]) -> str:
        """NAMESPACE/NAME as that of a pod, where there is one of that name; "" else."""
        namespace, _, name = match[0].partition("/")
        if match.lastgroup != "service" or name not in self._pods:
            return ""
        return f"{self.name('namespace', namespace)}/{self.name('pod', name)}"

    def _word(self, match: re.Match[str]) -> str:
        text = match[0]
        if text in self._words:
            return self._words[text]
        if match.lastgroup == "host" and not _NO_HOST.fullmatch(text):
            return self.name("host", text)
        return self.name("word", text) if self._holds_a_name(text) else text

    def _holds_a_name(self, text: str) -> bool:
        """Whether a word has a known name between its dashes and dots, as those of static pods have their node's."""
        ends = [match.start() for match in _BREAK.finditer(text)][:_MOST_BREAKS]
        return any(
            text[start:end] in self._words
            for start in (0, *(end + 1 for end in ends))
            for end in (*ends, len(text))
            if start < end and ends
        )

    def _service(self, text: str) -> str:
        return text if text.partition("/")[0] in _NO_SERVICE else self.service(text)

    _BY_FORM: Final[dict[str, Callable[[Renaming, str], str]]] = {
        "secret": lambda self, text: GONE,  # noqa: ARG005
        "nft": lambda self, text: self.nft_chain(text),
        "chain": lambda self, text: self.chain(text),
        "uid": lambda self, text: self.uid(text),
        "mac": lambda self, text: "00:00:00:00:00:00",  # noqa: ARG005
        "v6": lambda self, text: self.address(text),
        "v4": lambda self, text: self.address(text),
        "service": lambda self, text: self._service(text),
    }


_SERVICES: Final = re.compile(_SERVICE)
_BREAK: Final = re.compile(r"[-._]")
_MOST_BREAKS: Final = 16
_NFT_CHAINS: Final = re.compile(_NFT)


def _is_network(text: str) -> bool:
    """Whether an ADDRESS/LENGTH is a network, and not a host with the length of its network."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_v4(text: str) -> bool:
    return bool(re.fullmatch(r"(?:\d{1,3}\.){3}\d{1,3}", text))
