"""The agent on this machine: jobs that outlive whoever started them, and answers about them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli.testbed import machines
from experiment_manager import agent


def say(*words: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    call = [sys.executable, "-m", "experiment_manager.agent", *words]
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def ask(*words: str) -> dict[str, Any]:
    told = say(*words)
    return dict(told[0] if isinstance(told, list) else told)


def command(body: str) -> list[str]:
    return ["--", sys.executable, "-c", body]


READY = "import os, sys; fd = int(sys.argv[sys.argv.index('--ready-fd') + 1]); os.write(fd, b'{\"port\": 7}\\n'); "


def test_a_job_outlives_its_starter_and_reports_its_exit(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    ask("start", job, *command("print('hello'); raise SystemExit(3)"))
    told = ask("wait", job, "--for", "exited", "--timeout-s", "30")
    assert told["state"] == "exited"
    assert told["exit"]["status"] == 3
    assert (tmp_path / "job" / "log").read_text() == "hello\n"


def test_ready_line_is_kept(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    ask("start", job, "--ready", *command(READY + "sys.stdin.read() or __import__('signal').pause()"))
    assert ask("wait", job, "--for", "ready", "--timeout-s", "30")["ready"] == {"port": 7}
    assert ask("stop", job)["exit"]["stopped"]


def test_a_held_job_waits_for_go(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    body = READY + "start = int(sys.argv[sys.argv.index('--start-fd') + 1]); os.read(start, 1); print('begun')"
    ask("start", job, "--ready", "--hold", *command(body))
    ask("wait", job, "--for", "ready", "--timeout-s", "30")
    assert (tmp_path / "job" / "log").read_text() == ""
    ask("go", job)
    assert ask("wait", job, "--for", "exited", "--timeout-s", "30")["exit"]["status"] == 0
    assert (tmp_path / "job" / "log").read_text() == "begun\n"


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_stop_ends_what_the_job_started_too(tmp_path: Path) -> None:
    job, child = str(tmp_path / "job"), tmp_path / "child"
    body = (
        (
            "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "inner = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']); "
            f"open({str(child)!r}, 'w').write(str(inner.pid)); "
        )
        + READY
        + "signal.pause()"
    )
    ask("start", job, "--ready", *command(body))
    ask("wait", job, "--for", "ready", "--timeout-s", "30")
    pid = int(child.read_text())
    told = ask("stop", job, "--timeout-s", "0.3")
    assert told["exit"]["status"] == -signal.SIGKILL
    while is_running(pid):  # killed, but a busy machine lets it die when its turn comes
        time.sleep(0.01)


def test_a_killed_supervisor_is_vanished(tmp_path: Path) -> None:
    job = tmp_path / "job"
    ask("start", str(job), "--ready", *command(READY + "import signal; signal.pause()"))
    ask("wait", str(job), "--for", "ready", "--timeout-s", "30")
    record = json.loads((job / "job.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    assert ask("wait", str(job), "--for", "exited", "--timeout-s", "30")["state"] == "vanished"


def test_a_supervisor_that_has_ended_is_not_alive_though_nobody_has_waited_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    started = agent._start_time(process.pid)
    assert agent._is_alive(process.pid, started)
    assert not agent._is_alive(process.pid, started + 1)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert agent._start_time(process.pid) == started
    assert not agent._is_alive(process.pid, started)
    process.wait()


def test_a_job_that_ends_while_it_is_asked_about_has_exited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.json").write_text('{"pid": 1, "started": 0}')

    def ends(pid: int, started: int) -> bool:
        (tmp_path / "exit.json").write_text('{"status": 0}')
        return False

    monkeypatch.setattr(agent, "_is_alive", ends)
    assert agent.status(tmp_path) == {"state": "exited", "ready": None, "exit": {"status": 0}}


def test_a_command_that_does_not_exist_is_an_exit(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    ask("start", job, "--", "/does/not/exist")
    told = ask("wait", job, "--for", "exited", "--timeout-s", "30")
    assert told["exit"]["status"] == 127
    assert "No such file" in told["exit"]["reason"]


def test_a_job_whose_lease_nobody_renews_ends_by_itself(tmp_path: Path) -> None:
    job, lease = tmp_path / "job", tmp_path / "lease"
    words = ["start", str(job), "--ready", "--lease", str(lease), "--lease-s", "0.1"]
    ask(*words, *command(READY + "__import__('signal').pause()"))
    told = ask("wait", str(job), "--for", "exited", "--timeout-s", "30")
    assert told["exit"]["stopped"]
    assert "lease" in told["exit"]["reason"]


def test_processor_time_counts_from_go_and_includes_descendants(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    burn = "import time; end = time.process_time() + 1.2\nwhile time.process_time() < end: pass"
    body = READY + f"import subprocess; sys.stdin.read(); subprocess.run([sys.executable, '-c', {burn!r}])"
    ask("start", job, "--ready", *command(body))
    told = ask("wait", job, "--for", "exited", "--timeout-s", "60")["exit"]
    assert told["cpu_s"] > 0.5
    assert told["wall_s"] >= told["cpu_s"] / (os.cpu_count() or 1)


def test_waiting_for_several_returns_when_one_fails(tmp_path: Path) -> None:
    good, bad = str(tmp_path / "good"), str(tmp_path / "bad")
    ask("start", good, "--ready", *command(READY + "__import__('signal').pause()"))
    ask("wait", good, "--for", "ready", "--timeout-s", "30")
    ask("start", bad, *command("raise SystemExit(4)"))
    states = say("wait", good, bad, "--for", "exited", "--timeout-s", "60")
    assert [one["state"] for one in states] == ["ready", "exited"]
    ask("stop", good)


def test_clear_stops_and_removes_only_what_is_its_own(tmp_path: Path) -> None:
    mine, other = tmp_path / "a-run-1" / "jobs" / "server", tmp_path / "b-run-1" / "jobs" / "server"
    for job in (mine, other):
        ask("start", str(job), "--ready", *command(READY + "__import__('signal').pause()"))
        ask("wait", str(job), "--for", "ready", "--timeout-s", "30")
    pid = json.loads((mine / "job.json").read_text())["pid"]
    assert say("clear", str(tmp_path), "--prefix", "a-") == ["a-run-1"]
    assert not mine.exists()
    while is_running(pid):  # killed, but a busy machine lets it die when its turn comes
        time.sleep(0.01)
    assert ask("status", str(other))["state"] == "ready"
    ask("stop", str(other))


@pytest.mark.netns
def test_a_full_disk_leaves_no_job_running_and_is_named(tmp_path: Path) -> None:
    """The disk fills while a job runs: its supervisor can write neither a grace nor how it ended."""
    if machines.problems():
        pytest.skip("a small disk of one's own needs the rights that a testbed needs")
    body = """
import sys
from pathlib import Path
from experiment_manager import agent
place = Path(sys.argv[1])
command = [sys.executable, "-c", "print('up', flush=True); __import__('signal').pause()"]
agent.perform(["start", str(place / "run" / "jobs" / "one"), "--", *command])
try:
    (place / "filler").write_bytes(bytes(1 << 20))
except OSError:
    pass
print(agent.perform(["tail", str(place / "run" / "jobs" / "one")])[-1])
try:
    agent.perform(["start", str(place / "run" / "jobs" / "two"), "--", *command])
except OSError as fault:
    print("two:", fault.strerror)
pid = agent._read(place / "run" / "jobs" / "one" / "job.json")["pid"]
child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
agent.perform(["remove", str(place / "run")])
def runs(one):
    try:
        return Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
print("left:", [one for one in (pid, *child) if runs(one)], (place / "run").exists())
"""
    script = 'mount -t tmpfs -o size=128k none "$0" && exec "$@"'
    inside = ["unshare", "-m", "sh", "-c", script, str(tmp_path), sys.executable, "-c", body, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(inside, capture_output=True, text=True, check=False, env=environment)
    assert f"no space is left on the device that holds {tmp_path}/run/jobs/one" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "left: [] False"


def test_an_unknown_job_is_absent(tmp_path: Path) -> None:
    assert ask("status", str(tmp_path / "nothing"))["state"] == "absent"


def test_starting_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        ask("start", str(tmp_path / "job"), *command("pass"))


def test_a_job_whose_supervisor_went_before_it_could_be_bound_to_it_does_nothing() -> None:
    """In an interpreter without threads, as the supervisor's is: Python runs between fork and exec here."""
    program = (
        "import functools, os, subprocess, sys; from experiment_manager import agent; "
        "bind = functools.partial(agent._die_with, os.getpid() + int(sys.argv[1])); "
        "done = subprocess.run(['echo', 'runs'], stdout=subprocess.PIPE, preexec_fn=bind); "
        "print(done.returncode, done.stdout)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def told(ahead: str) -> str:
        call = [sys.executable, "-c", program, ahead]
        return subprocess.run(call, capture_output=True, text=True, check=True, env=environment).stdout

    assert told("0") == "0 b'runs\\n'\n"
    assert told("1") == "1 b''\n"


def test_the_end_of_a_job_is_waited_for_without_looking_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that is being measured nobody reads files ten times a second."""
    gate, job, look = tmp_path / "gate", tmp_path / "job", agent.status
    os.mkfifo(gate)
    ask("start", str(job), *command(f"open({str(gate)!r}).read()"))
    seen: list[str] = []

    def look_and_let_it_end(directory: Path) -> dict[str, Any]:
        told = look(directory)
        if not seen:
            gate.write_text("go")
        seen.append(told["state"])
        return told

    monkeypatch.setattr(agent, "status", look_and_let_it_end)
    monkeypatch.setattr(agent, "_LOOK_S", 3600.0)
    (told,) = agent.wait([job], "exited", 600.0)
    assert told["exit"]["status"] == 0
    assert seen == ["running", "exited"]


def test_a_supervisor_that_was_killed_is_seen_to_have_vanished(tmp_path: Path) -> None:
    job = tmp_path / "job"
    ask("start", str(job), *command("__import__('signal').pause()"))
    os.kill(json.loads((job / "job.json").read_text())["pid"], signal.SIGKILL)
    (told,) = agent.wait([job], "exited", 60.0)
    assert told["state"] == "vanished"
