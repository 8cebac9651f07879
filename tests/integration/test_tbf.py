"""The tc shaper on a real interface, in network namespaces of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from moonjelly.telemetry import ShapingRow
from network_shaping.ownership import DIRECTORY
from tests.support import namespaces
from tests.support.namespaces import INTERFACE, SERVER_ADDRESS, Pair
from tests.support.serving import ended_at_last, rows_so_far, until

pytestmark = pytest.mark.netns

COUNTER = """
import socket, sys
# Counts what came by sequence number; ends on 'end', says which numbers came.
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind((sys.argv[1], 5001))
print("ready", flush=True)
came = []
while (data := server.recv(2048)) != b"end":
    came.append(int(data[:8]))
print(came, flush=True)
"""
SEND = """
import socket, sys
# Sends ten numbers from each number that it reads, and says so; anything else as it is.
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(("", 4001))
print("ready", flush=True)
for line in map(str.strip, sys.stdin):
    words = [b"%08d" % (int(line) + one) + bytes(900) for one in range(10)] if line.isdigit() else [line.encode()]
    for word in words:
        client.sendto(word, (sys.argv[1], 5001))
    print("sent", flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def allowed() -> None:
    if found := namespaces.problem():
        pytest.skip(found)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair.make("tbf")
    yield made
    made.remove()


@contextlib.contextmanager
def shaper(
    pair: Pair, *arguments: str, pass_fds: Sequence[int] = ()
) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    process = subprocess.Popen(
        pair.shaping("tc", "--interface", INTERFACE, *arguments),
        stdout=subprocess.PIPE,
        text=True,
        env=namespaces.environment(),
        pass_fds=pass_fds,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield process, json.loads(line) if line else {}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def run(pair: Pair, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        pair.shaping(*arguments), capture_output=True, text=True, env=namespaces.environment(), check=False
    )


def gso_max_segs(pair: Pair) -> int:
    shown = subprocess.run(
        pair.inside(pair.client, "ip", "-d", "-j", "link", "show", INTERFACE),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(json.loads(shown.stdout)[0]["gso_max_segs"])


def trace(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "trace.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def owner_files() -> list[Path]:
    return list(DIRECTORY.glob(f"*-{INTERFACE}.json"))


def test_a_leaf_per_link_and_nothing_left(pair: Pair) -> None:
    segments = gso_max_segs(pair)
    links = ("--link", "a=synthetic_trace", "--link", "b=synthetic_trace@50")
    with shaper(pair, *links, "--target", f"{SERVER_ADDRESS}:1") as (process, ready):
        assert ready["pid"] == process.pid
        shown = pair.qdiscs()
        assert "qdisc htb 4d4a: root" in shown
        assert "rate 20Mbit burst 5000b" in shown
        assert "rate 10Mbit burst 5000b" in shown
        assert gso_max_segs(pair) == 1
        assert owner_files()
    assert process.returncode == 0
    assert "htb" not in pair.qdiscs()
    assert gso_max_segs(pair) == segments
    assert not owner_files()


def test_a_link_s_connections_are_its_own_whatever_their_port(pair: Pair, tmp_path: Path) -> None:
    """Two links with ports of their own, reconnecting; each leaf counts its own bytes."""
    serve = (
        "import socket\n"
        f"server = socket.create_server(('{SERVER_ADDRESS}', 5001))\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    peer, _ = server.accept()\n"
        "    total = 0\n"
        "    while data := peer.recv(65536): total += len(data)\n"
        "    peer.sendall(b'%d' % total); peer.close()\n"
    )
    send = (
        "import socket, sys\n"
        "for _ in range(3):\n"
        "    with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as client:\n"
        "        client.sendall(bytes(50_000)); client.shutdown(socket.SHUT_WR)\n"
        "        assert client.recv(64) == b'50000'\n"
    )
    server = subprocess.Popen(pair.python(pair.server, serve), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        rate = trace(tmp_path, "50")
        links = ("--link", f"a={rate}", "--link", f"b={rate}")
        with shaper(pair, *links, "--target", f"{SERVER_ADDRESS}:5001") as (_, ready):
            ports = ready["ports"]
            assert isinstance(ports, list)
            subprocess.run(pair.python(pair.client, send, str(ports[1])), check=True)
            sent = sent_bytes(pair)
    finally:
        server.kill()
        server.communicate()
    assert sent["4d4a:10"] == 0
    assert sent["4d4a:11"] > 150_000


def sent_bytes(pair: Pair) -> dict[str, int]:
    """What has left each link's tbf, by the class that it hangs below."""
    lines = itertools.pairwise(pair.qdiscs().splitlines())
    return {
        line.split("parent ")[1].split()[0]: int(following.split()[1])
        for line, following in lines
        if line.startswith("qdisc tbf")
    }


def test_downlinks_are_told_by_their_address(pair: Pair, tmp_path: Path) -> None:
    """IPv4 and IPv6; packets to anybody else are in no link."""
    for name, interface, address in ((pair.client, INTERFACE, "fd00:7::1"), (pair.server, "far0", "fd00:7::2")):
        words = ["ip", "-n", name, "addr", "add", f"{address}/64", "dev", interface, "nodad"]
        subprocess.run(words, check=True)
    send = (
        "import socket, sys\n"
        "for host in sys.argv[1:]:\n"
        "    family = socket.AF_INET6 if ':' in host else socket.AF_INET\n"
        "    with socket.socket(family, socket.SOCK_DGRAM) as client:\n"
        "        client.sendto(bytes(1000), (host, 9))\n"
    )
    rate = trace(tmp_path, "50")
    links = ("--link", f"four={rate}", "--link", f"six={rate}")
    with shaper(pair, *links, "--to", f"four={SERVER_ADDRESS}", "--to", "six=fd00:7::2"):
        subprocess.run(pair.python(pair.client, send, SERVER_ADDRESS), check=True)
        while not (four := sent_bytes(pair))["4d4a:10"]:  # the kernel asks for the neighbour first
            time.sleep(0.01)
        subprocess.run(pair.python(pair.client, send, "fd00:7::2", "fd00:7::3"), check=True)
        while not (both := sent_bytes(pair))["4d4a:11"]:
            time.sleep(0.01)
    assert four == {"4d4a:10": 1042, "4d4a:11": 0}
    assert both == {"4d4a:10": 1042, "4d4a:11": 1062}


def of_kernel(pair: Pair) -> tuple[int, int, int]:
    """What the kernel says of the only link: rate, bit/s; limit of its queue, bytes; bytes that wait.

    A rate of 0 is an outage. ``tc`` prints the limit only raw, and what waits only with statistics.
    """
    shown = subprocess.run(
        pair.inside(pair.client, "tc", "-r", "-s", "qdisc", "show", "dev", INTERFACE),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"qdisc tbf.* rate (\d+)(Kbit|Mbit) .* limit (\d+)b.*\n.*\n backlog (\d+)b", shown)
    if found is None:
        return 0, 0, 0
    rate, unit, limit, waiting = found.groups()
    return int(rate) * {"Kbit": 1_000, "Mbit": 1_000_000}[unit], int(limit), int(waiting)


def test_the_limit_follows_the_rate(pair: Pair, tmp_path: Path) -> None:
    """With a latency the kernel's queue is as long as the rate of the moment asks for, also after an outage."""
    path = tmp_path / "timed.txt"
    path.write_text("0\t20\n1\t2\n2\t0\n3\t8\n4\t20\n", encoding="utf-8")
    limits = {20_000_000: 130_000, 2_000_000: 17_500, 8_000_000: 55_000, 0: 0}
    arguments = ("--link", f"a={path}", "--match", "a=sport:4001")
    found: set[tuple[int, int]] = set()

    def seen_all() -> bool:
        found.add(of_kernel(pair)[:2])
        return len(found) >= len(limits)

    with shaper(pair, *arguments, "--latency-ms", "50"):
        until(seen_all, lambda: f"{found}")
    assert found == set(limits.items())


def test_a_latency_bounds_what_waits(pair: Pair, tmp_path: Path) -> None:
    """The same flood: with a latency the kernel drops what would wait longer; without, ten times as much waits."""
    arguments = ("--link", f"a={trace(tmp_path, '0.08')}", "--match", "a=sport:4001", "--burst-bytes", "1600")
    sender = subprocess.Popen(
        pair.python(pair.client, SEND, SERVER_ADDRESS), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert sender.stdin is not None
    assert sender.stdout is not None
    sender.stdout.readline()

    def waiting_after_more() -> int:
        print(0, file=sender.stdin, flush=True)
        assert sender.stdout is not None
        sender.stdout.readline()
        return of_kernel(pair)[2]

    limit = 100 * 10 + 1_600  # 100 ms of 10 kB/s, and the burst
    with ended_at_last(sender):
        with shaper(pair, *arguments, "--latency-ms", "100"):
            assert of_kernel(pair)[:2] == (80_000, limit)
            until(lambda: waiting_after_more() <= limit and dropped(pair))
            assert waiting_after_more() <= limit
        with shaper(pair, *arguments):
            until(lambda: waiting_after_more() > 10 * limit)


def dropped(pair: Pair) -> bool:
    """Whether a link's queue was full."""
    return re.search(r"qdisc tbf.*\n.* \(dropped [1-9]", pair.qdiscs()) is not None


def test_an_outage_drops(pair: Pair, tmp_path: Path) -> None:
    """Up and down by turns: what is sent while it is down never comes, what is sent before and after does.

    What is sent around a change is not judged, and sent again.
    """
    out = tmp_path / "out"
    path = tmp_path / "timed.txt"
    path.write_text("0\t50\n2\t0\n4\t50\n", encoding="utf-8")
    counter, sender = (
        subprocess.Popen(
            pair.python(host, program, SERVER_ADDRESS), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for host, program in ((pair.server, COUNTER), (pair.client, SEND))
    )
    assert counter.stdout is not None
    assert sender.stdin is not None
    assert sender.stdout is not None
    counter.stdout.readline()
    sender.stdout.readline()
    arguments = ("--link", f"a={path}", "--match", "a=sport:4001", "--out", str(out))

    def link() -> tuple[bool, int]:
        """Whether it is down, and how often it has changed."""
        return "qdisc blackhole" in pair.qdiscs(), len(rows_so_far(out / "shaping.csv", ShapingRow))

    def send(word: object) -> None:
        print(word, file=sender.stdin, flush=True)
        assert sender.stdout is not None
        sender.stdout.readline()

    numbers = itertools.count(0, 10)

    def sent_while(down: bool) -> list[int]:
        while True:
            before, first = link(), next(numbers)
            send(first)
            if before[0] == down and link() == before:
                return list(range(first, first + 10))
            time.sleep(0.01)

    with shaper(pair, *arguments):
        first, never, last = sent_while(down=False), sent_while(down=True), sent_while(down=False)
        while not select.select([counter.stdout], [], [], 0.1)[0]:
            send("end")
        came = json.loads(counter.stdout.readline())
    assert [number for number in came if number in {*first, *never, *last}] == first + last
    for process in (sender, counter):
        process.communicate()


def test_a_link_stands_at_the_first_rate_that_is_no_outage_until_its_trace_begins(pair: Pair, tmp_path: Path) -> None:
    path, out = tmp_path / "timed.txt", tmp_path / "out"
    path.write_text("0\t0\n600\t50\n", encoding="utf-8")
    theirs, ours = os.pipe()
    arguments = ("--link", f"a={path}", "--match", "a=sport:4001", "--out", str(out), "--start-fd", str(theirs))
    with os.fdopen(ours, "wb", buffering=0) as start, shaper(pair, *arguments, pass_fds=(theirs,)):
        os.close(theirs)
        assert of_kernel(pair)[0] == 50_000_000
        assert not rows_so_far(out / "shaping.csv", ShapingRow)
        start.write(b"go\n")
        until(lambda: "qdisc blackhole" in pair.qdiscs(), pair.qdiscs)
        until(lambda: rows_so_far(out / "shaping.csv", ShapingRow), "nothing is logged")
    (begun,) = rows_so_far(out / "shaping.csv", ShapingRow)
    assert (begun.bw, begun.actual_bw) == (0.0, 0.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_shaper_that_is_stopped_while_it_starts_leaves_nothing(pair: Pair, number: signal.Signals) -> None:
    segments = gso_max_segs(pair)
    process = subprocess.Popen(
        pair.shaping("tc", "--interface", INTERFACE, "--link", "a=lte-city", "--target", f"{SERVER_ADDRESS}:1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=namespaces.environment(),
    )
    while not owner_files():  # it is about to change the interface
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "htb" not in pair.qdiscs()
    assert gso_max_segs(pair) == segments
    assert not owner_files()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_shaper_that_is_told_to_stop_again_and_again_leaves_nothing(pair: Pair, number: signal.Signals) -> None:
    segments = gso_max_segs(pair)
    with shaper(pair, "--link", "a=lte-city", "--target", f"{SERVER_ADDRESS}:1") as (process, _):
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.001)
    assert "htb" not in pair.qdiscs()
    assert gso_max_segs(pair) == segments
    assert not owner_files()


def test_what_a_killed_shaper_left_is_cleaned(pair: Pair) -> None:
    segments = gso_max_segs(pair)
    with shaper(pair, "--link", "a=lte-city", "--target", f"{SERVER_ADDRESS}:1") as (process, _):
        process.kill()
        process.wait(60)
    assert "qdisc tbf" in pair.qdiscs()
    done = run(pair, "clean", "--interface", INTERFACE)
    assert done.stdout == f"cleaned: {INTERFACE}\n"
    assert "htb" not in pair.qdiscs()
    assert gso_max_segs(pair) == segments
    assert run(pair, "clean").stdout == "nothing to clean\n"
    assert not owner_files()


def test_the_next_shaper_takes_over_from_a_killed_one(pair: Pair) -> None:
    segments = gso_max_segs(pair)
    arguments = ("--link", "a=lte-city", "--target", f"{SERVER_ADDRESS}:1")
    with shaper(pair, *arguments) as (process, _):
        process.kill()
        process.wait(60)
    with shaper(pair, *arguments) as (process, ready):
        assert ready["ready"] is True
    assert process.returncode == 0
    assert gso_max_segs(pair) == segments


def test_two_experiments_on_one_interface(pair: Pair) -> None:
    arguments = ("--link", "a=lte-city", "--target", f"{SERVER_ADDRESS}:1")
    with shaper(pair, *arguments) as (process, _):
        second = run(pair, "tc", "--interface", INTERFACE, *arguments)
        assert second.returncode == 1
        assert f"interface '{INTERFACE}' is shaped by process {process.pid}" in second.stderr
        cleaning = run(pair, "clean")
        assert cleaning.returncode == 1
        assert f"process {process.pid}" in cleaning.stderr
        assert "htb 4d4a:" in pair.qdiscs()


def test_a_foreign_discipline_is_not_touched(pair: Pair) -> None:
    limit = ("tbf", "rate", "1mbit", "burst", "5k", "limit", "5k")
    subprocess.run(
        pair.inside(pair.client, "tc", "qdisc", "add", "dev", INTERFACE, "root", "handle", "1:", *limit), check=True
    )
    done = run(pair, "tc", "--interface", INTERFACE, "--link", "a=lte-city", "--target", f"{SERVER_ADDRESS}:1")
    assert done.returncode == 1
    assert "has a queueing discipline of its own (tbf 1:)" in done.stderr
    assert "qdisc tbf 1: root" in pair.qdiscs()
    assert not owner_files()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--interface", "none0", "--link", "a=lte-city", "--target", "h:1"],
            "there is no interface 'none0'; there are lo",
        ),
        (["--interface", INTERFACE, "--link", "a=lte-city"], "how are the links' packets told apart?"),
        (["--interface", INTERFACE, "--link", "a=lte-city", "--match", "b=sport:1"], "'b', which no --link has"),
        (["--interface", INTERFACE, "--link", "a=lte-city", "--match", "a=sport:0"], "'sport:0' is not a match"),
        (
            ["--interface", INTERFACE, "--link", "a=lte-city", "--latency-ms", "50", "--queue-bytes", "9000"],
            "a queue of 9000 bytes and one of 50 ms are asked for; give queue-bytes or latency-ms, not both",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(pair: Pair, arguments: list[str], complaint: str) -> None:
    done = run(pair, "tc", *arguments)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "htb" not in pair.qdiscs()
    assert not owner_files()


def test_without_the_right_to_shape(pair: Pair) -> None:
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(
        pair.inside(
            pair.client,
            *command,
            *pair.shaping("tc", "--interface", INTERFACE, "--link", "a=lte-city", "--target", "h:1")[4:],
        ),
        capture_output=True,
        text=True,
        env=namespaces.environment(),
        check=False,
    )
    assert done.returncode == 1
    assert "needs root or CAP_NET_ADMIN" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not owner_files()
