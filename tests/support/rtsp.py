"""A small RTSP 1.0 camera (RFC 2326, interleaved) that shows Motion JPEG (RFC 2435), packetised by FFmpeg."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

_SDP = "".join(
    f"{line}\r\n"
    for line in (
        "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "t=0 0", "m=video 0 RTP/AVP 26", "a=framerate:20", "a=control:0",
    )
)  # fmt: skip


class Camera:
    """Shows grey pictures, frame ``n`` with brightness ``10 + 12 n``, until told to hang up.

    Attributes:
        sessions: number of PLAY requests so far.
    """

    def __init__(self) -> None:
        self.sessions = 0
        self.hang_up = threading.Event()

    def serve(self, stream: Any) -> None:
        """Answer one connection's requests, then push frames."""
        while (request := _request(stream)) is not None:
            method, sequence = request
            if method == "DESCRIBE":
                headers = f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n"
                _reply(stream, sequence, headers, _SDP)
            elif method == "SETUP":
                _reply(stream, sequence, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n")
            elif method == "PLAY":
                _reply(stream, sequence, "Session: 1\r\n")
                self.sessions += 1
                self._push(stream)
                return
            else:
                _reply(stream, sequence, "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\nSession: 1\r\n")

    def _push(self, stream: Any) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
            packets.bind(("127.0.0.1", 0))
            packets.setblocking(False)
            url = f"rtp://127.0.0.1:{packets.getsockname()[1]}"
            with av.open(url, "w", format="rtp") as sink:
                # On one core FFmpeg makes Huffman tables of its own for each picture, which RFC 2435 cannot carry.
                video: Any = sink.add_stream("mjpeg", rate=20, options={"huffman": "default"})
                video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
                for index in range(10_000):
                    if self.hang_up.wait(0.05):
                        return
                    picture = np.full((48, 64, 3), 10 + 12 * (index % 20), np.uint8)
                    sink.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                    with contextlib.suppress(BlockingIOError):
                        while packet := packets.recv(65_536):
                            stream.write(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                    stream.flush()


@contextlib.contextmanager
def rtsp_camera() -> Iterator[tuple[Camera, str]]:
    """A running camera and its URL."""
    camera = Camera()

    class Handler(socketserver.StreamRequestHandler):
        wbufsize = -1

        def handle(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                camera.serve(_Both(self.rfile, self.wfile))

        def finish(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                super().finish()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield camera, f"rtsp://127.0.0.1:{server.server_address[1]}/street"
        finally:
            camera.hang_up.set()
            server.shutdown()
            thread.join()


class _Both:
    def __init__(self, reader: Any, writer: Any) -> None:
        self.readline = reader.readline
        self.write = writer.write
        self.flush = writer.flush


def _request(stream: Any) -> tuple[str, str] | None:
    first = stream.readline().decode()
    sequence = "0"
    while (line := stream.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        if name.lower() == "cseq":
            sequence = value.strip()
    return (first.split()[0], sequence) if first.strip() else None


def _reply(stream: Any, sequence: str, headers: str, body: str = "") -> None:
    stream.write(f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{headers}\r\n{body}".encode())
    stream.flush()
