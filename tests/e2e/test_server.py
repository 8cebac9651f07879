"""Whole servers as processes: start, serve, stop, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from moonjelly.inference.recorded import read_answers
from moonjelly.repository import load_zoo
from moonjelly.rpc import messages
from moonjelly.telemetry import DispatchRow, PlanRow, ServerFrameRow, read_rows
from moonjelly.types import Outcome
from moonjelly.units import ClientInstant
from tests.support.serving import (
    SIZES,
    STREAM,
    Server,
    WireClient,
    command,
    connected,
    counting,
    environment,
    hello,
    jpeg,
    own_lines,
    rows_so_far,
    running_server,
    until,
    welcomed,
    write_zoo,
)

on_one_loop = pytest.mark.asyncio(loop_scope="session")
PICTURE = jpeg(64)


CAMERA_FPS = 45.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two simulated devices."""
    with running_server(tmp_path_factory.mktemp("server"), devices=2) as running:
        yield running


def refused(*arguments: str) -> tuple[int, str]:
    """Exit code of a server that cannot start, and what it said."""
    done = subprocess.run(command("--port", "0", *arguments), env=environment(), capture_output=True, timeout=200)
    return done.returncode, "\n".join(own_lines(done.stderr.decode()))


STOPS_ITSELF = """
import os, signal, sys
if "server.executor" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGSTOP)
"""
"""For ``sitecustomize``, which Python runs before anything else: an executor that is never ready."""


def stopped(pid: int) -> list[psutil.Process]:
    """Children of ``pid`` that stand still."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child] if child.status() == psutil.STATUS_STOPPED else []
    return found


@on_one_loop
class TestServing:
    async def test_a_stream_of_frames_is_answered_on_time_at_the_planned_variant(self, server: Server) -> None:
        """On a busy host the server may take the device for slow at first and lower the plan: it must come back."""
        async with welcomed(server.port) as client:
            await client.placed()
            for frame_id in counting():
                await client.frame(frame_id, PICTURE)
                result = await client.result(frame_id)
                assert result.outcome is Outcome.ON_TIME
                assert len(result.detections) > 0
                if frame_id >= 30 and result.variant == len(SIZES) - 1:
                    break
            assert result.stages.infer_ms >= 12.0
            acks = [ack for message in client.received for ack in message.acks]
            assert [ack.frame_id for ack in acks] == list(range(1, frame_id + 1))
            assert all(0 < ack.received_ns < ack.sent_ns for ack in acks)
            await client.send(messages.Bye())
            while await client.read() is not None:
                pass
            assert (await client.status())[0] is grpc.StatusCode.OK

    async def test_frames_of_several_clients_run_as_batches(self, server: Server) -> None:
        """320 frames/s in all: more than one device can do of the largest variant, and less than two can of the least,
        however slow they seem."""
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(welcomed(server.port, name=f"camera {number}", fps=80.0))
                for number in range(4)
            ]
            for client in clients:
                await client.placed()
            batches, devices = set[int](), set[int]()
            for turn in counting():
                frame_ids = range(3 * turn, 3 * turn + 3)
                with server.standing_still():  # so that they wait together
                    for client in clients:
                        for frame_id in frame_ids:
                            await client.frame(frame_id, PICTURE)
                    for client in clients:
                        await client.acknowledged(frame_ids[-1])
                for client in clients:
                    for frame_id in frame_ids:
                        result = await client.result(frame_id)
                        assert result.outcome is Outcome.ON_TIME
                        batches.add(result.stages.batch)
                        devices.add(result.stages.device)
                if max(batches) > 1 and devices == {0, 1}:  # a plan soon uses both
                    break

    async def test_a_lost_client_resumes(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.placed()
            await client.frame(1, PICTURE)
            await client.result(1)
            first = client.welcome
        assert first is not None
        async with welcomed(server.port, resume_token=first.token) as again:
            assert again.welcome is not None
            assert (again.welcome.session_id, again.welcome.last_frame_id) == (first.session_id, 1)
            await again.placed()
            await again.frame(2, PICTURE)
            assert (await again.result(2)).outcome is Outcome.ON_TIME

    async def test_a_vanished_client_is_removed(self, tmp_path: Path) -> None:
        with running_server(tmp_path, "--session-ttl-s", "0.2") as server:
            async with welcomed(server.port) as client:
                first = client.welcome
            assert first is not None
            plans = server.out / "plans.csv"
            await asyncio.to_thread(until, lambda: "expired" in {row.trigger for row in rows_so_far(plans, PlanRow)})
            async with connected(server.port) as late:
                await late.send(hello(resume_token=first.token))
                answer = await late.read()
        assert answer is not None
        assert answer.error is not None
        assert answer.error.code == "UNAUTHENTICATED"

    async def test_pings_carry_the_servers_instants(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.send(messages.Ping(sent_ns=ClientInstant(5)))
            pong = await client.until(lambda message: message.pongs and message.pongs[0])
            assert pong.sent_client_ns == 5
            assert pong.received_ns < pong.sent_ns

    async def test_health_and_reflection_are_there(self, server: Server) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            for service in ("", "moonjelly.v1.Serving"):
                answer = await check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            listed = await call.read()
            assert "moonjelly.v1.Serving" in {one.name for one in listed.list_services_response.service}
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="moonjelly.v1.Serving"))
            assert (await call.read()).file_descriptor_response.file_descriptor_proto
            call.cancel()


@on_one_loop
class TestOptions:
    async def test_a_batch_limit_below_the_profiles_is_kept_under_load(self, tmp_path: Path) -> None:
        """The profile has batches up to 12; what is loaded for two must never be asked for more."""

        with running_server(tmp_path, "--max-batch", "2") as server:
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(welcomed(server.port, name=f"camera {number}", slo_ms=60_000.0))
                    for number in range(4)
                ]
                for client in clients:
                    await client.placed()
                with server.standing_still():
                    for client in clients:
                        for frame_id in range(1, 31):
                            await client.frame(frame_id, PICTURE)
                        await client.acknowledged(30)
                results = [await client.result(frame_id) for client in clients for frame_id in range(1, 31)]
        assert Outcome.FAILED not in {result.outcome for result in results}
        assert max(result.stages.batch for result in results) == 2

    async def test_clients_are_told_the_latency_factor_of_the_plan(self, tmp_path: Path) -> None:
        with running_server(tmp_path, "--latency-factor", "1.5") as server:
            async with connected(server.port) as client:
                await client.send(hello())
                welcome = await client.until(lambda message: message.welcome)
                assert welcome.plan.latency_factor == 1.5, "also of a provisional place"
                assert (await client.placed()).latency_factor == 1.5

    async def test_two_groups_are_served_at_once(self, tmp_path: Path) -> None:
        zoos = {
            "a": write_zoo(tmp_path / "a", name="first"),
            "b": write_zoo(tmp_path / "b", name="second", latencies_ms=(4.0, 6.0)),
        }

        async def stream(port: int, group: str) -> list[messages.Result]:
            async with welcomed(port, name=group, group=group) as client:
                await client.placed()
                results: list[messages.Result] = []
                for frame_id in counting():
                    await client.frame(frame_id, PICTURE)
                    results.append(await client.result(frame_id))
                    if sum(result.outcome is Outcome.ON_TIME for result in results) == 30:  # a new plan may cost some
                        break
                return results

        with running_server(tmp_path, "--zoo", f"b={zoos['b']}", zoo=f"a={zoos['a']}", devices=2) as server:
            everything = await asyncio.gather(*(stream(server.port, group) for group in "aabb"))
        by_group = [everything[0] + everything[1], everything[2] + everything[3]]
        devices = [{r.stages.device for r in results if r.outcome is Outcome.ON_TIME} for results in by_group]
        assert len(devices[0] | devices[1]) == 2
        classes = {int(index) for results in by_group for r in results for index in r.detections.classes}
        assert classes == {0, 1}


@on_one_loop
class TestStopping:
    async def test_sigterm_drains_then_everything_is_gone_and_written(self, tmp_path: Path) -> None:
        with running_server(tmp_path, "--grace-s", "60") as server:
            async with welcomed(server.port, slo_ms=60_000.0) as client:
                await client.placed()
                await client.frame(1, PICTURE)
                await client.result(1)
                server.process.send_signal(signal.SIGTERM)
                drain = await client.until(lambda message: message.drain)
                assert drain == messages.Drain(60.0, "the server is stopping")
                await client.frame(2, PICTURE)
                assert (await client.result(2)).outcome is Outcome.ON_TIME
                async with connected(server.port) as newcomer:  # is told before it has said anything
                    error = await newcomer.error()
                    assert (error.code, error.message) == ("UNAVAILABLE", "the server is stopping")
                await client.send(messages.Bye())
                while await client.read() is not None:
                    pass
            assert await asyncio.to_thread(server.process.wait, 100) == 0
        frames = list(read_rows(server.out / "frame_stats.csv", ServerFrameRow))
        assert [row.frame_id for row in frames] == [1, 2]
        assert list(read_rows(server.out / "plans.csv", PlanRow))
        assert sum(row.batch for row in read_rows(server.out / "dispatch.csv", DispatchRow)) == 2
        summary = json.loads((server.out / "summary.json").read_text())
        assert summary["frames"] == 2
        assert summary["outcomes"]["ON_TIME"] == 2

    async def test_streams_without_outstanding_frames_end_long_before_the_grace(self, tmp_path: Path) -> None:
        with running_server(tmp_path, "--grace-s", "3600") as server:
            async with welcomed(server.port, slo_ms=1000.0) as client:
                await client.placed()
                await client.frame(1, PICTURE)
                await client.acknowledged(1)
                server.process.send_signal(signal.SIGTERM)
                assert await client.until(lambda message: message.drain)
                assert await client.result(1)
                while await client.read() is not None:
                    pass
                assert await asyncio.to_thread(server.process.wait, 100) == 0

    async def test_streams_that_have_said_nothing_end_at_once(self, tmp_path: Path) -> None:
        with running_server(tmp_path, "--grace-s", "3600") as server:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                calls = [channel.stream_stream(STREAM)() for _ in range(2)]
                silent, other = map(WireClient, calls)
                await calls[0].wait_for_connection()
                await other.send(hello(slo_ms=60_000.0))
                await other.until(lambda message: message.welcome)  # on one connection: the server knows both
                server.process.send_signal(signal.SIGTERM)
                assert await other.until(lambda message: message.drain)
                error = await silent.until(lambda message: message.error)
                assert error == messages.StreamError("UNAVAILABLE", "the server is stopping", fatal=True)
                other.cancel()

    async def test_clients_that_stay_do_not_hold_it_up(self, tmp_path: Path) -> None:
        with running_server(tmp_path, "--grace-s", "0.2") as server:
            async with welcomed(server.port, slo_ms=60_000.0) as client:
                server.process.send_signal(signal.SIGTERM)
                while await client.read() is not None:
                    pass
                assert await asyncio.to_thread(server.process.wait, 100) == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_to_the_group_while_it_starts(self, tmp_path: Path, number: signal.Signals) -> None:
        zoo = write_zoo(tmp_path / "zoo")
        arguments = ("--zoo", str(zoo), "--runtime", "simulated", "--port", "0", "--out", str(tmp_path / "out"))
        (tmp_path / "sitecustomize.py").write_text(STOPS_ITSELF)
        variables = environment()
        variables["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{variables['PYTHONPATH']}"
        process = subprocess.Popen(command(*arguments), env=variables, stderr=subprocess.PIPE, start_new_session=True)
        try:
            await asyncio.to_thread(until, lambda: stopped(process.pid) or process.poll() is not None)
            assert process.poll() is None
            children = psutil.Process(process.pid).children()
            os.killpg(process.pid, number)
            _, errors = process.communicate(timeout=100)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        assert own_lines(errors.decode()) == ["moonjelly serve: stopped while the executors were warming up"]
        assert process.returncode == 1
        assert not psutil.wait_procs(children, timeout=60)[1]


class TestRunSh:
    def test_run_sh_starts_with_jellyfishs_defaults_and_stops_by_sigterm(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "plans.csv").write_text("run\n7\n")
        read_fd, write_fd = os.pipe()
        process = subprocess.Popen(
            [root / "src" / "server" / "run.sh", "--ready-fd", str(write_fd)],
            cwd=tmp_path,
            env=environment() | {"num_gpus": "1", "runtime": "simulated", "port": "0", "log_dir": str(tmp_path)},
            pass_fds=(write_fd,),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        os.close(write_fd)
        try:
            with open(read_fd, encoding="utf-8") as ready:
                line = json.loads(ready.readline())
            assert line["pid"] == process.pid
            assert psutil.Process(process.pid).name() == "run.sh", "what 'pkill run.sh' of its README looks for"
            assert line["device_kinds"] == ["reference-gpu"]
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=100)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0
        assert b"listening on 0.0.0.0 with neither TLS nor a token" in errors
        assert not psutil.wait_procs(family, timeout=60)[1]
        with (tmp_path / "plans.csv").open() as plans:
            assert next(csv.reader(plans))[:3] == ["run", "ts", "trigger"]
        assert (tmp_path / "earlier-1" / "plans.csv").read_text() == "run\n7\n", "of the server before"


async def test_a_simulated_device_answers_with_what_real_models_saw(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cli", "zoo", "record", "synthetic", "--source", "synthetic:7"),
            *("--fps", "15", "--frames", "3", "--out", str(recording)),
        ],
        env=environment(), capture_output=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    zoo = load_zoo("synthetic")
    recorded = read_answers(recording, zoo.variants, zoo.classes)
    boxes = 0
    with running_server(tmp_path, "--answers", str(recording), "--kind", "cpu", zoo="synthetic") as server:
        async with welcomed(server.port) as client:
            await client.placed()
            for frame_id in range(1, 8):
                await client.frame(frame_id, PICTURE)
                result = await client.result(frame_id)
                assert result.outcome is Outcome.ON_TIME
                seen = recorded.detections(zoo.variants[result.variant].name, "any", frame_id)
                np.testing.assert_allclose(result.detections.boxes, seen.boxes, atol=1e-4)
                assert result.detections.classes.tolist() == seen.classes.tolist()
                boxes += len(seen)
    assert boxes > 0


class TestRefusing:
    def test_a_port_in_use(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            zoo = write_zoo(tmp_path / "zoo")
            code, text = refused(
                "--zoo", str(zoo), "--runtime", "simulated", "--out", str(tmp_path), "--port", str(port)
            )
        assert code == 2
        assert text.splitlines() == [
            f"moonjelly serve: cannot listen on 127.0.0.1:{port}: Address already in use; "
            "choose another with --port or --host"
        ]

    def test_a_zoo_that_does_not_exist(self) -> None:
        code, text = refused("--zoo", "nowhere")
        assert code == 1
        assert text.startswith("moonjelly serve: no zoo 'nowhere'")

    def test_a_zoo_without_the_devices_profile(self, tmp_path: Path) -> None:
        zoo = write_zoo(tmp_path / "zoo")
        code, text = refused("--zoo", str(zoo), "--runtime", "simulated", "--kind", "abacus", "--out", str(tmp_path))
        assert code == 1
        assert "zoo 'paper' has no profile for device kind 'abacus' (it has paper-gpu)" in text

    def test_a_zoo_without_weights(self, tmp_path: Path) -> None:
        zoo = write_zoo(tmp_path / "zoo")
        (zoo / "paper-gpu").rename(zoo / "cpu")
        code, text = refused("--zoo", str(zoo), "--runtime", "onnx", "--out", str(tmp_path))
        assert code == 1
        assert "model 'net' of zoo 'paper' is missing" in text
        assert "Traceback" not in text

    def test_recorded_answers_that_are_not_whole(self, tmp_path: Path) -> None:
        zoo = write_zoo(tmp_path / "zoo")
        (tmp_path / "recording").mkdir()
        (tmp_path / "list.json").write_text("[]")
        for place, fault in (
            ("recording", "net-64.json cannot be read as COCO JSON"),
            ("list.json", "list.json holds a list, not a COCO dataset"),
        ):
            code, text = refused(
                *("--zoo", str(zoo), "--runtime", "simulated", "--answers", str(tmp_path / place)),
                *("--out", str(tmp_path / "out")),
            )
            assert code == 2
            assert fault in text
            assert "Traceback" not in text

    def test_impossible_options(self, tmp_path: Path) -> None:
        (tmp_path / "server.toml").write_text("devises = 2\n")
        code, text = refused("--config", str(tmp_path / "server.toml"))
        assert code == 2
        assert text.startswith("moonjelly serve: unknown key 'devises'; known keys: ")
        code, text = refused("--rho", "1.5")
        assert code == 2
        assert "'rho' = 1.5: Input should be less than or equal to 1" in text
        code, text = refused("--policy", "guess")
        assert "'policy' = 'guess'" in text
        assert "multiset" in text


@on_one_loop
async def test_a_device_slower_than_its_profile_gets_a_plan_that_holds(tmp_path: Path) -> None:
    """The profile says 110 frames/s of the largest variant; the device does 77 and is to do 90."""

    async def camera(client: WireClient) -> None:
        for frame_id in itertools.count(1):
            await client.frame(frame_id, PICTURE)
            await asyncio.sleep(2.0 / CAMERA_FPS)  # half of what is planned for, which any machine can send

    smaller: set[int] = set()

    async def settles(number: int) -> None:
        """Until ten frames in a row have been answered in time by a smaller variant than the largest, for both."""
        async with welcomed(port, name=f"camera {number}", slo_ms=600.0, fps=CAMERA_FPS) as client:
            await client.placed()
            capturing = asyncio.create_task(camera(client))
            in_time: deque[int] = deque(maxlen=10)
            for _ in counting():
                if len(smaller) == 2:  # one that left sooner would leave room for the largest
                    break
                message = await client.read()
                assert message is not None
                for result in message.results:
                    if result.outcome is Outcome.ON_TIME:
                        in_time.append(result.variant)
                    else:
                        in_time.clear()
                if len(in_time) == 10 and max(in_time) < len(SIZES) - 1:
                    smaller.add(number)
            capturing.cancel()

    with running_server(tmp_path, "--scale", "1.6", "--max-batch", "2") as server:
        port = server.port
        await asyncio.gather(settles(0), settles(1))
    plans = list(read_rows(server.out / "plans.csv", PlanRow))
    assert any(plan.trigger == "speed" for plan in plans)
    speeds = [row.speed for row in read_rows(server.out / "dispatch.csv", DispatchRow)]
    assert speeds[0] == 1.0
    assert min(speeds) < 0.75
