import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnsctl.reach.sshconfig import Hop, SshConfigError, SshOptions, way_to

Way = Callable[..., tuple[Hop, ...]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))  # paramiko looks there itself
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.fixture(params=["OpenSSH", "paramiko"])
def way(request: pytest.FixtureRequest, home: Path) -> Way:
    """`way_to` with a configuration, read in both ways: they have to agree."""
    client = shutil.which("ssh")
    assert client, "these tests compare with OpenSSH: install openssh-client"
    path = str(Path(client).parent) if request.param == "OpenSSH" else str(home / "empty")

    def ask(config: str, name: str, **options: object) -> tuple[Hop, ...]:
        file = home / ".ssh" / "config"
        file.write_text(config)
        file.chmod(0o600)
        where = {key: options.pop(key) for key in ("address", "alias") if key in options}
        environment = {"PATH": path, "HOME": str(home), "USER": "alice", "SSH_AUTH_SOCK": "/run/agent"}
        said = SshOptions(config=str(file), environment=environment, home=str(home), **options)  # type: ignore[arg-type]
        return way_to(name, said, **where)  # type: ignore[arg-type]

    return ask


def only(hops: tuple[Hop, ...]) -> Hop:
    (hop,) = hops
    return hop


class TestOneHost:
    def test_what_the_file_says_counts(self, way: Way, home: Path) -> None:
        hop = only(
            way(
                """
                Host knode1
                    HostName 10.0.0.7
                    Port 2222
                    User core
                    IdentityFile ~/.ssh/id_fleet
                    IdentitiesOnly yes
                    CertificateFile ~/.ssh/id_fleet-cert.pub
                    UserKnownHostsFile /fleet/known_hosts
                    GlobalKnownHostsFile /dev/null
                    HostKeyAlias fleet
                    HashKnownHosts yes
                """,
                "knode1",
            )
        )
        assert (hop.name, hop.hostname, hop.port, hop.user) == ("knode1", "10.0.0.7", 2222, "core")
        assert hop.identity_files == (f"{home}/.ssh/id_fleet",)
        assert hop.certificate_files == (f"{home}/.ssh/id_fleet-cert.pub",)
        assert (hop.identities_only, hop.host_key_alias, hop.hash_known_hosts) == (True, "fleet", True)
        assert hop.known_hosts == ("/fleet/known_hosts", "/dev/null")
        assert hop.proxy_command == ""

    def test_the_command_line_wins(self, way: Way) -> None:
        hop = only(
            way(
                "Host knode1\n HostName 10.0.0.7\n User core\n Port 2222\n IdentityFile /keys/file\n",
                "knode1",
                user="root",
                port=22,
                identity_files=("/keys/said",),
                known_hosts="/known/said",
            )
        )
        assert (hop.user, hop.port, hop.identity_files, hop.known_hosts) == (
            "root",
            22,
            ("/keys/said",),
            ("/known/said",),
        )
        assert hop.identities_only

    def test_tokens_stand_for_what_they_stand_for(self, way: Way, home: Path) -> None:
        hop = only(way("Host knode1\n HostName 10.0.0.7\n User core\n IdentityFile %d/keys/%r@%h\n", "knode1"))
        assert hop.identity_files == (f"{home}/keys/core@10.0.0.7",)

    def test_a_proxy_command_is_kept_as_it_is_meant(self, way: Way) -> None:
        hop = only(way("Host knode1\n HostName 10.0.0.7\n Port 23\n ProxyCommand relay '%h' %p\n", "knode1"))
        assert hop.proxy_command == "relay '10.0.0.7' 23"

    @pytest.mark.parametrize(
        ("said", "agent"),
        [("", "/run/agent"), (" IdentityAgent none\n", ""), (" IdentityAgent /run/other\n", "/run/other")],
    )
    def test_which_agent(self, way: Way, said: str, agent: str) -> None:
        assert only(way(f"Host knode1\n HostName 10.0.0.7\n{said}", "knode1")).agent == agent

    def test_a_file_that_cannot_be_read_is_an_error(self, way: Way) -> None:
        with pytest.raises(SshConfigError):
            way("Host knode1\n Port many\n", "knode1")


class TestAddresses:
    def test_a_name_without_a_host_name_is_at_its_address(self, way: Way) -> None:
        hop = only(way("Host other\n User core\n", "knode1", address="10.0.0.7", alias="knode1"))
        assert (hop.hostname, hop.host_key_alias) == ("10.0.0.7", "knode1")

    def test_a_host_name_is_the_operators_word(self, way: Way) -> None:
        assert only(way("Host knode1\n HostName 203.0.113.9\n", "knode1", address="10.0.0.7")).hostname == "203.0.113.9"

    def test_files_written_for_addresses_count(self, way: Way) -> None:
        hops = way(
            "Host 10.0.*\n User core\n ProxyJump bastion\nHost bastion\n HostName 192.0.2.1\n",
            "knode1",
            address="10.0.0.7",
        )
        assert [(hop.name, hop.hostname, hop.user) for hop in hops][1:] == [("knode1", "10.0.0.7", "core")]
        assert hops[0].hostname == "192.0.2.1"

    def test_files_written_for_names_count_without_a_host_name(self, way: Way) -> None:
        hop = only(way("Host knode*\n User core\n Port 2222\n", "knode1", address="10.0.0.7"))
        assert (hop.hostname, hop.user, hop.port) == ("10.0.0.7", "core", 2222)


class TestJumps:
    CONFIG = """
        Host inner
            HostName 10.1.0.1
            ProxyJump outer
        Host outer
            HostName 192.0.2.1
            User jump
            Port 2200
        Host knode1
            HostName 10.2.0.7
            ProxyJump outer,ops@inner:2201
        Host far
            HostName 10.2.0.8
            ProxyJump inner
    """

    def test_several_are_gone_through_in_order(self, way: Way) -> None:
        hops = way(self.CONFIG, "knode1")
        assert [(hop.hostname, hop.port) for hop in hops] == [("192.0.2.1", 2200), ("10.1.0.1", 2201), ("10.2.0.7", 22)]
        assert [hop.user for hop in hops][:2] == ["jump", "ops"]

    def test_the_first_has_its_own_way(self, way: Way) -> None:
        assert [hop.hostname for hop in way(self.CONFIG, "far")] == ["192.0.2.1", "10.1.0.1", "10.2.0.8"]

    def test_the_command_line_says_another_way(self, way: Way) -> None:
        assert [hop.hostname for hop in way(self.CONFIG, "knode1", jumps=("outer",))] == ["192.0.2.1", "10.2.0.7"]

    def test_a_circle_is_told(self, way: Way) -> None:
        with pytest.raises(SshConfigError) as caught:
            way("Host a\n HostName 10.0.0.1\n ProxyJump b\nHost b\n HostName 10.0.0.2\n ProxyJump a\n", "a")
        assert "circle" in str(caught.value)

    def test_none_is_none(self, way: Way) -> None:
        assert len(way("Host knode1\n HostName 10.0.0.7\n ProxyJump none\nHost *\n ProxyJump outer\n", "knode1")) == 1


class TestInclude:
    def test_included_files_count_and_end(self, way: Way, home: Path) -> None:
        (home / ".ssh" / "fleet").write_text("Host knode*\n HostName 10.0.0.7\n User core\n")
        hop = only(way("Include fleet\nPort 2222\nHost other\n User nobody\n", "knode1"))
        assert (hop.hostname, hop.user, hop.port) == ("10.0.0.7", "core", 2222)

    def test_globs_and_nesting(self, way: Way, home: Path) -> None:
        (home / ".ssh" / "config.d").mkdir()
        (home / ".ssh" / "config.d" / "10-a").write_text("Include ~/.ssh/deeper\n")
        (home / ".ssh" / "config.d" / "20-b").write_text("Host knode1\n User second\n")
        (home / ".ssh" / "deeper").write_text("Host knode1\n User first\n HostName 10.0.0.7\n")
        assert only(way("Include config.d/*\n", "knode1")).user == "first"

    def test_nothing_included_is_nothing(self, way: Way) -> None:
        assert only(way("Include absent/*\nHost knode1\n HostName 10.0.0.7\n", "knode1")).hostname == "10.0.0.7"

    def test_a_circle_of_files_is_told(self, way: Way, home: Path) -> None:
        (home / ".ssh" / "round").write_text("Include round\n")
        with pytest.raises(SshConfigError):
            way("Include round\n", "knode1")

    def test_without_openssh_what_would_mean_something_else_is_refused(self, home: Path) -> None:
        (home / ".ssh" / "inner").write_text("Host knode1\n User wrong\n")
        (home / ".ssh" / "config").write_text("Host other\n Include inner\n")
        options = SshOptions(
            config=str(home / ".ssh" / "config"), environment={"PATH": "", "HOME": str(home)}, home=str(home)
        )
        with pytest.raises(SshConfigError) as caught:
            way_to("knode1", options)
        assert "for certain hosts only" in str(caught.value)


class TestHostileNames:
    @pytest.mark.parametrize("name", ["-oProxyCommand=touch /tmp/x", "-F/etc/passwd"])
    def test_a_name_is_never_an_option(self, home: Path, name: str) -> None:
        environment = {"PATH": str(Path(shutil.which("ssh") or "").parent), "HOME": str(home)}
        with pytest.raises(SshConfigError) as caught:
            way_to(name, SshOptions(environment=environment, home=str(home)))
        assert "no name of a host" in str(caught.value)

    @pytest.mark.parametrize("jump", ["", "a b", "x@", "host:99999999", "[::1"])
    def test_a_jump_that_is_none_is_told(self, way: Way, jump: str) -> None:
        with pytest.raises(SshConfigError):
            way("Host knode1\n HostName 10.0.0.7\n", "knode1", jumps=(jump,))
