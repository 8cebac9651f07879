from __future__ import annotations

import http.server
import socket
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from client.feed import LiveFeed, RecordedFeed
from client.sources import BufferStrategy, open_drawn_scene, open_live, open_recording, read_frame
from client.sources.live import LiveSource
from client.sources.recorded import InMemory
from moonjelly.backoff import Backoff
from moonjelly.errors import ConfigError, SourceError
from moonjelly.scenes import Scene, SceneOptions
from tests.support.rtsp import rtsp_camera

FRAMES = 20


def grey(index: int) -> int:
    """Brightness that tells frame ``index``."""
    return 10 + 12 * (index % FRAMES)


def shown(rgb: np.ndarray) -> int:
    return round((float(rgb.mean()) - 10) / 12)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey(index), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_video_reads_forward_back_and_again(video: Path) -> None:
    recording = open_recording(str(video))
    assert (recording.length, recording.rate_fps) == (FRAMES, 10.0)
    assert [shown(recording.read(index)) for index in (0, 1, 2, 7, 8, FRAMES - 1)] == [0, 1, 2, 7, 8, FRAMES - 1]
    assert recording.read(3).shape == (48, 64, 3)
    assert [shown(recording.read(index)) for index in (2, 2, 5)] == [2, 2, 5]
    with pytest.raises(SourceError, match=f"has {FRAMES} frames; there is no frame {FRAMES}"):
        recording.read(FRAMES)
    recording.close()
    recording.close()
    assert shown(read_frame(str(video), 4)) == 4


async def test_a_feed_plays_a_video_at_its_own_pace_and_starts_again(video: Path) -> None:
    feed = RecordedFeed(open_recording(str(video)), fps=5.0)
    assert feed.length() == FRAMES // 2
    await feed.prepare()
    pictures = [await feed.take(tick) for tick in range(12)]
    assert [picture.index for picture in pictures] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 0, 2]
    assert [shown(picture.rgb) for picture in pictures] == [picture.index for picture in pictures]
    jumped = await feed.take(15)
    assert jumped.index == feed.index(15) == 10
    assert shown(jumped.rgb) == 10
    await feed.close()


def test_a_client_faster_than_its_video_does_not_decode_it_again_from_the_start(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = av.open
    recording = open_recording(str(video))
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args) or real(*args, **kwargs))
    assert [shown(recording.read(index)) for index in (3, 3, 4, 4, 4, 5)] == [3, 3, 4, 4, 4, 5]
    assert opened == []
    assert shown(recording.read(4)) == 4
    assert len(opened) == 1
    recording.close()


def test_the_first_frames_in_memory(video: Path) -> None:
    recording = InMemory(open_recording(str(video)), 5)
    assert (recording.length, recording.rate_fps) == (5, 10.0)
    assert [shown(recording.read(index)) for index in (4, 0, 3)] == [4, 0, 3]
    recording.close()


def test_pictures_of_a_folder_and_of_a_list(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        picture = np.zeros((20 + index, 30, 3), np.uint8)
        picture[:] = (0, 0, 200)  # red, as OpenCV counts channels
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture)
    (tmp_path / "notes.md").write_text("not a picture")
    folder = open_recording(str(tmp_path))
    assert (folder.length, folder.rate_fps) == (3, None)
    assert [folder.read(index).shape[0] for index in range(3)] == [20, 21, 22]
    assert folder.read(0)[5, 5].tolist() == [200, 0, 0]
    (tmp_path / "list.txt").write_text("2.png\n\n0.png\n")
    listed = open_recording(str(tmp_path / "list.txt"))
    assert [listed.read(index).shape[0] for index in range(2)] == [22, 20]
    single = open_recording(str(tmp_path / "1.png"))
    assert single.length == 1


def test_the_synthetic_scene_by_seed() -> None:
    picture = read_frame("synthetic:3", 45)
    np.testing.assert_array_equal(picture, Scene(3, SceneOptions(fps=30.0)).frame(45)[0])
    assert open_recording("synthetic").length is None


async def test_a_scene_drawn_beforehand_looks_the_same_and_starts_again() -> None:
    recording = open_drawn_scene("synthetic:3", 0.5)
    assert (recording.length, recording.rate_fps) == (15, 30.0)
    recording.draw(7)
    drawn = [recording.read(7).astype(int), recording.read(8).astype(int)]
    for picture, index in zip(drawn, (7, 8), strict=True):
        scene = read_frame("synthetic:3", index)
        assert np.abs(picture - scene).mean() < 4.0, "but for what JPEG costs"
        assert picture.shape == scene.shape
    feed = RecordedFeed(recording, fps=10.0)
    assert [feed.index(tick) for tick in (0, 1, 4, 5, 6)] == [0, 3, 12, 0, 3]
    shown = [await feed.take(tick) for tick in (0, 5)]
    await feed.close()
    np.testing.assert_array_equal(shown[0].rgb, shown[1].rgb)


def test_what_cannot_be_read_says_which_and_why(tmp_path: Path, video: Path) -> None:
    cases: list[tuple[str, type[Exception], str]] = [
        (str(tmp_path / "absent.mp4"), SourceError, r"the file .*absent\.mp4 does not exist"),
        (str(tmp_path), SourceError, "has no pictures"),
        ("synthetic:x", ConfigError, "'x' is no seed"),
        ("rtsp://camera/1", SourceError, "is live: its frames cannot be read again"),
    ]
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(b"this is no video" * 100)
    cases.append((str(garbage), SourceError, r"garbage\.mp4 cannot be opened as a video: .*Invalid data"))
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(1600))
    cases.append((str(sound), SourceError, "has no video stream"))
    for name, kind, text in cases:
        with pytest.raises(kind, match=text):
            open_recording(name)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 half a picture")
    with pytest.raises(SourceError, match=r"picture .*broken\.jpg of source .* cannot be decoded"):
        open_recording(str(tmp_path)).read(0)
    (tmp_path / "list.txt").write_text("gone.png\n")
    with pytest.raises(SourceError, match=r"gone\.png of source .* cannot be read: No such file"):
        open_recording(str(tmp_path / "list.txt")).read(0)


def test_a_real_video(data_dir: Path) -> None:
    recording = open_recording(str(data_dir / "videos" / "highway-camera.mp4"))
    assert recording.length == 905
    assert recording.rate_fps == pytest.approx(24, abs=0.1)
    assert recording.read(904).shape == (352, 640, 3)
    recording.close()


# -- live ----------------------------------------------------------------------------------------------------------


class Camera:
    """An MJPEG camera over HTTP: shows ``frames`` pictures per connection, each when it is told to."""

    def __init__(self) -> None:
        self.connections = 0
        self.go = threading.Semaphore(0)
        self.hang_up = threading.Event()

    def handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.connections += 1
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        index = 0
        while not self.hang_up.is_set():
            if not self.go.acquire(timeout=0.05):
                continue
            picture = simplejpeg.encode_jpeg(np.full((48, 64, 3), grey(index), np.uint8), 95)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            handler.wfile.write(head.encode() + picture + b"\r\n")
            handler.wfile.flush()
            index += 1

    def show(self, frames: int) -> None:
        self.go.release(frames)


@contextmanager
def camera() -> Iterator[tuple[Camera, str]]:
    shown_by = Camera()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                shown_by.handle(self)
            except (BrokenPipeError, ConnectionResetError):
                return  # the client has gone

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield shown_by, f"http://127.0.0.1:{server.server_port}/"
    finally:
        shown_by.hang_up.set()
        server.shutdown()
        thread.join()
        server.server_close()


PROBE = {"probesize": "32", "analyzeduration": "0"}
QUICK = Backoff(first_s=0.01, limit_s=0.05)


def live(url: str, strategy: BufferStrategy) -> LiveSource:
    return LiveSource(url, strategy, options=PROBE, container_format="mpjpeg", backoff=QUICK)


def wait_for(condition: Any, what: str) -> None:
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"never: {what}")


async def test_a_live_source_gives_its_latest_frame_and_counts_the_others() -> None:
    with camera() as (one, url):
        one.show(6)
        source = live(url, BufferStrategy.LATEST)
        one.show(6)
        wait_for(lambda: source.statistics.received >= 8, "frames arrive")
        received = source.statistics.received
        feed = LiveFeed(source, fps=source.rate_fps)
        picture = await feed.take(0)
        assert picture is not None
        assert picture.index >= received - 1
        assert shown(picture.rgb) == picture.index
        assert picture.captured is not None
        assert source.statistics.dropped >= received - 1
        assert await feed.take(1) is None or source.statistics.received > received
        await feed.close()


def test_a_camera_that_hangs_up_is_opened_again() -> None:
    with camera() as (one, url):
        one.show(5)
        source = live(url, BufferStrategy.WAIT)
        assert source.take(10.0) is not None
        one.hang_up.set()
        wait_for(lambda: source.statistics.reconnects > 0, "the loss is noticed")
        before = source.statistics.received
        one.hang_up.clear()
        one.show(20)
        wait_for(lambda: source.statistics.received > before, "it shows again")
        assert source.statistics.last_fault
        assert one.connections >= 2
        source.close()


def test_a_camera_that_cannot_be_opened_the_first_time_is_an_error() -> None:
    with pytest.raises(SourceError, match=r"source http://127\.0\.0\.1:9/ cannot be opened: .*refused"):
        open_live("http://127.0.0.1:9/", BufferStrategy.LATEST)
    with pytest.raises(SourceError, match="source /dev/video99 cannot be opened"):
        open_live("/dev/video99", BufferStrategy.LATEST)


def test_an_rtsp_camera_and_its_return_after_a_hang_up() -> None:
    with rtsp_camera() as (one, url):
        source = LiveSource(url, BufferStrategy.DROP_OLDEST, backoff=QUICK)
        pictures = [source.take(10.0) for _ in range(5)]
        assert all(picture is not None for picture in pictures)
        indices = [picture.index for picture in pictures if picture is not None]
        assert indices == sorted(set(indices))
        assert {picture.rgb.shape for picture in pictures if picture is not None} == {(48, 64, 3)}
        one.hang_up.set()
        wait_for(lambda: source.statistics.reconnects > 0, "the loss is noticed")
        one.hang_up.clear()
        before, sessions = source.statistics.received, one.sessions
        wait_for(lambda: source.statistics.received > before and one.sessions > 1, "it shows again")
        assert sessions >= 1
        source.close()


def test_a_camera_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.sources.live.OPEN_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"rtsp://127.0.0.1:{mute.getsockname()[1]}/street"
        with pytest.raises(SourceError, match=r"rtsp://.*/street cannot be opened: no answer within 0\.2 s"):
            LiveSource(url)
