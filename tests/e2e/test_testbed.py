"""The three machines as namespaces: real sshd, real addresses, and nothing left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.testbed import machines
from cli.testbed.layout import Layout
from network_shaping.ownership import DIRECTORY
from tests.support.serving import ended_at_last

pytestmark = pytest.mark.netns
NAME = f"t{os.getpid()}"
"""Of this process, so that two test runs on one host leave each other's testbed alone."""


@pytest.fixture(autouse=True)
def allowed() -> None:
    if found := machines.problems():
        pytest.skip("network namespaces not available: " + "; ".join(found))


@pytest.fixture
def layout() -> Iterator[Layout]:
    machines.down(NAME)
    made = Layout(NAME, clients=2)
    machines.up(made)
    yield made
    machines.down(NAME)


def namespaces() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if f"-{NAME}-" in line]


def run_on(layout: Layout, role: str, *command: str) -> subprocess.CompletedProcess[str]:
    place = next(machine for machine in layout.machines if machine.role == role)
    return subprocess.run(machines.command_in(place, command), capture_output=True, text=True, check=False, timeout=200)


def test_machines_reach_one_another_and_have_no_name_servers(layout: Layout) -> None:
    probe = (
        "import socket, pathlib, sys\n"
        "for host in sys.argv[1:]: socket.create_connection((host, 22), timeout=60).close()\n"
        "print('nameserver' in pathlib.Path('/etc/resolv.conf').read_text())"
    )
    done = run_on(layout, "manager", sys.executable, "-c", probe, "server", "client0", "client1")
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr


def test_machines_never_pace_what_they_send_whatever_the_host_does(layout: Layout) -> None:
    for role in ("server", "client1"):
        assert run_on(layout, role, "cat", "/proc/sys/net/ipv4/tcp_congestion_control").stdout.strip() == "reno"


def test_manager_logs_in_by_key_with_known_hosts_only(layout: Layout) -> None:
    probe = (
        "import paramiko, sys\n"
        "client = paramiko.SSHClient(); client.load_host_keys(sys.argv[1])\n"
        "client.set_missing_host_key_policy(paramiko.RejectPolicy())\n"
        "for host in sys.argv[3:]:\n"
        "    client.connect(host, username='root', key_filename=sys.argv[2], allow_agent=False, look_for_keys=False)\n"
        "    _, out, _ = client.exec_command('cat /sys/class/net/*/address | sort -u | wc -l')\n"
        "    print(out.read().decode().strip())\n"
        "    client.close()\n"
    )
    manager = layout.manager.directory
    arguments = [str(manager / "known_hosts"), str(manager / "id_ed25519"), "10.77.0.1", "10.77.0.10"]
    done = run_on(layout, "manager", sys.executable, "-W", "ignore", "-c", probe, *arguments)
    assert done.returncode == 0, done.stderr
    counts = [int(line) for line in done.stdout.split()]
    assert counts[0] > counts[1], "the server holds the switch's ports as well"


def test_down_leaves_nothing(layout: Layout) -> None:
    pids = [int(line) for one in namespaces() for line in _pids(one)]
    assert len(pids) >= 3
    machines.down(NAME)
    assert namespaces() == []
    assert not layout.directory.exists()
    assert not layout.work_directory.exists()
    assert not [pid for pid in pids if _alive(pid)]
    assert not list(Path("/etc/netns").glob(f"mj-{NAME}-*"))


def test_down_after_the_maker_was_killed() -> None:
    machines.down(NAME)
    maker = (
        "import json, os, sys; from cli.testbed import machines; from cli.testbed.layout import Layout\n"
        f"machines.up(Layout({NAME!r})); print(json.dumps('up'), flush=True)\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    done = subprocess.run([sys.executable, "-c", maker], capture_output=True, text=True, check=False, timeout=200)
    assert json.loads(done.stdout) == "up"
    assert done.returncode == -signal.SIGKILL
    assert len(namespaces()) == 3
    assert machines.down(NAME)
    assert namespaces() == []


KILLED_AT = """
import os, signal, sys
from cli.testbed import machines
from cli.testbed.layout import Layout
verb, name, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
run, calls = machines._run, []
def run_until(command):
    calls.append(command)
    if len(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(command)
machines._run = run_until
machines.up(Layout(name)) if verb == "up" else machines.down(name)
"""


@pytest.mark.parametrize(("verb", "call"), [("up", 2), ("up", 4), ("up", 9), ("up", 17), ("down", 5), ("down", 8)])
def test_down_after_a_kill_between_two_steps(verb: str, call: int) -> None:
    """Killed before a namespace was made for the files that wait for it, with half a cable, between two removals."""
    if verb == "down":
        machines.up(Layout(NAME))
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, verb, NAME, str(call)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if Layout(NAME).directory.exists() or Layout(NAME).work_directory.exists():
        with pytest.raises(machines.TestbedError, match=rf"half made; 'moonjelly testbed down --name {NAME}' removes"):
            machines.up(Layout(NAME))
    machines.down(NAME)
    assert not namespaces()
    assert not list(Path("/etc/netns").glob(f"mj-{NAME}-*"))
    assert not Layout(NAME).directory.exists()
    assert not Layout(NAME).work_directory.exists()


def test_down_forgets_who_shaped_an_interface(layout: Layout) -> None:
    number = Path(f"/run/netns/{layout.server.namespace}").stat().st_ino
    owner = DIRECTORY / f"{number}-eth0.json"
    owner.parent.mkdir(parents=True, exist_ok=True)
    owner.write_text("{}", encoding="utf-8")
    machines.down(NAME)
    assert not owner.exists()


def test_who_may_not_make_machines_is_told_what_it_takes_before_anything_is_made() -> None:
    command = (
        "import os; from cli.testbed import machines; from cli.testbed.layout import Layout\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setuid(65534)\n"
        f"try: machines.up(Layout({NAME!r}))\n"
        "except machines.TestbedError as fault: print(fault)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False, timeout=200)
    assert "needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN: use sudo" in done.stdout, done.stderr
    assert namespaces() == []
    assert not Layout(NAME).directory.exists()


def test_a_failed_up_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.down(NAME)
    monkeypatch.setattr(machines, "_program", lambda name: "/bin/false")
    with pytest.raises(machines.TestbedError, match="sshd of server did not start"):
        machines.up(Layout(NAME))
    assert namespaces() == []


def test_up_twice_is_refused(layout: Layout) -> None:
    with pytest.raises(machines.TestbedError, match="is up already"):
        machines.up(layout)


def test_the_command_runs_on_a_machine(layout: Layout, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "testbed", "run", "--name", NAME, "--", "sh", "-c", "cat $MOONJELLY_HOSTS"],
        capture_output=True, text=True, check=False, cwd=root, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[[clients]]" in done.stdout


def test_the_command_takes_the_place_of_the_one_that_starts_it(layout: Layout, root: Path) -> None:
    """So that Ctrl-C is its own to act on: a sweep has remote processes to stop before it ends."""
    words = [sys.executable, "-m", "cli", "testbed", "run", "--name", NAME, "--", "sh", "-c", "echo $$"]
    started = subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True)
    with ended_at_last(started):
        assert int(started.communicate(timeout=200)[0]) == started.pid


def _pids(namespace: str) -> list[str]:
    return subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True).stdout.split()


def _alive(pid: int) -> bool:
    """Whether it still runs; an orphan that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # also while it is being read
        return False
    return state != "Z"
