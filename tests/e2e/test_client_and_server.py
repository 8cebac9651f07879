"""Client processes and the SDK against real server processes (simulated devices)."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moonjelly.telemetry import FrameRow, ServerFrameRow, read_rows
from moonjelly.types import Outcome
from tests.support.serving import PATIENCE_S, ended_at_last, environment, free_port, running_server, until


def client(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "client", *arguments], env=environment(), capture_output=True, text=True, timeout=200
    )


def test_a_fleet_is_served_and_both_sides_tell_the_same_story(tmp_path: Path) -> None:
    with running_server(tmp_path, devices=1) as server:
        done = client(
            *("--server", f"127.0.0.1:{server.port}", "--clients", "3", "--slo-ms", "5000,6000,7000"),
            *("--fps", "12,15,29.97", "--seconds", "4", "--out", str(tmp_path / "run")),
        )
        assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["frames_captured"] == 48 + 60 + 119
    assert summary["on_time"] > 0
    received = list(read_rows(server.out / "frame_stats.csv", ServerFrameRow))
    for host in (tmp_path / "run" / f"host_{number}" for number in range(3)):
        session = json.loads((host / "client.json").read_text())["session_id"]
        theirs = {row.frame_id: row for row in received if row.client_id == session}
        sent = {row.frame_id: row for row in read_rows(host / "frame_stats.csv", FrameRow) if row.send_ts is not None}
        assert theirs.keys() <= sent.keys()
        for frame_id, row in sent.items():
            if row.outcome in (Outcome.ON_TIME, Outcome.LATE):
                assert theirs[frame_id].outcome in (Outcome.ON_TIME, Outcome.LATE)
                assert theirs[frame_id].used_model == row.used_model != ""
            elif row.outcome is not Outcome.LOST:  # as when a client stood still so long that it took it for an outage
                assert theirs[frame_id].outcome is row.outcome


def test_a_client_survives_the_servers_restart(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    out, port = tmp_path / "client", str(free_port())
    log = out / "frame_stats.csv"
    with contextlib.ExitStack() as stack:
        with running_server(tmp_path / "one", "--port", port):
            running = stack.enter_context(streaming(int(port), out, tmp_path / "errors", slo_ms=1000))
            until(lambda: _on_time(log) >= 1, "no frame on time")
        before = _on_time(log)
        with running_server(tmp_path / "two", "--port", port):
            until(lambda: _on_time(log) >= before + 10, "no frame on time after the restart")
            running.terminate()
            assert running.wait(100) == 0, (tmp_path / "errors").read_text()
    assert "client-0: RECONNECTING" in (tmp_path / "errors").read_text()
    rows = list(read_rows(log, FrameRow))
    assert sorted(row.frame_id for row in rows) == list(range(1, len(rows) + 1)), "every frame once"
    assert {row.outcome for row in rows} >= {Outcome.ON_TIME, Outcome.SKIPPED}


@contextlib.contextmanager
def streaming(port: int, out: Path, errors: Path, *, slo_ms: float) -> Iterator[subprocess.Popen[str]]:
    """A client that streams until it is stopped."""
    words = ["--server", f"127.0.0.1:{port}", "--fps", "20", "--slo-ms", f"{slo_ms:g}", "--out", str(out)]
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "client", *words], env=environment(), stderr=stderr, stdout=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
    with ended_at_last(process):
        yield process


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
                timeout=100,
            )
            assert done.returncode == 0, done.stderr
            assert not re.search("Warning|Exception|Traceback", done.stderr), done.stderr
            assert re.search(rf"^(Outcome\.)?({OUTCOMES}|[01]\.\d+)", done.stdout, re.MULTILINE), done.stdout


def _on_time(log: Path) -> int:
    if not log.exists():
        return 0
    # the last line may be half written
    return sum(",ON_TIME," in line for line in log.read_text().splitlines())


def test_tls_and_an_access_token(tmp_path: Path) -> None:
    key, certificate = certificate_of(tmp_path)
    secure = ("--tls-cert", str(certificate), "--tls-key", str(key), "--token", "sesame")
    with running_server(tmp_path, *secure) as server:
        base = ("--server", f"localhost:{server.port}", "--fps", "10", "--seconds", "4", "--slo-ms", "10000")
        trusted = ("--root-certificates", str(certificate))
        good = client(*base, *trusted, "--token", "sesame", "--out", str(tmp_path / "good"))
        assert good.returncode == 0, good.stderr
        assert " of 40 frames on time" in good.stdout
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
    trace, out, errors = tmp_path / "trace.txt", tmp_path / "client", tmp_path / "errors"
    trace.write_text("20\n" * 4 + "0\n" * 4)  # again and again

    def served_cut_off_and_served_again() -> bool:
        lines = (out / "frame_stats.csv").read_text() if (out / "frame_stats.csv").exists() else ""
        return bool(re.search("ON_TIME(.|\n)*no connection to the server(.|\n)*ON_TIME", lines))

    with (
        running_server(tmp_path) as server,
        relay(server.port, trace) as port,
        streaming(port, out, errors, slo_ms=1000) as client,
    ):
        until(served_cut_off_and_served_again, errors.read_text, PATIENCE_S)
        client.terminate()
        assert client.wait(100) == 0, errors.read_text()
    assert "has stopped answering" in errors.read_text()
    assert "READY: resumed" in errors.read_text()
    rows = list(read_rows(out / "frame_stats.csv", FrameRow))
    assert sorted(row.frame_id for row in rows) == list(range(1, len(rows) + 1)), "every frame once"


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
    with ended_at_last(process):
        with os.fdopen(ready_read) as ready:
            yield json.loads(ready.readline())["links"]["one"]["port"]
        process.terminate()
        assert process.wait(100) == 0
