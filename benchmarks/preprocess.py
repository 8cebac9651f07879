"""Decode and stretch a 640x480 JPEG to 416x416: at most 1.5 x the JPEG decoder's own time.

The two are measured in turns, so that both see the same neighbours; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import simplejpeg

from moonjelly.inference.onnx_runtime import cpu_name
from moonjelly.inference.preprocess import decode
from moonjelly.scenes import Scene, SceneOptions

BAR = 1.5
WIDTH, HEIGHT, QUALITY = 640, 480, 90
SIZES = (128, 224, 320, 416)
"""The bar is for the last; at half the picture's size and below the decoder scales on the way."""


def in_turns_ms(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median time of each call, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter_ns()
            call()
            taken[name].append((time.perf_counter_ns() - began) / 1e6)
    return {name: float(np.median(values)) for name, values in taken.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{cpu_name()}, Python {platform.python_version()}")
    print(f"simplejpeg {simplejpeg.__version__}, OpenCV {cv2.__version__}")
    picture, _ = Scene(options.seed, SceneOptions(width=WIDTH, height=HEIGHT)).frame(0)
    data = simplejpeg.encode_jpeg(picture, quality=QUALITY)
    print(f"{WIDTH}x{HEIGHT}, {len(data)} bytes, {options.rounds} rounds")
    ratio = 0.0
    for size in SIZES:
        calls: dict[str, Callable[[], object]] = {
            "decoder": lambda: simplejpeg.decode_jpeg(data, "RGB"),
            "ours": partial(decode, data, size),
        }
        medians = in_turns_ms(calls, options.rounds)
        ratio = medians["ours"] / medians["decoder"]
        shown = ", ".join(f"{name} {median:.3f} ms" for name, median in medians.items())
        print(f"{size:4d}: {shown}, {ratio:.2f} x")
    verdict = "holds" if ratio <= BAR else "MISSED"
    print(
        f"decode + preprocess to {SIZES[-1]}x{SIZES[-1]}: {ratio:.2f} x the decoder's own time (bar {BAR} x: {verdict})"
    )
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
