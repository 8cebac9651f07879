"""What a client leaves behind: a row per captured frame, a row per second, detections as COCO results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moonjelly.detection.coco import CocoImage, to_results
from moonjelly.sdk import FrameResult
from moonjelly.telemetry import CsvLog, FpsRow, FrameRow, set_aside
from moonjelly.types import Outcome

WRITE_EVERY_S = 0.1


def frame_row(client_id: int, slo_ms: float, result: FrameResult, source_frame: int | None) -> FrameRow:
    """The row of one ended frame."""
    stages = result.stages
    return FrameRow(
        client_id=client_id,
        frame_id=result.frame_id,
        capture_ts=result.captured_ns,
        send_ts=result.sent_ns,
        recv_ts=result.received_ns,
        outcome=result.outcome,
        reason=result.reason,
        e2e_latency=result.latency_ms,
        slo_ms=slo_ms,
        desired_model=result.desired_variant,
        used_model=result.used_variant,
        next_model=result.next_variant,
        input_size=result.input_size,
        jpeg_quality=result.quality,
        frame_wire_size=result.wire_bytes,
        network_time=result.network_ms,
        bandwidth_bps=result.bandwidth_bps,
        rtt_ms=result.rtt_ms,
        encode_ms=result.encode_ms,
        queue_ms=stages.queue_ms if stages else None,
        infer_ms=stages.infer_ms if stages else None,
        server_ms=stages.server_ms if stages else None,
        accuracy=result.accuracy,
        source_frame=source_frame,
    )


_compact = json.JSONEncoder(separators=(",", ":")).encode


class JsonArrayFile:
    """Appends to a JSON array that is complete after every call, so that a killed process leaves a valid file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        self._end = os.pwrite(self._file, b"[\n]\n", 0) - len(b"]\n")
        self._empty = True

    def extend(self, objects: Sequence[dict[str, Any]]) -> None:
        """Append, one object per line."""
        if not objects:
            return
        text = ",\n".join(map(_compact, objects))
        lead = "" if self._empty else ",\n"
        data = (lead + text).encode()
        start = self._end if self._empty else self._end - 1  # the comma goes where the last object's line ended
        os.pwrite(self._file, data + b"\n]\n", start)
        self._end = start + len(data) + 1
        self._empty = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


@dataclass(frozen=True, eq=False, slots=True)
class _Ended:
    result: FrameResult
    source_frame: int | None
    size: tuple[int, int] | None


class Records:
    """The files of one client under ``directory``.

    Frames are written together by :meth:`write`, which whoever owns the records calls every :data:`WRITE_EVERY_S`: that
    is what a killed process loses.

    Detections are COCO results with ``bbox`` in pixels of the source's frame; ``image_id`` is the frame's number in its
    source and ``category_id`` the class's index in the zoo; ``frame_id`` is not COCO's: it tells the passes of a
    source that is shown again apart. Only frames answered on time have any.

    Args:
        directory: made if absent; what an earlier client left there is set aside.
        client_id: for the rows.
        slo_ms: for the rows.
        classes: number of classes of the zoo.
    """

    def __init__(self, directory: Path, client_id: int, slo_ms: float, classes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        set_aside(directory, ("frame_stats.csv", "fps.csv", "detections.json", "client.json", "summary.json"))
        self._category_ids = range(classes)
        self._client_id = client_id
        self._slo_ms = slo_ms
        self._frames = CsvLog(directory / "frame_stats.csv", FrameRow)
        self._seconds = CsvLog(directory / "fps.csv", FpsRow)
        self._detections = JsonArrayFile(directory / "detections.json")
        self._unwritten: list[_Ended] = []
        self._fault: OSError | None = None

    def frame(self, result: FrameResult, source_frame: int | None, size: tuple[int, int] | None) -> None:
        """Log one ended frame; ``size`` is the source frame's width and height in pixels, if there was one.

        Raises:
            OSError: rows before it could not be written.
        """
        if self._fault is not None:
            raise self._fault
        self._unwritten.append(_Ended(result, source_frame, size))

    def second(self, row: FpsRow) -> None:
        """Log one second."""
        self._seconds.write(row)

    def close(self) -> None:
        """Write what is left and close the files."""
        try:
            self._write()
        finally:
            self._frames.close()
            self._seconds.close()
            self._detections.close()

    def write(self) -> None:
        """Write the frames that have ended; what hinders it is the next :meth:`frame`'s error."""
        try:
            self._write()
        except OSError as fault:
            self._fault = fault

    def _write(self) -> None:
        ended, self._unwritten = self._unwritten, []
        self._frames.write_all(frame_row(self._client_id, self._slo_ms, one.result, one.source_frame) for one in ended)
        self._detections.extend([box for one in ended for box in self._boxes(one)])

    def _boxes(self, ended: _Ended) -> Iterator[dict[str, Any]]:
        result = ended.result
        if result.outcome is not Outcome.ON_TIME or ended.source_frame is None or ended.size is None:
            return
        image = CocoImage(ended.source_frame, "", *ended.size)
        for box in to_results(image, result.detections, self._category_ids):
            yield {"frame_id": result.frame_id, **box}
