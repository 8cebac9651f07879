"""Client processes and the SDK against real server processes (simulated devices)."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moonjelly.telemetry import FrameRow, read_rows
from moonjelly.types import Outcome
from tests.support.serving import environment, running_server


def client(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "client", *arguments], env=environment(), capture_output=True, text=True, timeout=90
    )


def test_a_fleet_is_served_and_both_sides_tell_the_same_story(tmp_path: Path) -> None:
    with running_server(tmp_path, devices=1) as server:
        done = client(
            *("--server", f"127.0.0.1:{server.port}", "--clients", "3", "--slo-ms", "5000,6000,7000"),
            *("--fps", "12,15,29.97", "--seconds", "3", "--out", str(tmp_path / "run")),
        )
        assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["frames_captured"] == 36 + 45 + 89
    assert all(one["on_time"] > 0 for one in summary["clients"])
    rows = [
        row
        for number in range(3)
        for row in read_rows(tmp_path / "run" / f"host_{number}" / "frame_stats.csv", FrameRow)
    ]
    sent = [row for row in rows if row.send_ts is not None]
    with (server.out / "frame_stats.csv").open(newline="") as file:
        received = list(csv.DictReader(file))
    assert len(received) == len(sent), "what one side sent the other received"
    answered = sum(row.outcome in (Outcome.ON_TIME, Outcome.LATE) for row in rows)
    assert sum(row["outcome"] in ("ON_TIME", "LATE") for row in received) == answered
    assert all(row.used_model for row in rows if row.outcome is Outcome.ON_TIME)


def test_a_client_survives_the_servers_restart(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    out = tmp_path / "client"
    with running_server(tmp_path / "one") as server:
        port = str(server.port)
        running = subprocess.Popen(
            [sys.executable, "-m", "client", "--server", f"127.0.0.1:{port}", "--fps", "20", "--slo-ms", "1000",
             "--out", str(out)],
            env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _wait_for_on_time(out / "frame_stats.csv", 1)
        except BaseException:
            running.kill()
            raise
    before = _on_time(out / "frame_stats.csv")
    try:
        with running_server(tmp_path / "two", "--port", port):
            _wait_for_on_time(out / "frame_stats.csv", before + 10)
            running.terminate()
            _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, errors
    assert "client-0: RECONNECTING" in errors
    rows = list(read_rows(out / "frame_stats.csv", FrameRow))
    assert sorted(row.frame_id for row in rows) == list(range(1, len(rows) + 1)), "every frame once"
    assert {row.outcome for row in rows} >= {Outcome.ON_TIME, Outcome.SKIPPED}


OUTCOMES = "|".join(outcome.value for outcome in Outcome)
ADDRESS = re.compile(r'"(localhost|127\.0\.0\.1):10001"')


def test_the_documented_examples_run(tmp_path: Path, root: Path) -> None:
    texts = [(root / name).read_text() for name in ("README.md", "docs/sdk.md")]
    examples = [re.findall(r"```python\n(.*?)```", text, re.DOTALL) for text in texts]
    assert [len(found) for found in examples] == [1, 3]
    with running_server(tmp_path) as server:
        for example in [*examples[0], *examples[1]]:
            assert ADDRESS.search(example)
            file = tmp_path / "example.py"
            file.write_text(ADDRESS.sub(f'"127.0.0.1:{server.port}"', example))
            done = subprocess.run(
                [sys.executable, "-W", "error", str(file)],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            assert re.search(rf"^(Outcome\.)?({OUTCOMES}|[01]\.\d+)", done.stdout, re.MULTILINE), done.stdout


def _on_time(log: Path) -> int:
    if not log.exists():
        return 0
    # the last line may be half written
    return sum(",ON_TIME," in line for line in log.read_text().splitlines())


def _wait_for_on_time(log: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while _on_time(log) < count:
        assert time.monotonic() < deadline, f"never: {count} frames on time in {log}"
        time.sleep(0.02)


def test_tls_and_an_access_token(tmp_path: Path) -> None:
    key, certificate = certificate_of(tmp_path)
    secure = ("--tls-cert", str(certificate), "--tls-key", str(key), "--token", "sesame")
    with running_server(tmp_path, *secure) as server:
        base = ("--server", f"localhost:{server.port}", "--fps", "10", "--seconds", "1", "--slo-ms", "10000")
        trusted = ("--root-certificates", str(certificate))
        good = client(*base, *trusted, "--token", "sesame", "--out", str(tmp_path / "good"))
        assert good.returncode == 0, good.stderr
        assert " of 10 frames on time" in good.stdout
        assert not good.stdout.startswith("client-0: 0 of")
        wrong = client(*base, *trusted, "--token", "open", "--out", str(tmp_path / "wrong"))
        assert wrong.returncode == 1
        assert "token" in wrong.stderr
        plain = client(*base, "--token", "sesame", "--register-timeout-s", "1", "--out", str(tmp_path / "plain"))
        assert plain.returncode == 1
        assert f"no server answered at localhost:{server.port}" in plain.stderr


def certificate_of(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost: key file and certificate file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = directory / "key.pem", directory / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file


def test_an_outage_of_the_link_costs_its_frames_and_nothing_more(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    # It wraps round: whenever the client has registered, one whole outage and some of what follows lie in its 12 s.
    trace.write_text("20\n" * 6 + "0\n" * 4)
    out = tmp_path / "client"
    with running_server(tmp_path) as server, relay(server.port, trace) as port:
        done = client(
            *("--server", f"127.0.0.1:{port}", "--fps", "20", "--slo-ms", "400", "--seconds", "12", "--out", str(out))
        )
    assert done.returncode == 0, done.stderr
    assert "has stopped answering" in done.stderr
    assert "READY: resumed" in done.stderr
    rows = sorted(read_rows(out / "frame_stats.csv", FrameRow), key=lambda row: row.capture_ts)
    assert len(rows) == 240
    assert len({row.frame_id for row in rows}) == 240
    away = [number for number, row in enumerate(rows) if row.reason == "no connection to the server"]
    on_time = [number for number, row in enumerate(rows) if row.outcome is Outcome.ON_TIME]
    assert on_time[0] < away[0] < on_time[-1], "served, cut off, and served again"


@contextlib.contextmanager
def relay(server_port: int, trace: Path) -> Iterator[int]:
    """A user-space link to the server that follows ``trace`` from its start; the port of its near end."""
    ready_read, ready_write = os.pipe()
    link = ["--link", f"one={trace}@0", "--out", str(trace.parent)]
    arguments = ["relay", "--target", f"127.0.0.1:{server_port}", *link]
    process = subprocess.Popen(
        [sys.executable, "-m", "network_shaping", *arguments, "--ready-fd", str(ready_write)],
        env=environment(), pass_fds=(ready_write,), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(ready_write)
    try:
        with os.fdopen(ready_read) as ready:
            yield json.loads(ready.readline())["links"]["one"]["port"]
    finally:
        process.terminate()
        process.wait(60)
