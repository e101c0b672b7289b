"""TLS: whom we trust, the certificate that we show, and what a failed handshake means in words.

Nothing here ever turns verification off: a server that cannot be verified gets no credential from us. Certificates are
not parsed beyond one date, the end of their validity, which is the one thing about a client certificate that the server
does not tell (it says 401, as to a stranger).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdnsctl.cluster.errors import CredentialError, KubeconfigError, TlsError

# OpenSSL's X509_V_ERR_* numbers, as ssl.SSLCertVerificationError.verify_code has them; openssl/x509_vfy.h
NOT_YET_VALID = 9
EXPIRED = 10
UNTRUSTED = (2, 18, 19, 20, 21)
WRONG_NAME = (62, 64)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate and its key, both PEM, and where they come from, for messages."""

    certificate: bytes
    key: bytes
    origin: str

    def __repr__(self) -> str:  # a key does not belong into a traceback
        return f"ClientCertificate({self.origin})"


def server_context(authority: bytes | None, client: ClientCertificate | None, origin: str) -> ssl.SSLContext:
    """A context that trusts `authority` (PEM; None: what this machine trusts) and shows `client`.

    `origin` says where the authority is written down. Raises KubeconfigError or CredentialError for what is no
    certificate or key.
    """
    if authority is not None and not authority.strip():  # Python would trust whomever this machine trusts
        raise KubeconfigError(f"the certificate authority of {origin} is empty")
    try:
        context = ssl.create_default_context(cadata=None if authority is None else authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"the certificate authority of {origin} is not a PEM certificate: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Kubernetes' own authorities are often made without what RFC 5280 wants of them; Python 3.13 began to insist on it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    if client:
        try:
            with _as_file(client.certificate + b"\n" + client.key) as file:
                context.load_cert_chain(file, password="")  # without one OpenSSL asks at the terminal, and waits
        except (ssl.SSLError, OSError) as error:
            what = "the client certificate and its key cannot be used"
            raise CredentialError(f"{what} ({client.origin}): {error}", hint="sign in again") from error
    return context


def read_pem(data: str | None, file: Path | None, what: str, origin: str) -> bytes | None:
    """The PEM of `data` (base64, which wins, as in kubectl) or of `file`; None when neither is given."""
    if data:
        try:
            return base64.b64decode(data, validate=False)
        except binascii.Error as error:
            raise KubeconfigError(f"{what}-data of {origin} is not base64: {error}") from error
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise KubeconfigError(f"{what} of {origin} cannot be read: {file}: {error.strerror or error}") from error


def not_after(pem: bytes) -> dt.datetime | None:
    """When the first certificate in `pem` ends to be valid; None when that cannot be told (RFC 5280, section 4.1)."""
    start = pem.find(b"-----BEGIN CERTIFICATE-----")
    end = pem.find(b"-----END CERTIFICATE-----")
    if start < 0 or end < start:
        return None
    try:
        der = base64.b64decode(pem[start + 27 : end])
        _, certificate, _ = _element(der, 0)
        _, body, _ = _element(certificate, 0)
        at = 0
        tag, _, after = _element(body, at)
        if tag == 0xA0:  # the version, which version 1 certificates leave out
            at = after
        for _ in range(3):  # serial number, signature algorithm, issuer
            _, _, at = _element(body, at)
        _, validity, _ = _element(body, at)
        _, _, second = _element(validity, 0)
        tag, moment, _ = _element(validity, second)
        return _time(tag, moment.decode("ascii"))
    except (IndexError, ValueError):
        return None


def _element(der: bytes, at: int) -> tuple[int, bytes, int]:
    """The DER element at `at`: its tag, its content, and where the next begins."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[start : start + size], "big")
        start += size
    if start + length > len(der):
        raise ValueError("cut off")
    return tag, der[start : start + length], start + length


def _time(tag: int, text: str) -> dt.datetime:
    """UTCTime (0x17; years 1950 to 2049) or GeneralizedTime."""
    if tag == 0x17:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return dt.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC)


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """`content` as a file for the length of a block: OpenSSL loads keys from files only. Nobody else can read it."""
    descriptor, name = tempfile.mkstemp(prefix="kdnsctl-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


def tls_error(error: ssl.SSLError, server: str, expected: str) -> TlsError:
    """What a failed handshake with `server` (host:port), whose name should be `expected`, means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _verification_error(error, server, expected)
    text = f"{error.reason or ''} {error}".lower()
    if "certificate expired" in text or "certificate_expired" in text:
        return TlsError(
            f"{server} refuses our client certificate: it has expired",
            hint="renew it (kubeadm: `kubeadm certs renew admin.conf`), or sign in again",
        )
    if "alert" in text and "certificate" in text:
        return TlsError(
            f"{server} refuses our client certificate: {error.reason or error}", hint="check --user and --context"
        )
    if "wrong_version_number" in text or "wrong version number" in text or "http_request" in text:
        return TlsError(f"{server} does not speak TLS", hint="is the port right, and should the server be http://?")
    if "unexpected_eof" in text or "eof occurred" in text:
        return TlsError(
            f"{server} ended the connection in the middle of the TLS handshake",
            hint="a load balancer without a living API server behind it does this; so does a filtering firewall",
        )
    return TlsError(f"no TLS connection to {server}: {error.reason or error}")


def _verification_error(error: ssl.SSLCertVerificationError, server: str, expected: str) -> TlsError:
    if error.verify_code == EXPIRED:
        return TlsError(
            f"the certificate of {server} has expired",
            hint="renew the API server's certificates (kubeadm: `kubeadm certs renew all`); or is this clock wrong?",
        )
    if error.verify_code == NOT_YET_VALID:
        return TlsError(f"the certificate of {server} is not valid yet", hint="check this machine's clock")
    if error.verify_code in WRONG_NAME:
        return TlsError(
            f"the certificate of {server} is not made out to {expected}",
            hint="if that server is the right one, name it as the certificate does: --tls-server-name NAME",
        )
    if error.verify_code in UNTRUSTED:
        return TlsError(
            f"the certificate of {server} is not signed by the authority in the kubeconfig ({error.verify_message})",
            hint="wrong context, a rebuilt cluster with an old kubeconfig, or a proxy in between that reads TLS",
        )
    return TlsError(f"the certificate of {server} is not to be trusted: {error.verify_message}")
