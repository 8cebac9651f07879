"""Which runs count, what a machine lacks, and results that must not be mixed."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.accounts import Participant, settle
from cli.experiment import progress_of_runs
from experiment_manager import checks
from experiment_manager.checks import Wanted
from experiment_manager.hosts import Host, Hosts
from experiment_manager.runner import Runner
from experiment_manager.stage import first_fault, judge
from experiment_manager.sweep import Device, Sweep, conditions, expand
from experiment_manager.table import collect_table
from moonjelly.errors import MoonjellyError, SchemaError
from moonjelly.summary import PlanFigures
from moonjelly.telemetry import SCHEMA_VERSION, CsvLog, FrameRow, PlanRow, ServerFrameRow
from moonjelly.types import Outcome
from moonjelly.units import NS_PER_S
from moonjelly.version import __version__
from plots.settings import natural, setting_label
from tests.support.logs import frame, write_sweep

HOST = Host(host="10.0.0.2", name="left", interface="eth1", user="me")
FIT: dict[str, Any] = {
    "root": True, "version": __version__, "packages": True, "free_gib": 50.0, "tc": True, "admin": True,
    "interface": True, "absent": [], "congestion": "cubic",
}  # fmt: skip


def end(cpu_s: float, waited_s: float) -> dict[str, Any]:
    return {"cpu_s": cpu_s, "waited_s": waited_s, "turns": 1000, "wall_s": 10.0}


@pytest.mark.parametrize(("waited_s", "state"), [(0.0, "done"), (0.99, "done"), (1.01, "starved"), (30.0, "starved")])
def test_a_run_is_starved_when_one_process_waited_too_long(waited_s: float, state: str) -> None:
    verdict = judge({"server": end(1.0, 0.0), "client-0": end(1.0, waited_s)}, 1.0)
    assert verdict.state == state
    assert ("client-0" in verdict.reason) == (state == "starved")
    assert {name for name, *_ in verdict.processors} == {"server", "client-0"}


EXITED, READY = {"state": "exited", "exit": {"status": 0}}, {"state": "ready"}


@pytest.mark.parametrize(
    ("ends", "fault"),
    [
        ({"client-0": EXITED, "client-1": EXITED}, None),
        (
            {"client-0": READY, "client-1": {"state": "exited", "exit": {"status": -9}}},
            "client-1 was ended by signal 9",
        ),
        ({"client-0": READY, "client-1": {"state": "exited", "exit": {"status": 2}}}, "client-1 ended with status 2"),
        ({"client-0": READY, "client-1": {"state": "vanished"}}, "client-1 is vanished"),
        ({"client-0": EXITED, "client-1": READY}, "client-1 had not ended 60 s after the run"),
    ],
)
def test_the_client_that_died_is_named_and_not_one_that_went_on(ends: dict[str, Any], fault: str | None) -> None:
    found = first_fault(ends)
    assert (" ".join(found) if found else None) == fault


def test_an_idle_process_is_not_starved() -> None:
    assert judge({"network-left": end(0.0, 0.0)}, 0.0).state == "done"


def test_the_manager_needs_the_videos_that_it_scores(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").touch()
    assert checks.check_golden(("there.mp4", "synthetic:3", "rtsp://camera/1"), tmp_path) == []
    (found,) = checks.check_golden(("there.mp4", "gone.mp4", "/gone/too.mp4"), tmp_path)
    assert [problem.split(" here")[0] for problem in found.problems] == [
        f"no file {tmp_path / 'gone.mp4'}",
        "no file /gone/too.mp4",
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"root": False}, "no clone in moonjelly: clone moonjelly there"),
        ({"version": "0.0.1"}, "moonjelly 0.0.1 there"),
        ({"packages": "No module named 'grpc'"}, "No module named 'grpc': pip install"),
        ({"free_gib": 0.2}, "less than 1 GiB free"),
        ({"tc": False}, "no 'tc' there: apt install iproute2"),
        ({"interface": False}, "no interface 'eth1' there"),
        ({"admin": False}, "me may not shape: log in as root, or set shaping = 'relay'"),
        ({"absent": ["a.mp4"]}, "no file a.mp4 there"),
    ],
)
def test_what_a_machine_lacks_is_said_with_its_remedy(found: dict[str, Any], said: str) -> None:
    told = {**FIT, **found}
    problems = [*checks._judge(told, HOST), *checks._judge_client(told, HOST, Wanted("tc"))]
    assert len(problems) == 1
    assert said in problems[0]


def test_a_fit_machine_has_no_problem() -> None:
    assert not [*checks._judge(FIT, HOST), *checks._judge_client(FIT, HOST, Wanted("tc"))]
    without_tc = {**FIT, "tc": False, "admin": False, "interface": False}
    assert not checks._judge_client(without_tc, HOST, Wanted("relay"))


@pytest.mark.parametrize("shaping", ["tc", "relay"])
def test_a_congestion_control_that_paces_is_warned_of_with_its_remedy(shaping: str) -> None:
    (warning,) = checks._warn_client({**FIT, "congestion": "bbr"}, Wanted(shaping))
    assert warning.startswith("TCP's 'bbr' there")
    assert "sysctl -w net.ipv4.tcp_congestion_control=reno" in warning
    assert not checks._judge_client({**FIT, "congestion": "bbr"}, HOST, Wanted(shaping)), "it stops no run"


@pytest.mark.parametrize(("congestion", "shaping"), [("reno", "tc"), ("cubic", "relay"), ("bbr", "none")])
def test_others_are_not_warned_of_nor_anything_where_nothing_is_shaped(congestion: str, shaping: str) -> None:
    assert not checks._warn_client({**FIT, "congestion": congestion}, Wanted(shaping))


def test_only_sources_that_are_paths_must_be_there() -> None:
    sources = ("synthetic", "synthetic:3", "rtsp://x/y", "/dev/video0", "synthetic.mp4", "a.mp4")
    assert Wanted(sources=sources).files == ("synthetic.mp4", "a.mp4")


def runner(out: Path, sweep: Sweep) -> Runner:
    hosts = Hosts(server=HOST, clients=(HOST,))
    return Runner(hosts, sweep, out, settle=lambda run, place: None, watch=lambda run, what: None)


def test_finished_runs_are_not_repeated_and_conditions_are_not_mixed(tmp_path: Path) -> None:
    sweep = Sweep(clients=(1, 2), slo_ms=(75.0,), fps=(15.0,), repetitions=1, seconds=60)
    first, second = expand(sweep)
    assert runner(tmp_path, sweep).pending((first, second)) == [first, second]
    (tmp_path / first.name).mkdir(parents=True)
    record = {**dataclasses.asdict(first), "conditions": conditions(sweep), "state": "done", "reason": ""}
    (tmp_path / first.name / "run.json").write_text(json.dumps(record))
    assert runner(tmp_path, sweep).pending((first, second)) == [second]
    with pytest.raises(MoonjellyError, match=r"seconds = 60\.0 there, 10\.0 here; name another --out"):
        runner(tmp_path, sweep.model_copy(update={"seconds": 10.0})).pending((first, second))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 7}, "seed = 0 there, 7 here"),
        ({"trace": "b/street.txt"}, "trace = a/street.txt there, b/street.txt here"),
        ({"devices": (Device(0, 75.0, 24.0),)}, "devices = 75 ms at 15 fps there, 75 ms at 24 fps here"),
    ],
)
def test_a_result_does_not_stand_for_another_run_of_its_name(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    sweep = Sweep(clients=(1,), slo_ms=(75.0,), fps=(15.0,), traces=("a/street.txt",), repetitions=1)
    (run,) = expand(sweep)
    (tmp_path / run.name).mkdir(parents=True)
    record = {**dataclasses.asdict(run), "conditions": conditions(sweep), "state": "done", "reason": ""}
    (tmp_path / run.name / "run.json").write_text(json.dumps(record))
    moved = Device(0, 75.0, 15.0, machine="another")
    assert runner(tmp_path, sweep).pending((dataclasses.replace(run, devices=(moved,)),)) == []
    with pytest.raises(MoonjellyError, match=f"{words}; name another --out"):
        runner(tmp_path, sweep).pending((dataclasses.replace(run, **changes),))


@pytest.mark.parametrize("lost", ["seed", "conditions", "devices", "fps"])
def test_a_record_of_another_version_is_named_with_what_it_lacks(tmp_path: Path, lost: str) -> None:
    sweep = Sweep(clients=(1,), slo_ms=(75.0,), fps=(15.0,), repetitions=1)
    (run,) = expand(sweep)
    record = {**dataclasses.asdict(run), "conditions": conditions(sweep), "state": "done", "reason": ""}
    for told in (record, *record["devices"]):
        told.pop(lost, None)
    (tmp_path / run.name).mkdir(parents=True)
    (tmp_path / run.name / "run.json").write_text(json.dumps(record))
    said = rf"run\.json does not tell {lost}: another version of moonjelly wrote it; use that one, or name another"
    with pytest.raises(SchemaError, match=said):
        runner(tmp_path, sweep).pending((run,))
    with pytest.raises(SchemaError, match=said):
        collect_table(tmp_path)


def test_a_torn_record_is_a_run_to_do(tmp_path: Path) -> None:
    sweep = Sweep(clients=(1,), slo_ms=(75.0,), fps=(15.0,), repetitions=1)
    (run,) = expand(sweep)
    (tmp_path / run.name).mkdir(parents=True)
    (tmp_path / run.name / "run.json").write_text('{"state": "do')
    assert runner(tmp_path, sweep).pending((run,)) == [run]


def test_only_one_manager_collects_in_a_folder(tmp_path: Path) -> None:
    sweep = Sweep()
    refused = pytest.raises(MoonjellyError, match="runs a sweep into")
    with runner(tmp_path, sweep).alone(), refused, runner(tmp_path, sweep).alone():
        pass
    with runner(tmp_path, sweep).alone():
        assert (tmp_path / ".lock").exists()


def test_owners_of_two_folders_differ(tmp_path: Path) -> None:
    one, other = runner(tmp_path / "a", Sweep()), runner(tmp_path / "b", Sweep())
    assert one.owner != other.owner
    assert one.owner == runner(tmp_path / "b" / ".." / "a", Sweep()).owner


def test_the_table_has_a_row_per_client_and_one_for_the_run(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    table = collect_table(tmp_path)
    assert len(table) == 4 * 2 + 4 * 3 + 1
    failed = table[table["state"] == "failed"]
    assert failed["miss_rate"].isna().all()
    assert failed["policy"].tolist() == ["sa-dp"]
    assert not table["run"].str.contains("attempt-").any()


def test_the_table_refuses_a_summary_of_a_newer_version(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    path = next(iter(sorted(tmp_path.rglob("iter-0/summary.json"))))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(SchemaError, match=re.escape(f"{path} has schema_version {SCHEMA_VERSION + 1}; this program")):
        collect_table(tmp_path)


def test_an_empty_folder_has_an_empty_table_with_all_columns(tmp_path: Path) -> None:
    table = collect_table(tmp_path)
    assert table.empty
    assert {"run", "state", "miss_rate", "latency_p99_ms"} <= set(table.columns)


def test_frames_of_the_warm_up_do_not_count(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "client" / "frame_stats.csv", FrameRow)
    outcomes = [Outcome.LATE] * 15 + [Outcome.ON_TIME] * 15
    log.write_all(frame(0, number, outcome, 50.0) for number, outcome in enumerate(outcomes))
    log.close()
    one = Participant(0, "client-0", 100.0, 15.0, "synthetic", tmp_path / "client")
    common = {"zoo": "yolov4", "plans": tmp_path / "none.csv", "into": tmp_path, "score": False}
    assert settle([one], seconds=1.0, warmup_s=15 * 0.066, **common).miss_rate == 0.0  # type: ignore[arg-type]
    assert settle([one], seconds=2.0, **common).late == 15  # type: ignore[arg-type]


def test_plans_count_where_frames_do(tmp_path: Path) -> None:
    """Times are the server's, in s: it may run on another machine than the clients."""
    times = (0.0,) * 6
    with closing(CsvLog(tmp_path / "frame_stats.csv", ServerFrameRow)) as received:
        for number, second in enumerate((100, 104, 109)):
            row = ServerFrameRow(
                1, number, second * NS_PER_S, *times, 8e6, 8e6, 9, 9, 1, "net", 0, 1, Outcome.ON_TIME, ""
            )
            received.write(row)
    with closing(CsvLog(tmp_path / "plans.csv", PlanRow)) as plans:
        for run, second in enumerate((90, 101, 105, 106, 110)):
            plans.write(PlanRow(run, second * NS_PER_S, "interval", "multiset", 1, 0, "", "", 1.0, 1, False, 0.4))

    def counted(warmup_s: float) -> PlanFigures:
        log, into = tmp_path / "plans.csv", tmp_path / "out"
        return settle([], zoo="yolov4", seconds=9.0, plans=log, into=into, score=False, warmup_s=warmup_s).plans

    assert (counted(0.0).count, counted(0.0).switches) == (3, 3), "not those before the first and after the last frame"
    assert (counted(4.0).count, counted(4.0).switches) == (2, 2)
    (tmp_path / "frame_stats.csv").unlink()
    assert counted(0.0).count == 0


def test_settings_are_named_and_ordered_for_people() -> None:
    names = ["slo-150_fps-15", "slo-75_fps-29.97", "slo-75_fps-15", "var_var"]
    assert [setting_label(name) for name in sorted(names, key=natural)] == [
        "SLO 75 ms, 15 fps",
        "SLO 75 ms, 29.97 fps",
        "SLO 150 ms, 15 fps",
        "var_var",
    ]


def test_a_narrow_terminal_cuts_the_runs_name_off_not_the_time_left() -> None:
    console = Console(width=60, file=io.StringIO())
    progress = progress_of_runs(console)
    progress.add_task(
        "a-trace-with-a-long-name/multiset/clients-8_slo-100_fps-25_synthetic/iter-0", total=24, completed=3
    )
    console.print(progress.make_tasks_table(progress.tasks))
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "3/24 0:00:00 -:--:-- left a-trace-with" in line


def test_a_probe_ends_with_the_connection_that_asked_for_it(tmp_path: Path) -> None:
    """Also in the middle of an import; that of `grpc` waits for ever here."""
    package = tmp_path / "src" / "moonjelly"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "version.py").write_text("__version__ = 'any'")
    waiting = "import threading; print('importing', flush=True); threading.Event().wait()"
    (tmp_path / "src" / "grpc.py").write_text(waiting)
    command = [sys.executable, "-c", checks._PROBE, str(tmp_path), str(tmp_path / "work"), ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
        assert probe.stdout is not None
        assert probe.stdin is not None
        assert probe.stdout.readline() == "importing\n"
        probe.stdin.close()
        assert probe.wait(timeout=60) == 1
