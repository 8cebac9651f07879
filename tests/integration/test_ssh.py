"""The manager's side of SSH, with servers that do not behave."""

import socket
import threading
from pathlib import Path

import pytest

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
