"""download_data.sh against a local file server that serves the real files below their public paths."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli import download


class FileServer(ThreadingHTTPServer):
    """Serves bytes by path; knows Range; remembers which ranges were asked for."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.ranges: list[str] = []

    @property
    def home(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted:
            self.server.ranges.append(wanted)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server(data_dir: Path) -> Iterator[FileServer]:
    items = [item for item in download.read_manifest("") if not item.path.startswith("videos/")]
    serving = FileServer({item.url.lstrip("/"): (data_dir / item.path).read_bytes() for item in items})
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(root / "download_data.sh"), *arguments], capture_output=True, text=True, check=False, timeout=200
    )


def test_fetches_checks_and_leaves_alone_what_is_right(root: Path, server: FileServer, tmp_path: Path) -> None:
    first = run(root, "--home", server.home, "--only", "models/", "--out", str(tmp_path))
    assert first.returncode == 0, first.stderr
    weights = tmp_path / "models/yolo-fastest-1.1/yolo-fastest-1.1.weights"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in (tmp_path / "SHA256SUMS").read_text()
    second = run(root, "--home", server.home, "--only", "models/", "--out", str(tmp_path))
    assert second.stdout.count(": present") == 7
    check = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True, check=False)
    assert check.returncode == 0


def test_resumes_a_partial_file(root: Path, server: FileServer, data_dir: Path, tmp_path: Path) -> None:
    name = "traces/mahimahi-verizon-lte-short.up"
    partial = tmp_path / f"{name}.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes((data_dir / name).read_bytes()[:1000])
    done = run(root, "--home", server.home, "--only", name, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert ": resumed" in done.stdout
    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / name).read_bytes() == (data_dir / name).read_bytes()


def test_refuses_the_wrong_content(root: Path, server: FileServer, tmp_path: Path) -> None:
    name = "models/yolo-fastest-1.1/coco.names"
    key = next(path for path in server.files if path.endswith("coco.names"))
    server.files[key] = b"x" * len(server.files[key])
    done = run(root, "--home", server.home, "--only", name, "--out", str(tmp_path))
    assert done.returncode == 1
    assert "is not the file it should be" in done.stderr
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(("only", "lines"), [("traces/jellyfish-wifi.txt", 2), ("traces/", 5)])
def test_explains_itself_offline_and_does_not_try_for_ever(root: Path, tmp_path: Path, only: str, lines: int) -> None:
    done = run(root, "--home", "http://127.0.0.1:9", "--only", only, "--out", str(tmp_path))
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "--home" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == lines
    assert "\n0 of " in f"\n{done.stdout}"


def test_yolov4_weights_come_from_the_release_and_are_checked(
    root: Path, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "YOLOV4_BYTES", 4)
    monkeypatch.setattr(download, "YOLOV4_SHA256", hashlib.sha256(b"true").hexdigest())
    words = f"--home {server.home} --release-home {server.home} --only models/darknet --yolov4 --out".split()
    server.files[download.YOLOV4_PATH] = b"fake"
    assert download.main([*words, str(tmp_path)]) == 1
    assert "is not the file it should be" in capsys.readouterr().err
    server.files[download.YOLOV4_PATH] = b"true"
    assert download.main([*words, str(tmp_path)]) == 0
    assert (tmp_path / download.YOLOV4_TARGET).read_bytes() == b"true"
    assert f"  {download.YOLOV4_TARGET}" in (tmp_path / "SHA256SUMS").read_text(encoding="utf-8")
