"""Client processes against the stub server: files, descriptors, signals, fleets, bad input."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from client.process import final_line
from client.records import JsonArrayFile
from moonjelly.rpc import serving_pb2 as pb
from moonjelly.telemetry import SCHEMA_VERSION, FpsRow, FrameRow, read_rows
from moonjelly.types import Outcome
from tests.support.rtsp import rtsp_camera
from tests.support.serving import environment, own_lines, rows_so_far
from tests.support.stub_server import StubServer, stub_server


@pytest.fixture
async def server() -> AsyncIterator[StubServer]:
    async with stub_server() as running:
        yield running


async def start(*arguments: str, pass_fds: tuple[int, ...] = (), **variables: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "client",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=pass_fds,
        env={**environment(), **variables},
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
    return await finish(await start(*arguments, **variables))


def at(server: StubServer) -> tuple[str, ...]:
    """With a deadline that is generous: what is tested is not speed."""
    return "--server", f"127.0.0.1:{server.port}", "--slo-ms", "20000"


def complaints(errors: str) -> list[str]:
    """What a client said on stderr but for a connection that was lost and resumed: a machine that stalls breaks it."""
    usual = re.compile(r"client-\d+: (RECONNECTING: |READY: resumed)")
    return [line for line in own_lines(errors) if not usual.match(line)]


def rows_on_time(directory: Path) -> list[FrameRow]:
    """So far."""
    return [row for row in rows_so_far(directory / "frame_stats.csv", FrameRow) if row.outcome is Outcome.ON_TIME]


async def until_on_time(process: asyncio.subprocess.Process, directory: Path, frames: int) -> None:
    """Wait for the rows of so many frames."""
    while len(rows_on_time(directory)) < frames:
        assert process.returncode is None
        await asyncio.sleep(0.01)


async def test_a_run_leaves_a_row_for_every_captured_frame(server: StubServer, tmp_path: Path) -> None:
    status, output, errors = await run(
        *at(server),
        "--source",
        "synthetic:5",
        "--fps",
        "20",
        "--seconds",
        "1.5",
        "--out",
        str(tmp_path),
    )
    assert (status, complaints(errors)) == (0, [])
    rows = list(read_rows(tmp_path / "frame_stats.csv", FrameRow))
    assert len(rows) == 30, "20 fps for 1.5 s, whatever became of the frames"
    assert sorted(row.frame_id for row in rows) == list(range(1, 31))
    assert {row.slo_ms for row in rows} == {20_000.0}
    by_capture = sorted(rows, key=lambda row: row.capture_ts)
    assert [row.source_frame for row in by_capture] == [tick * 30 // 20 for tick in range(30)]
    gaps = {b.capture_ts - a.capture_ts for a, b in itertools.pairwise(by_capture)}
    assert gaps == {50_000_000}, "captured at the nominal instants"
    on_time = [row for row in rows if row.outcome is Outcome.ON_TIME]
    assert on_time
    assert f"client-0: {len(on_time)} of 30 frames on time" in output
    boxes = json.loads((tmp_path / "detections.json").read_text())
    assert [box["frame_id"] for box in boxes] == [row.frame_id for row in on_time]
    assert boxes[0]["bbox"] == [160.0, 90.0, 320.0, 90.0], "pixels of the 640x360 scene"
    assert boxes[0]["category_id"] == 1
    seconds = list(read_rows(tmp_path / "fps.csv", FpsRow))
    assert sum(row.captured for row in seconds) == 30
    assert sum(row.on_time for row in seconds) == len(on_time)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["frames_captured"], summary["on_time"]) == (30, len(on_time))
    settings = json.loads((tmp_path / "client.json").read_text())
    assert (settings["source"], settings["fps"], settings["zoo"]) == ("synthetic:5", 20.0, "stub")
    assert settings["schema_version"] == SCHEMA_VERSION
    assert server.byes


async def test_ready_start_and_status_lines(server: StubServer, tmp_path: Path) -> None:
    (ready, ready_end), (status, status_end), (start_end, go) = os.pipe(), os.pipe(), os.pipe()
    process = await start(
        *at(server), "--client-id", "4", "--seed", "2", "--fps", "10", "--out", str(tmp_path),
        *("--ready-fd", str(ready_end), "--status-fd", str(status_end), "--start-fd", str(start_end)),
        pass_fds=(ready_end, status_end, start_end),
    )  # fmt: skip
    for end in (ready_end, status_end, start_end):
        os.close(end)
    with os.fdopen(ready, "rb") as pipe:
        line = json.loads(await asyncio.to_thread(pipe.readline))
        assert line == {"client_id": 4, "pid": process.pid, "session_id": 1}
        assert await asyncio.to_thread(pipe.read) == b""
    assert server.frames == [], "nothing before the start"
    os.write(go, b"go\n")
    lines: list[dict[str, Any]] = []
    with os.fdopen(status, "rb") as pipe:
        while len(lines) < 2 or lines[-1]["state"] != "READY" or not lines[-1]["on_time"]:
            lines.append(json.loads(await asyncio.to_thread(pipe.readline)))
        process.terminate()
        code, _, errors = await finish(process)
    os.close(go)
    assert (code, complaints(errors)) == (0, [])
    assert [line["t_s"] for line in lines] == list(range(1, len(lines) + 1))
    last = lines[-1]
    assert last["client_id"] == 4
    assert lines[0]["captured"] <= last["captured"]
    assert sum(last[outcome.value.lower()] for outcome in Outcome) <= last["captured"]
    assert {"bandwidth_bps", "rtt_ms", "variant", "input_size", "fps", "p99_ms"} <= set(last)
    assert json.loads((tmp_path / "client.json").read_text())["source"] == "synthetic:2"


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_stopped_client_has_written_everything(
    server: StubServer, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    process = await start(*at(server), "--fps", "20", "--out", str(tmp_path))
    while len(server.frames) < 5:
        await asyncio.sleep(0.01)
        assert process.returncode is None
    process.send_signal(number)
    status, output, errors = await finish(process)
    assert (status, complaints(errors)) == (expected, [])
    assert "frames on time" in output
    rows = list(read_rows(tmp_path / "frame_stats.csv", FrameRow))
    assert len(rows) >= 5
    assert json.loads((tmp_path / "summary.json").read_text())["frames_captured"] == len(rows)
    json.loads((tmp_path / "detections.json").read_text())


async def test_a_killed_client_leaves_valid_files(server: StubServer, tmp_path: Path) -> None:
    process = await start(*at(server), "--fps", "30", "--out", str(tmp_path))
    await until_on_time(process, tmp_path, 5)
    while (tmp_path / "detections.json").stat().st_size <= len("[\n]\n"):
        await asyncio.sleep(0.01)
    process.kill()
    await finish(process)
    assert len(rows_on_time(tmp_path)) >= 5
    assert json.loads((tmp_path / "detections.json").read_text())


async def test_it_stops_while_it_waits_for_a_server_or_for_the_start(server: StubServer, tmp_path: Path) -> None:
    server.mute = True
    process = await start(*at(server), "--out", str(tmp_path), "--register-timeout-s", "600")
    while not server.streams:
        await asyncio.sleep(0.01)
    process.terminate()
    assert (await finish(process))[0] == 0
    server.mute = False
    start_end, go = os.pipe()
    process = await start(*at(server), "--out", str(tmp_path), "--start-fd", str(start_end), pass_fds=(start_end,))
    os.close(start_end)
    while not server.hellos:
        await asyncio.sleep(0.01)
    process.terminate()
    assert (await finish(process))[0] == 0
    os.close(go)


async def test_a_server_that_is_lost_for_good_ends_the_run_with_its_rows(server: StubServer, tmp_path: Path) -> None:
    process = await start(*at(server), "--fps", "20", "--out", str(tmp_path), "--reconnect-s", "3")
    await until_on_time(process, tmp_path, 3)
    await server.stop()
    status, _, errors = await finish(process)
    await server.start()
    assert status == 1
    assert errors.splitlines()[-1].startswith(f"moonjelly client: the client of 127.0.0.1:{server.port} is closed: ")
    rows = list(read_rows(tmp_path / "frame_stats.csv", FrameRow))
    assert {row.outcome for row in rows} >= {Outcome.ON_TIME, Outcome.SKIPPED}


async def test_rejected_frames_are_captured_frames(server: StubServer, tmp_path: Path) -> None:
    server.placed = False
    status, output, _ = await run(*at(server), "--fps", "10", "--seconds", "1", "--out", str(tmp_path))
    assert status == 0
    assert "0 of 10 frames on time, 100.00 % missed (" in output
    rows = list(read_rows(tmp_path / "frame_stats.csv", FrameRow))
    assert len(rows) == 10
    assert {row.reason for row in rows if row.outcome is Outcome.REJECTED} == {"no device holds its deadline"}
    assert all(row.source_frame is not None for row in rows)


async def test_a_recording_without_loop_ends_by_itself(server: StubServer, tmp_path: Path, data_dir: Path) -> None:
    pictures = str(data_dir / "coco" / "images")
    status, output, _ = await run(*at(server), "--source", pictures, "--fps", "30", "--no-loop", "--out", str(tmp_path))
    assert status == 0
    assert " of 21 frames on time" in output
    rows = list(read_rows(tmp_path / "frame_stats.csv", FrameRow))
    assert sorted(row.source_frame for row in rows if row.source_frame is not None) == list(range(21))


async def test_an_rtsp_camera_is_streamed_and_shows_no_frame_twice(server: StubServer, tmp_path: Path) -> None:
    with rtsp_camera() as (_, url):
        process = await start(
            *at(server), "--source", url, "--fps", "10", "--buffer", "drop-oldest", "--out", str(tmp_path)
        )
        while len(server.frames) < 5:
            await asyncio.sleep(0.01)
            assert process.returncode is None
        process.terminate()
        status, _, errors = await finish(process)
    assert (status, complaints(errors)) == (0, [])
    rows = list(read_rows(tmp_path / "frame_stats.csv", FrameRow))
    assert sorted(row.frame_id for row in rows) == list(range(1, len(rows) + 1))
    shown = [row.source_frame for row in rows if row.outcome is Outcome.ON_TIME]
    assert shown
    assert len(set(shown)) == len(shown)


async def test_frames_of_a_camera_are_counted_at_the_nominal_rate(server: StubServer, tmp_path: Path) -> None:
    with rtsp_camera() as (_, url):
        status, _, errors = await run(
            *at(server), "--source", url, "--fps", "10", "--seconds", "1.5", "--out", str(tmp_path)
        )
    assert (status, complaints(errors)) == (0, [])
    assert len(list(read_rows(tmp_path / "frame_stats.csv", FrameRow))) == 15, "whatever the camera delivers"


async def test_pre_encoded_needs_a_recording(server: StubServer, tmp_path: Path) -> None:
    status, _, errors = await run(*at(server), "--source", "rtsp://127.0.0.1:9/x", "--pre-encoded", "5")
    assert status == 2
    assert errors == "moonjelly client: pre_encoded = 5: rtsp://127.0.0.1:9/x is live; it needs a recording\n"


async def test_a_scene_is_drawn_before_the_client_registers(server: StubServer, tmp_path: Path) -> None:
    words = (*at(server), "--fps", "20", "--seconds", "1", "--scene-seconds", "0.5", "--out", str(tmp_path))
    status, _, errors = await run(*words)
    assert (status, complaints(errors)) == (0, [])
    rows = list(read_rows(tmp_path / "frame_stats.csv", FrameRow))
    indices = [row.source_frame for row in rows]
    assert len(indices) == 20
    assert indices[:10] == indices[10:] == sorted(set(indices))


async def test_it_stops_while_it_draws(server: StubServer, tmp_path: Path) -> None:
    words = (*at(server), "--fps", "30", "--scene-seconds", "3600", "--out", str(tmp_path))
    read_end, lifeline = os.pipe()
    process = await start(*words, "--lifeline-fd", str(read_end), pass_fds=(read_end,))
    os.close(read_end)
    os.close(lifeline)
    assert (await finish(process))[0] == 0
    assert not server.hellos


async def test_the_script_takes_variables_and_runs_from_anywhere(
    server: StubServer, tmp_path: Path, root: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        str(root / "src" / "client" / "run.sh"),
        *("--seconds", "0.5"),
        cwd=tmp_path,
        env={**os.environ, "server_port": str(server.port), "slo": "2000", "fps": "10", "out": str(tmp_path)},
    )
    assert await asyncio.wait_for(process.wait(), 60) == 0
    rows = list(read_rows(tmp_path / "logs" / "client" / "host_0" / "frame_stats.csv", FrameRow))
    assert [row.slo_ms for row in rows] == [2000.0] * 5


async def test_pre_encoded_frames_are_encoded_once(server: StubServer, tmp_path: Path) -> None:
    status, _, _ = await run(*at(server), "--fps", "20", "--seconds", "1", "--pre-encoded", "5", "--out", str(tmp_path))
    assert status == 0
    rows = [row for row in read_rows(tmp_path / "frame_stats.csv", FrameRow) if row.outcome is Outcome.ON_TIME]
    assert {row.source_frame for row in rows} <= set(range(5))
    assert {row.encode_ms for row in rows} == {0.0}
    sizes = {(frame.width, frame.quality, frame.data) for frame in server.frames}
    assert len(sizes) <= 5 * 3


async def test_a_fleet_is_one_process_per_client_and_one_summary(server: StubServer, tmp_path: Path) -> None:
    status_read, status_write = os.pipe()
    process = await start(
        *at(server), "--clients", "3", "--slo-ms", "1000,2000", "--fps", "10,20", "--seconds", "1.2",
        *("--client-id", "7", "--out", str(tmp_path), "--status-fd", str(status_write)),
        pass_fds=(status_write,),
    )  # fmt: skip
    os.close(status_write)
    with os.fdopen(status_read, "rb") as pipe:
        lines = [json.loads(line) for line in await asyncio.to_thread(pipe.readlines)]
    status, output, _ = await finish(process)
    assert status == 0
    assert {line["client_id"] for line in lines} == {7, 8, 9}
    assert output.count("frames on time") == 3
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames_captured"] == 12 + 24 + 12
    clients = {one["client_id"]: one for one in summary["clients"]}
    assert [(clients[i]["slo_ms"], clients[i]["fps"]) for i in (7, 8, 9)] == [(1000, 10), (2000, 20), (1000, 10)]
    pids = {hello.name for hello in server.hellos}
    assert pids == {"client-7", "client-8", "client-9"}
    for client_id in (7, 8, 9):
        assert (tmp_path / f"host_{client_id}" / "frame_stats.csv").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_client_outlives_its_fleet(server: StubServer, tmp_path: Path, number: signal.Signals) -> None:
    process = await start(*at(server), "--clients", "2", "--fps", "10", "--out", str(tmp_path))
    while len(server.frames) < 4:
        await asyncio.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2
    process.send_signal(number)
    await finish(process)
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 60)
    assert alive == []


async def test_a_fleet_whose_client_cannot_start_ends_and_says_why(server: StubServer, tmp_path: Path) -> None:
    status, _, errors = await run(*at(server), "--clients", "2", "--source", "/absent.mp4", "--out", str(tmp_path))
    assert status == 1
    assert "the file /absent.mp4 does not exist" in errors
    assert "ended with status 2 before it was ready" in errors


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--source", "/absent.mp4"), 2, "moonjelly client: source /absent.mp4: the file /absent.mp4 does not exist"),
        (("--slo-ms", "0"), 2, "moonjelly client: 'slo_ms.0' = '0': Input should be greater than 0"),
        (("--fps", "15,fast"), 2, "moonjelly client: 'fps.1' = 'fast': Input should be a valid number"),
        (("--fps", "1e-300"), 2, "'fps.0' = '1e-300': Input should be greater than or equal to 0.001"),
        (("--buffer", "newest"), 2, "'latest', 'drop-oldest', 'drop-latest' or 'wait'"),
        (("--server", "127.0.0.1:9", "--register-timeout-s", "0.3"), 1, "no server answered at 127.0.0.1:9"),
        (
            ("--source", "/absent.mp4", "--scene-seconds", "9"),
            2,
            "/absent.mp4 is no synthetic scene: there is nothing to",
        ),
        (("--scene-seconds", "0"), 2, "'scene_seconds' = 0.0: Input should be greater than 0"),
        (("--config", "/absent.toml"), 2, "configuration file /absent.toml does not exist"),
        (("--root-certificates", "/absent.pem"), 2, "root_certificates = /absent.pem: No such file"),
    ],
)
async def test_a_users_error_is_one_line(tmp_path: Path, arguments: tuple[str, ...], status: int, text: str) -> None:
    found, _, errors = await run(*arguments, "--out", str(tmp_path / "out"))
    assert found == status
    (line,) = own_lines(errors)
    assert text in line
    assert line.startswith("moonjelly client: ")


async def test_options_come_from_file_then_environment_then_command_line(server: StubServer, tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text('fps = 5\nslo_ms = [500]\nname = "from-file"\nseconds = 0.4\n')
    status, _, errors = await run(
        *at(server), "--config", str(file), "--slo-ms", "700", "--out", str(tmp_path / "out"), MOONJELLY_CLIENT_FPS="10"
    )
    assert (status, complaints(errors)) == (0, [])
    hello = server.hellos[0]
    assert (hello.name, hello.fps, hello.slo_ms) == ("from-file", 10.0, 700.0)
    file.write_text("fsp = 5\n")
    status, _, errors = await run(*at(server), "--config", str(file))
    assert status == 2
    assert "unknown key 'fsp'; known keys: buffer, client_id" in errors


async def test_the_client_needs_no_torch(server: StubServer, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnxruntime'] = None; import client.app; "
        f"sys.exit(client.app.main(['--server', '127.0.0.1:{server.port}', '--seconds', '0.3', '--out', sys.argv[1]]))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path), env=environment())
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_a_reconnect_is_told_once_each_way(server: StubServer, tmp_path: Path) -> None:
    process = await start(*at(server), "--fps", "20", "--out", str(tmp_path))
    while len(server.frames) < 3:
        await asyncio.sleep(0.01)
    await server.restart()
    before = len(server.frames)
    while len(server.frames) < before + 3:
        await asyncio.sleep(0.01)
    server.say(pb.ServerMessage(error=pb.Error(code="INVALID_ARGUMENT", message="just so")))
    process.terminate()
    status, _, errors = await finish(process)
    assert status == 0
    assert "client-0: RECONNECTING:" in errors
    assert "client-0: READY: resumed" in errors
    rows = list(read_rows(tmp_path / "frame_stats.csv", FrameRow))
    assert len({row.frame_id for row in rows}) == len(rows)


def test_a_json_array_is_whole_after_every_call(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    array = JsonArrayFile(path)
    assert json.loads(path.read_text()) == []
    written: list[dict[str, Any]] = []
    for count in (0, 1, 3, 0, 2):
        more = [{"n": len(written) + i} for i in range(count)]
        array.extend(more)
        written += more
        assert json.loads(path.read_text()) == written
    array.close()


def test_the_final_line() -> None:
    from moonjelly.sdk import Statistics

    outcomes = dict.fromkeys(Outcome, 0) | {Outcome.ON_TIME: 97, Outcome.LATE: 2, Outcome.LOST: 1}
    statistics = Statistics(100, 100, outcomes, 20.0, 80.4, 0, 0)
    assert final_line(statistics) == "97 of 100 frames on time, 3.00 % missed (2 late, 1 lost), p99 80 ms"


def test_a_fleet_that_cannot_start_a_client_leaves_no_pipe_open(tmp_path: Path) -> None:
    """In a process of its own: the tests' has threads that open and close descriptors meanwhile."""
    program = """
import asyncio, os, pathlib, sys
from client.config import ClientOptions
from client.fleet import Fleet
from client.process import Descriptors

async def fail():
    await Fleet(options, Descriptors(), print).run()

options = ClientOptions(server="127.0.0.1:1", clients=2, out=pathlib.Path(sys.argv[1]))
before = os.listdir("/proc/self/fd")
sys.executable = "/nowhere"
try:
    asyncio.run(fail())
except FileNotFoundError as fault:
    print(fault.filename, os.listdir("/proc/self/fd") == before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout == "/nowhere True\n", done.stderr
