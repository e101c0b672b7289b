from __future__ import annotations

import pytest

from kdnsctl.cluster.errors import KubeconfigError
from kdnsctl.cluster.proxies import Proxy, bypassed, parse, proxy_for


@pytest.mark.parametrize(
    ("no_proxy", "host", "expected"),
    [
        ("", "api.test", False),
        ("*", "api.test", True),
        ("test", "api.test", True),
        (".test", "api.test", True),
        ("*.test", "api.test", True),
        (".api.test", "api.test", False),
        ("pi.test", "api.test", False),
        ("other, api.test", "api.test", True),
        ("api.test:6443", "api.test", True),
        ("api.test:443", "api.test", False),
        ("API.TEST", "api.test", True),
        ("api.test", "API.test.", True),
        ("10.0.0.0/8", "10.2.3.4", True),
        ("10.0.0.0/8", "11.2.3.4", False),
        ("10.2.3.4", "10.2.3.4", True),
        ("10.2.3.4:6443", "10.2.3.4", True),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:6443", "fd00::1", True),
        ("10.0.0.0/8", "api.test", False),
        ("", "localhost", True),
        ("", "127.3.2.1", True),
        ("", "::1", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(no_proxy: str, host: str, expected: bool) -> None:
    assert bypassed(host, 6443, no_proxy) is expected


def test_where_the_proxy_comes_from() -> None:
    environment = {"https_proxy": "proxy.test:3128", "HTTP_PROXY": "http://plain.test"}
    proxy = proxy_for("https", "api.test", 6443, None, environment)
    assert proxy == Proxy("http", "proxy.test", 3128, "https_proxy")
    assert proxy_for("http", "api.test", 80, None, environment) == Proxy("http", "plain.test", 80, "HTTP_PROXY")
    assert proxy_for("https", "api.test", 6443, None, environment | {"no_proxy": "api.test"}) is None
    named = proxy_for("https", "api.test", 6443, "socks5://s.test", environment | {"NO_PROXY": "*"})
    assert named == Proxy("socks5", "s.test", 1080, "proxy-url in the kubeconfig")
    assert proxy_for("https", "api.test", 6443, None, {}) is None


def test_a_proxys_password_is_not_shown() -> None:
    proxy = parse("https://me:p%40ss@[fd00::1]", "HTTPS_PROXY")
    assert (proxy.user, proxy.password, proxy.url) == ("me", "p@ss", "https://[fd00::1]:443")
    assert "p@ss" not in repr(proxy)


@pytest.mark.parametrize("url", ["ftp://x:1", "http://", "http://x:port", "http://[x"])
def test_a_proxy_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(KubeconfigError, match="HTTPS_PROXY"):
        parse(url, "HTTPS_PROXY")
