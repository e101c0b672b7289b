from __future__ import annotations

import datetime as dt
import ssl

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cluster.certificates import not_after, read_pem, server_context, tls_error
from kdnsctl.cluster.errors import KubeconfigError

CA = trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.mark.parametrize("year", [2029, 2049, 2050, 2999])  # the encoding of time changes with 2050
def test_the_end_of_a_certificates_validity(year: int) -> None:
    end = dt.datetime(year, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    leaf = CA.issue_cert("a.test", not_after=end, key_type=trustme.KeyType.ECDSA)
    pem = leaf.cert_chain_pems[0].bytes()
    assert not_after(pem) == end
    assert not_after(b"a comment\n" + pem + CA.cert_pem.bytes()) == end


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----", CA.cert_pem.bytes().replace(b"M", b"A")])
def test_what_is_no_certificate_has_no_end(pem: bytes) -> None:
    assert not_after(pem) is None


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_damaged_certificates_break_nothing(at: int, damage: bytes) -> None:
    pem = CA.cert_pem.bytes()
    end = not_after(pem[:at] + damage + pem[at + len(damage) :])
    assert end is None or end.tzinfo is dt.UTC


def test_authorities_are_checked_before_anything_is_sent() -> None:
    context = server_context(CA.cert_pem.bytes(), None, "cluster c")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    for broken in (b"\n", b"nothing", "ä".encode()):
        with pytest.raises(KubeconfigError, match=r"authority of cluster c is (empty|not a PEM certificate)"):
            server_context(broken, None, "cluster c")
    assert server_context(None, None, "cluster c").verify_mode is ssl.CERT_REQUIRED


def test_base64_that_is_none() -> None:
    with pytest.raises(KubeconfigError, match="certificate-authority-data of cluster c is not base64"):
        read_pem("abc", None, "certificate-authority", "cluster c")
    assert read_pem(None, None, "certificate-authority", "cluster c") is None


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA certificate alert", "refuses our client certificate"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "has expired"),
        ("UNEXPECTED_EOF_WHILE_READING", "ended the connection in the middle of the TLS handshake"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("SOMETHING_NEW", "no TLS connection to h:1: SOMETHING_NEW"),
    ],
)
def test_what_a_handshake_that_fails_means(reason: str, said: str) -> None:
    error = ssl.SSLError(1, f"[SSL: {reason}] text (_ssl.c:1006)")
    error.reason = reason
    assert said in str(tls_error(error, "h:1", "h"))
