"""The manager's side of SSH, with servers that do not behave."""

import socket
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from experiment_manager.hosts import Host, Hosts
from experiment_manager.ssh import Machine, RemoteError


def test_a_server_that_goes_while_keys_are_agreed_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet_and_go() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-gone\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass  # what is unread would make it a reset, which is another fault

        server = threading.Thread(target=greet_and_go)
        server.start()
        port = listener.getsockname()[1]
        (tmp_path / "known_hosts").touch()
        host = Host(host="127.0.0.1", port=port, user="root", name="server")
        hosts = Hosts(server=host, clients=(Host(host="127.0.0.2"),), known_hosts=tmp_path / "known_hosts")
        with pytest.raises(RemoteError, match=rf"root@127\.0\.0\.1:{port} \(server\) cannot be reached: EOFError"):
            Machine(host, hosts).connect()
        server.join()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory; name your private key, or leave it out"),
        (b"ssh-ed25519 AAAA me@here", r"is no private key \(a public one ends in \.pub\)"),
        (bytes(range(256)), "is no private key"),
        (b"", "is no private key"),
    ],
)
def test_a_private_key_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    with pytest.raises(RemoteError, match=f"identity_file = '{key}' {said}"):
        login_with(key)


def test_a_private_key_with_a_passphrase_is_for_the_agent(tmp_path: Path) -> None:
    key = tmp_path / "key"
    encryption = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption
        )
    )
    with pytest.raises(RemoteError, match=rf"'{key}' is encrypted: give the key to the SSH agent \(ssh-add {key}\)"):
        login_with(key)


def login_with(key: Path) -> None:
    hosts = Hosts(server=Host(host="127.0.0.1"), clients=(Host(host="127.0.0.2"),), identity_file=key)
    Machine(hosts.server, hosts).connect()
