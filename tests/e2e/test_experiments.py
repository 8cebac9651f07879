"""Sweeps over real SSH between the machines of a testbed, and what may go wrong with them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from cli.testbed import machines
from cli.testbed.layout import Layout
from tests.support.serving import ended_at_last, until

NAME = f"e{os.getpid()}"
"""Of this process, so that two test runs on one host leave each other's testbed alone."""
ENDED_S = 110.0
ATTEMPTS = 3
"""At what a machine that stands still at the wrong moment spoils."""

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    if found := machines.problems():
        pytest.skip("network namespaces not available: " + "; ".join(found))
    machines.down(NAME)
    made = Layout(NAME, clients=2)
    machines.up(made)
    yield made
    machines.down(NAME)


@dataclasses.dataclass(frozen=True)
class Bench:
    """The manager's seat: starts experiments there and looks at the other machines."""

    layout: Layout
    root: Path
    out: Path
    running: contextlib.ExitStack

    def command(self, *words: str) -> list[str]:
        return machines.command_in(self.layout.manager, [sys.executable, "-m", "cli", "experiment", *words])

    def sweep(self, *words: str) -> list[str]:
        """A small sweep of simulated executors over relays, whose processes may wait as long as they must."""
        fixed = ["--zoo", "yolov4", "--runtime", "simulated", "--kind", "reference-gpu", "--devices", "1"]
        fixed += ["--slo-ms", "5000", "--repetitions", "1", "--retries", "0", "--starved-ms", "1000000"]
        fixed += ["--traces", "wifi-good", "--shaping", "relay", "--out", str(self.out)]
        return self.command("run", *fixed, *words)

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "MOONJELLY_HOSTS": str(machines.hosts_file(self.layout)), "COLUMNS": "200", **more}

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Begun here, ended at the latest with the test."""
        process = subprocess.Popen(
            command, cwd=self.root, env=self.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.running.enter_context(ended_at_last(process))
        return process

    def call(self, command: list[str], **more: str) -> tuple[int, str]:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(**more), text=True, check=False, timeout=200,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def place(self, role: str) -> Any:
        return next(machine for machine in self.layout.machines if machine.role == role)

    def processes(self, *, sshd: bool = False) -> list[str]:
        """Command lines on server and client machines, without (or of) sshd."""
        found = []
        for machine in self.layout.machines:
            if machine.role == "manager":
                continue
            for pid in self.pids(machine.role):
                try:
                    line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
                except OSError:  # it has ended, perhaps while it was read
                    continue
                if line and ("sshd" in line.split()[0]) == sshd:
                    found.append(f"{machine.role} {pid} {line}")
        return found

    def pids(self, role: str) -> list[str]:
        listed = subprocess.run(
            ["ip", "netns", "pids", self.place(role).namespace], capture_output=True, text=True, check=True
        )
        return listed.stdout.split()

    def files(self) -> list[Path]:
        """What lies in the work folders of the machines."""
        return [path for machine in self.layout.machines for path in machine.work.iterdir()]

    def streaming(self) -> bool:
        """Whether the clients of the run in progress have been told to begin."""
        return bool([job for machine in self.layout.machines for job in machine.work.glob("*/jobs/client-*/go")])

    def is_clear(self) -> bool:
        return not self.processes() and not self.files()

    def clear(self) -> None:
        """Remove what a test that failed has left, so that the next one begins with nothing."""
        for role in ("server", "client0", "client1"):
            for line in self.processes():
                if line.startswith(f"{role} "):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line.split()[1]), signal.SIGKILL)
        for path in self.files():
            shutil.rmtree(path, ignore_errors=True)

    def record(self, run: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.out / run / "run.json").read_text())
        return told


@pytest.fixture
def bench(layout: Layout, root: Path, tmp_path: Path) -> Iterator[Bench]:
    with contextlib.ExitStack() as running:
        made = Bench(layout, root, tmp_path / "experiment manager", running)
        assert made.is_clear(), (made.processes(), made.files())
        yield made
    try:
        until(made.is_clear, lambda: f"{made.processes()} {made.files()}")
    finally:
        made.clear()


def run_name(count: int, fps: int, source: str = "synthetic") -> str:
    return f"wifi-good/multiset/clients-{count}_slo-5000_fps-{fps}_{source}/iter-0"


def start_and_kill(bench: Bench, sweep: list[str], first: str) -> None:
    """A manager that is killed while the clients of its second run stream; or later, on a machine that stands still."""
    manager = bench.start(sweep)
    recorded = bench.out / first / "run.json"
    until(lambda: (recorded.exists() and bench.streaming()) or manager.poll() is not None, patience_s=300.0)
    manager.kill()
    manager.communicate()


def test_a_killed_managers_sweep_of_real_models_resumes_and_leaves_nothing(bench: Bench, data_dir: Path) -> None:
    """Two client machines, links shaped by tc; the manager is killed in the second run, and started again."""
    video = data_dir.resolve() / "videos" / "highway-camera.mp4"
    first, second = run_name(2, 5, video.stem), run_name(2, 10, video.stem)
    sweep = bench.sweep(
        *("--zoo", "yolo-fastest", "--runtime", "onnx", "--kind", "cpu", "--sources", str(video)),
        *("--shaping", "tc", "--latency-ms", "500"),
        *("--clients", "2", "--fps", "5,10", "--seconds", "3"),
    )
    for _ in range(ATTEMPTS):
        start_and_kill(bench, sweep, first)
        if bench.processes() and not (bench.out / second / "run.json").exists():
            break
        bench.clear()  # the machine stood still, and when it was looked at again the second run was over
        shutil.rmtree(bench.out)
    assert bench.processes(), "what runs there outlives the manager"
    before = (bench.out / first / "run.json").stat().st_mtime_ns

    status, said = bench.call(sweep)

    assert status == 0, said
    assert "removed what an interrupted run had left on server" in said
    assert "2 of 2 runs have a valid result" in said
    assert "eff. F1" in said
    assert (bench.out / first / "run.json").stat().st_mtime_ns == before, "a finished run was repeated"
    assert bench.record(second)["state"] == "done"
    table = pd.read_parquet(bench.out / "runs.parquet")
    assert len(table) == 2 * (1 + 2)
    assert (table["frames_captured"] > 0).all()
    answered = table[table["on_time"] > 0]
    assert answered["f1"].between(0, 1).all(), "the clients' detections are compared with the golden model's"
    assert (answered["f1"] > 0).any()
    assert (answered["effective_f1"] <= answered["f1"]).all(), "a missed frame has no detections"
    assert pd.read_csv(bench.out / "runs.csv")["f1"].tolist() == table["f1"].tolist()
    assert [bench.record(run)["conditions"]["latency_ms"] for run in (first, second)] == [500, 500]
    logs = bench.out / second / "logs"
    assert {path.name for path in (logs / "client").iterdir()} == {"host_0", "host_1"}
    for name in ("server/frame_stats.csv", "server/plans.csv", "network/client0/shaping.csv", "jobs/server/exit.json"):
        assert (logs / name).exists(), name
    assert json.loads((bench.out / second / "summary.json").read_text())["clients"][1]["slo_ms"] == 5000
    assert json.loads((bench.out / "summary.json").read_text())["runs"] == {"all": 2, "done": 2}


def test_ctrl_c_stops_everything_everywhere(bench: Bench) -> None:
    manager = bench.start(bench.sweep("--clients", "2", "--fps", "15", "--seconds", "60"))
    until(bench.streaming)
    manager.send_signal(signal.SIGINT)
    said, _ = manager.communicate(timeout=ENDED_S)
    assert manager.returncode == 130, said
    assert "the same command goes on where this one stopped" in said
    until(bench.is_clear, lambda: f"{bench.processes()} {bench.files()}")


def test_a_failed_run_is_repeated_and_keeps_its_logs(bench: Bench) -> None:
    status, said = bench.call(bench.sweep("--clients", "1", "--fps", "15", "--runtime", "none-such", "--retries", "1"))
    run = "wifi-good/multiset/clients-1_slo-5000_fps-15_synthetic/iter-0"
    assert status == 1
    assert "none-such" in bench.record(run)["reason"], said
    assert bench.record(run)["state"] == "failed"
    assert "0 of 1 runs have a valid result" in said
    for kept in (bench.out / run / "attempt-0", bench.out / run):
        assert "none-such" in (kept / "logs" / "jobs" / "server" / "log").read_text()
    assert pd.read_csv(bench.out / "runs.csv")["state"].tolist() == ["failed"]


def test_an_unknown_host_key_is_refused_with_the_command_that_adds_it(bench: Bench, tmp_path: Path) -> None:
    known, hosts = tmp_path / "known_hosts", tmp_path / "hosts.toml"
    text = machines.hosts_file(bench.layout).read_text()
    hosts.write_text(text.replace(str(bench.layout.manager.directory / "known_hosts"), str(known)))
    check = bench.command("check", "--shaping", "none", "--hosts", str(hosts))
    status, said = bench.call(check, COLUMNS="4000")
    assert status == 1
    commands = {part.split(" │")[0].strip() for part in said.split("then add it: ")[1:]}
    assert len(commands) == 3, said
    for command in commands:
        words = machines.command_in(bench.layout.manager, ["sh", "-c", command])
        subprocess.run(words, check=True, capture_output=True)
    status, said = bench.call(check, COLUMNS="4000")
    assert status == 0, said
    assert said.count("│ reno") == 3, "every machine's congestion control is in the table"


def test_what_is_wrong_is_said_in_one_table_before_anything_starts(bench: Bench, tmp_path: Path) -> None:
    trace, key, hosts = tmp_path / "bad.txt", tmp_path / "other_key", tmp_path / "hosts.toml"
    trace.write_text("5\n6\nseven\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    text = machines.hosts_file(bench.layout).read_text()
    hosts.write_text(text.replace('host = "10.77.0.11"', 'host = "10.77.0.99"'))
    words = ("--traces", str(trace), "--sources", str(tmp_path / "gone.mp4"), "--shaping", "relay")
    status, said = bench.call(bench.command("check", "--hosts", str(hosts), *words), COLUMNS="4000")
    assert status == 1
    assert "root@10.77.0.99:22 (client1) cannot be reached" in said
    assert f"no file {tmp_path / 'gone.mp4'} there" in said
    hosts.write_text(text.replace(str(bench.layout.manager.directory / "id_ed25519"), str(key)))
    status, said = bench.call(bench.command("check", "--hosts", str(hosts), "--shaping", "none"), COLUMNS="4000")
    assert status == 1
    assert said.count("Authentication failed; add your public key to its authorized_keys") == 3, said
    hosts.write_text(text)
    wrong = ("--policies", "multiset,best", "--zoo", "nowhere", "--traces", str(trace))
    status, said = bench.call(bench.sweep("--clients", "1", "--fps", "15", *wrong), COLUMNS="4000")
    assert status == 1
    assert "line 3" in said
    assert "unknown planning policy 'best'; known: " in said
    assert "nowhere" in said


def test_a_machine_that_talks_of_its_own_is_named(bench: Bench, tmp_path: Path) -> None:
    """As one does whose shell greets everybody: what it prints stands before every answer."""
    greeting, hosts = tmp_path / "python", tmp_path / "hosts.toml"
    greeting.write_text(f'#!/bin/sh\necho welcome\nexec {sys.executable} "$@"\n')
    greeting.chmod(0o755)
    text = machines.hosts_file(bench.layout).read_text()
    hosts.write_text(re.sub(r'^python = ".*"$', f'python = "{greeting}"', text, flags=re.MULTILINE))
    status, said = bench.call(bench.command("check", "--shaping", "none", "--hosts", str(hosts)), COLUMNS="4000")
    assert status == 1
    assert said.count("a command there also prints 'welcome'; make its shell start silently") == 3, said


@pytest.mark.full
def test_a_dropped_connection_does_not_end_a_run(bench: Bench) -> None:
    manager = bench.start(bench.sweep("--clients", "2", "--fps", "15", "--seconds", "12"))
    until(bench.streaming)

    gone: set[int] = set()

    def cut() -> bool:
        sessions = {int(line.split()[1]) for line in bench.processes(sshd=True) if "[listener]" not in line} - gone
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):  # it ended with another one
                os.kill(pid, signal.SIGKILL)
        gone.update(sessions)
        return bool(sessions)

    until(cut, "nobody was connected")
    until(cut, "nobody has come back")
    said, _ = manager.communicate(timeout=ENDED_S)
    assert manager.returncode == 0, said
    assert bench.record(run_name(2, 15))["attempt"] == 0
    assert not (bench.out / run_name(2, 15) / "attempt-0").exists()


@pytest.mark.full
@pytest.mark.parametrize("victim", ["client-0", "client-2", "server", "network-client0"])
def test_a_process_that_dies_in_mid_run_fails_the_run_and_is_named(bench: Bench, victim: str) -> None:
    """Clients 0 and 2 run on one machine: the one that lives on is not the one that is named."""
    manager = bench.start(bench.sweep("--clients", "3", "--fps", "15", "--seconds", "8"))
    until(bench.streaming)
    job = next(path for machine in bench.layout.machines for path in machine.work.glob(f"*/jobs/{victim}/job.json"))
    (process,) = psutil.Process(json.loads(job.read_text())["pid"]).children()
    process.kill()
    said, _ = manager.communicate(timeout=ENDED_S)
    assert manager.returncode == 1, said
    assert bench.record(run_name(3, 15))["reason"].startswith(victim)
    assert (bench.out / run_name(3, 15) / "logs" / "client" / "host_1" / "frame_stats.csv").exists()


@pytest.mark.full
def test_a_starved_run_is_repeated_listed_and_left_out(bench: Bench) -> None:
    sweep = bench.sweep("--clients", "1", "--fps", "15", "--seconds", "3", "--retries", "1", "--starved-ms", "0")
    status, said = bench.call(sweep)
    run = run_name(1, 15)
    assert status == 1
    assert bench.record(run)["state"] == "starved"
    assert "waited" in bench.record(run)["reason"]
    assert f"{run} starved" in said
    assert json.loads((bench.out / run / "attempt-0" / "run.json").read_text())["state"] == "starved"
    table = pd.read_csv(bench.out / "runs.csv")
    assert table["miss_rate"].isna().all()


@pytest.mark.full
def test_a_full_disk_at_the_manager_is_an_error_and_leaves_nothing(bench: Bench) -> None:
    bench.out.mkdir()
    sweep = bench.sweep("--clients", "1", "--fps", "15", "--seconds", "3")
    inside = sweep.index(sys.executable)
    script = 'mount -t tmpfs -o size=16k none "$0" && exec "$@"'
    command = [*sweep[:inside], "unshare", "-m", "sh", "-c", script, str(bench.out), *sweep[inside:]]
    status, said = bench.call(command)
    assert status == 1
    assert "No space left on device" in said
    until(bench.is_clear, lambda: f"{bench.processes()} {bench.files()}")


@pytest.mark.full
def test_two_sweeps_do_not_collect_in_one_place(bench: Bench) -> None:
    sweep = bench.sweep("--clients", "1", "--fps", "15", "--seconds", "600")  # ended by the test
    manager = bench.start(sweep)
    until(bench.streaming)
    status, said = bench.call(sweep)
    assert status == 1
    assert f"process {manager.pid} runs a sweep into" in said
    manager.terminate()
    manager.communicate(timeout=ENDED_S)
    assert manager.returncode == 130


def queues(bench: Bench, role: str) -> str:
    words = machines.command_in(bench.place(role), ["tc", "qdisc", "show", "dev", "eth0"])
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.full
def test_shaping_with_tc_is_real_exclusive_and_removed_on_ctrl_c(bench: Bench, tmp_path: Path) -> None:
    before = queues(bench, "client0")
    assert "tbf" not in before
    manager = bench.start(bench.sweep("--clients", "1", "--fps", "15", "--seconds", "120", "--shaping", "tc"))
    until(bench.streaming)
    assert "tbf" in queues(bench, "client0")

    other = bench.sweep("--clients", "1", "--fps", "15", "--shaping", "tc")
    status, said = bench.call([*other, "--out", str(tmp_path / "other")])
    assert status == 1
    assert "eth0" in said

    assert "tbf" in queues(bench, "client0"), "the refused sweep left the first one's shaper alone"
    manager.send_signal(signal.SIGINT)
    said, _ = manager.communicate(timeout=ENDED_S)
    assert manager.returncode == 130, said
    assert queues(bench, "client0") == before


@pytest.mark.full
def test_a_killed_tc_shaper_is_cleaned_up_by_the_next_start(bench: Bench) -> None:
    before = queues(bench, "client0")
    sweep = bench.sweep("--clients", "1", "--fps", "15", "--seconds", "4", "--shaping", "tc")
    manager = bench.start(sweep)
    until(bench.streaming)
    manager.kill()
    manager.communicate()
    job = next(bench.place("client0").work.glob("*/jobs/network-client0/job.json"))
    supervisor = json.loads(job.read_text())["pid"]
    shaper = next(
        int(line.split()[1])
        for line in bench.processes()
        if " -m network_shaping tc " in line and "agent" not in line and int(line.split()[1]) != supervisor
    )
    os.kill(shaper, signal.SIGKILL)
    status, said = bench.call(sweep)
    assert status == 0, said
    assert queues(bench, "client0") == before


@pytest.mark.full
def test_jellyfishs_script_and_client_lines(bench: Bench, tmp_path: Path) -> None:
    template = "host_{0} {1} client_ssh_port client_network_iface client_username /home/client_username/x/ {2} {3}\n"
    lines = template.format(0, "client_ip", 75, 15) + template.format(1, "10.77.0.11", 150, 10)
    (tmp_path / "client_cfg_template_2_var_var.txt").write_text(
        lines.replace("/home/client_username/x/", str(bench.root))
    )
    manager = bench.layout.manager.directory
    script = str(bench.root / "src" / "experiment_manager" / "run_experiments.sh")
    work = str(bench.place("server").work)
    words = [
        "--zoo",
        "yolov4",
        "--runtime",
        "simulated",
        "--kind",
        "reference-gpu",
        "--devices",
        "1",
        "--shaping",
        "relay",
    ]
    words += ["--seconds", "3", "--retries", "0", "--starved-ms", "10000"]
    status, said = bench.call(
        machines.command_in(bench.layout.manager, [script, *words]),
        server_ip="10.77.0.1",
        client_ip="10.77.0.10",
        total_iter="1",
        network_trace_type="synthetic_trace",
        clients_cfg=str(tmp_path),
        log_path=str(bench.out),
        identity_file=str(manager / "id_ed25519"),
        known_hosts=str(manager / "known_hosts"),
        client_work_dir=work,
        server_work_dir=work,
    )
    assert status == 0, said
    run = "synthetic_trace/multiset/clients-2_var_var_synthetic/iter-0"
    clients = json.loads((bench.out / run / "summary.json").read_text())["clients"]
    assert [(client["slo_ms"], client["fps"]) for client in clients] == [(75, 15), (150, 10)]
    assert {path.name for path in (bench.out / run / "logs" / "network").iterdir()} == {"client0", "10.77.0.11"}


@pytest.mark.full
@pytest.mark.timeout(500)
def test_one_command_goes_from_nothing_to_figures_and_report(root: Path, tmp_path: Path) -> None:
    if found := machines.problems():
        pytest.skip("network namespaces not available: " + "; ".join(found))
    out = tmp_path / "demo"
    name = f"d{os.getpid()}"
    command = [sys.executable, "-m", "cli", "testbed", "demo", "--name", name, "--clients", "1", "--seconds", "3"]
    command += ["--policies", "multiset", "--starved-ms", "10000", "--out", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=450)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {path.name for path in (out / "figures").glob("*.pdf")}
    assert figures == {f"fig_{name}.pdf" for name in ("6", "7", "8_synthetic_trace", "9", "9_misses")}
    assert "4 runs, 4 with a valid result" in (out / "report.html").read_text()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"mj-{name}-" not in listed
