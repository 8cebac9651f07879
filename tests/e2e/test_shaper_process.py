"""``python -m network_shaping relay`` as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from moonjelly.telemetry import FrameRow, ShapingRow, read_rows
from tests.support.serving import ended_at_last, running_server, until

COMMAND = [sys.executable, "-m", "network_shaping"]


@pytest.fixture
def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_it_says_when_it_is_ready_and_stops_on_sigterm(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [*COMMAND, "relay", "--server", f"127.0.0.1:{port}", "--clients", "2", "--trace", "lte-city"]
        process = subprocess.Popen(
            [*command, "--seed", "3", "--out", str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        with ended_at_last(process):
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["pid"] == process.pid
            assert list(ready["links"]) == ["client-0", "client-1"]
            assert ready["ports"] == [link["port"] for link in ready["links"].values()]
            with socket.create_connection(("127.0.0.1", ready["ports"][1])) as client:
                client.sendall(b"hello")
                inner, _ = server.accept()
                with inner:
                    assert inner.recv(5, socket.MSG_WAITALL) == b"hello"
            process.send_signal(signal.SIGTERM)
            assert process.wait(100) == 0
    assert (tmp_path / "shaping.csv").read_text(encoding="utf-8").startswith("ts,link,bw,actual_bw,late_ms\n")


def test_it_stops_with_its_parent(environment: dict[str, str]) -> None:
    """A parent that is killed cannot stop its children; the shaper notices."""
    parent = f"""
import subprocess, sys, os
read, write = os.pipe()
arguments = ["relay", "--server", "127.0.0.1:9", "--link", "a=lte-city", "--ready-fd", str(write)]
child = subprocess.Popen({COMMAND!r} + arguments, pass_fds=[write])
os.write(1, os.read(read, 65536))
child.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environment)
    with ended_at_last(process):
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["pid"]
        assert not ended(pid)
    until(lambda: ended(pid), "it outlives its parent")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["relay", "--server", "nowhere", "--link", "a=lte-city"], "'nowhere' is not HOST:PORT"),
        (["relay", "--server", "h:1"], "no link to shape"),
        (["relay", "--server", "h:1", "--clients", "2"], "--clients needs --trace"),
        (["relay", "--server", "h:1", "--link", "a"], "'a' is not NAME=TRACE"),
        (["relay", "--server", "h:1", "--link", "a=lte-city", "--link", "a=subway"], "names 'a' twice"),
        (["relay", "--server", "h:1", "--link", "a=lte-city@soon"], "'soon' in 'lte-city@soon' is not an offset"),
        (["relay", "--server", "h:1", "--link", "a=lte-city", "--downlink", "b=subway"], "which no --link has"),
        (["trace", "lte"], "'lte' is neither a trace file nor one of the names"),
    ],
)
def test_a_mistake_is_one_line(environment: dict[str, str], arguments: list[str], complaint: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_jellyfish_s_shaping_script(root: Path, tmp_path: Path) -> None:
    """Its seven arguments, with the relay in place of tc: a client is served over its shaped link."""
    script = root / "src" / "client" / "run_network_shaping.sh"
    with running_server(tmp_path) as server:
        done = subprocess.run(
            [str(script), "127.0.0.1", "host_3", "1000", "15", "synthetic", "eth0", "synthetic_trace"],
            env={
                **os.environ,
                "shaping": "relay",
                "server_port": str(server.port),
                "client_args": "--seconds 2",
                "log_path": str(tmp_path / "host_3"),
            },
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    rows = list(read_rows(tmp_path / "host_3" / "frame_stats.csv", FrameRow))
    assert len(rows) == 30
    (change, *_) = read_rows(tmp_path / "host_3" / "shaping.csv", ShapingRow)
    assert change.link == "host_3"
    assert change.actual_bw in (20.0, 15.0, 10.0, 7.5)


@pytest.mark.parametrize("terminal", [False, True], ids=["terminated", "Ctrl-C"])
def test_jellyfish_s_shaping_script_ends_the_client_before_its_link(root: Path, tmp_path: Path, terminal: bool) -> None:
    script, logs = root / "src" / "client" / "run_network_shaping.sh", tmp_path / "host_3"
    with running_server(tmp_path) as server:
        variables = {"shaping": "relay", "server_port": str(server.port), "client_args": "--seconds 600"}
        environment = {**os.environ, **variables, "log_path": str(logs)}
        with (tmp_path / "errors").open("w") as errors:
            running = subprocess.Popen(
                [str(script), "127.0.0.1", "host_3", "5000", "15", "synthetic", "eth0", "synthetic_trace"],
                env=environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
            )  # fmt: skip
        stats = logs / "frame_stats.csv"
        with ended_at_last(running):
            until(lambda: stats.exists() and "ON_TIME" in stats.read_text(), (tmp_path / "errors").read_text)
            said = (tmp_path / "errors").read_text()
            if terminal:
                os.killpg(running.pid, signal.SIGINT)
            else:
                running.terminate()
            assert running.wait(100) == (130 if terminal else 143)
    lost = re.findall("RECONNECTING.*", (tmp_path / "errors").read_text().removeprefix(said))
    assert all("has stopped answering" in line for line in lost), "a busy machine may be silent; the link has not ended"
    assert (logs / "summary.json").exists()


def test_jellyfish_s_shaping_script_passes_errors_on(root: Path, tmp_path: Path) -> None:
    script = root / "src" / "client" / "run_network_shaping.sh"
    usage = subprocess.run([str(script), "127.0.0.1"], capture_output=True, text=True, check=False)
    assert usage.returncode == 2
    assert "<network_iface> <network_trace_type>" in usage.stderr
    failed = subprocess.run(
        [str(script), "127.0.0.1", "host_0", "100", "15", "synthetic", "eth0", "no_such_trace"],
        env={**os.environ, "shaping": "relay", "log_path": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert failed.returncode == 2
    assert "'no_such_trace' is neither a trace file nor one of the names" in failed.stderr
