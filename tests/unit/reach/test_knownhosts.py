import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.reach.knownhosts import Answer, HostKey, Marker, judge, known_of, line_for, name_of, parse


def key(seed: int, algorithm: str = "ssh-ed25519") -> HostKey:
    name = algorithm.encode()
    return HostKey(algorithm, len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + bytes([seed]) * 32)


A, B, CA = key(1), key(2), key(3)


def line(names: str, of: HostKey, marker: str = "") -> str:
    return f"{marker} {names} {of.algorithm} {base64.b64encode(of.blob).decode()} a comment".strip() + "\n"


def answer(text: str, host: str, shown: HostKey, port: int = 22, alias: str = "") -> Answer:
    return judge(known_of(parse(text)[0], name_of(host, port, alias)), shown)


@pytest.fixture(scope="module")
def keygen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keys") / "host"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place], check=True)
    return place


class TestNames:
    @pytest.mark.parametrize(
        ("names", "host", "port", "meant"),
        [
            ("10.0.0.7", "10.0.0.7", 22, True),
            ("10.0.0.7", "10.0.0.7", 2222, False),
            ("[10.0.0.7]:2222", "10.0.0.7", 2222, True),
            ("[10.0.0.7]:2222", "10.0.0.7", 22, False),
            ("knode1,10.0.0.7", "10.0.0.7", 22, True),
            ("KNode1", "knode1", 22, True),
            ("knode1", "KNODE1", 22, True),
            ("knode1", "knode11", 22, False),
            ("*.example.com", "n1.example.com", 22, True),
            ("*.example.com", "example.com", 22, False),
            ("knode?", "knode7", 22, True),
            ("knode?", "knode", 22, False),
            ("*,!bastion", "bastion", 22, False),
            ("!bastion,*", "bastion", 22, False),
            ("!bastion,*", "knode1", 22, True),
            ("!bastion", "knode1", 22, False),
            ("[*]:2222", "knode1", 2222, True),
            ("knode[12]", "knode1", 22, False),
            ("fd00::7", "fd00::7", 22, True),
            ("[fd00::7]:2222", "fd00::7", 2222, True),
        ],
    )
    def test_for_whom_a_line_stands(self, names: str, host: str, port: int, meant: bool) -> None:
        expected = Answer.KNOWN if meant else Answer.UNKNOWN
        assert answer(line(names, A), host, A, port) is expected

    def test_an_alias_stands_for_host_and_port(self) -> None:
        assert answer(line("knode1", A), "10.0.0.7", A, 2222, alias="knode1") is Answer.KNOWN
        assert answer(line("10.0.0.7", A), "10.0.0.7", A, 22, alias="knode1") is Answer.UNKNOWN


class TestJudging:
    def test_another_key_than_the_known_one_is_a_change(self) -> None:
        assert answer(line("knode1", A), "knode1", B) is Answer.CHANGED

    def test_any_of_several_known_keys_is_good(self) -> None:
        text = line("knode1", A) + line("knode1", B)
        assert answer(text, "knode1", A) is Answer.KNOWN
        assert answer(text, "knode1", B) is Answer.KNOWN

    def test_a_revoked_key_is_bad_even_if_it_is_known(self) -> None:
        text = line("knode1", A) + line("*", A, "@revoked")
        assert answer(text, "knode1", A) is Answer.REVOKED

    def test_an_authority_is_no_host_key(self) -> None:
        text = line("*.example.com", CA, "@cert-authority")
        assert answer(text, "n1.example.com", CA) is Answer.NEEDS_CERTIFICATE
        assert answer(text, "n1.example.com", A) is Answer.NEEDS_CERTIFICATE
        assert answer(text, "elsewhere", A) is Answer.UNKNOWN

    def test_an_authority_line_hides_no_other_line(self) -> None:
        """The trap that makes paramiko's own reader useless: it gives up on the whole file."""
        text = line("*", CA, "@cert-authority") + line("knode1", A)
        assert answer(text, "knode1", A) is Answer.KNOWN
        assert answer(text, "knode1", B) is Answer.CHANGED


class TestLines:
    @pytest.mark.parametrize(
        "bad",
        [
            "knode1",
            "knode1 ssh-ed25519",
            "knode1 ssh-ed25519 not*base64",
            "knode1 ssh-ed25519 AAAA",
            f"knode1 ssh-rsa {base64.b64encode(A.blob).decode()}",
            f"@unheard-of knode1 ssh-ed25519 {base64.b64encode(A.blob).decode()}",
            "@cert-authority",
            "knode1 1024 35 1234567890",  # protocol 1
        ],
    )
    def test_what_cannot_be_read_makes_nothing_known_and_hides_nothing(self, bad: str) -> None:
        lines, unreadable = parse(f"{bad}\n{line('knode2', B)}")
        assert ([one.names for one in lines], unreadable) == ([("knode2",)], 1)

    def test_comments_and_empty_lines_are_nothing(self) -> None:
        assert parse("# knode1 ssh-ed25519 AAAA\n\n   \n") == ([], 0)

    @given(text=st.text())
    def test_any_text_can_be_read(self, text: str) -> None:
        lines, _ = parse(text)
        assert all(one.key.blob for one in lines)

    def test_markers_are_told_apart(self) -> None:
        text = line("a", A) + line("a", CA, "@cert-authority") + line("a", B, "@revoked")
        assert [one.marker for one in parse(text)[0]] == [Marker.NONE, Marker.AUTHORITY, Marker.REVOKED]


class TestBesideOpenSSH:
    """The same files, read by ssh-keygen."""

    def test_fingerprints_are_the_same(self, keygen: Path) -> None:
        public = (keygen.parent / "host.pub").read_text().split()
        shown = parse(f"knode1 {public[0]} {public[1]}\n")[0][0].key
        said = subprocess.run(["ssh-keygen", "-l", "-f", f"{keygen}.pub"], check=True, capture_output=True, text=True)
        assert said.stdout.split()[1] == shown.fingerprint

    @pytest.mark.parametrize(("host", "port"), [("knode1", 22), ("10.0.0.7", 2222), ("fd00::7", 22)])
    def test_what_it_hashed_is_found(self, keygen: Path, tmp_path: Path, host: str, port: int) -> None:
        public = (keygen.parent / "host.pub").read_text().split()
        file = tmp_path / "known_hosts"
        file.write_text(f"{name_of(host, port)} {public[0]} {public[1]}\n")
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
        text = file.read_text()
        assert text.startswith("|1|")
        shown = parse(text)[0][0].key
        assert answer(text, host, shown, port) is Answer.KNOWN
        assert answer(text, "knode2", shown, port) is Answer.UNKNOWN

    @pytest.mark.parametrize("hashed", [False, True])
    def test_what_we_write_it_finds(self, keygen: Path, tmp_path: Path, hashed: bool) -> None:
        public = (keygen.parent / "host.pub").read_text().split()
        file = tmp_path / "known_hosts"
        file.write_text(
            line_for(name_of("knode1", 2222), HostKey(public[0], base64.b64decode(public[1])), hashed=hashed)
        )
        found = subprocess.run(
            ["ssh-keygen", "-F", "[knode1]:2222", "-f", file], capture_output=True, text=True, check=False
        )
        assert found.returncode == 0
        assert public[1] in found.stdout
