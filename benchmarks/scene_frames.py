"""Is the built-in scene cheap enough to be a live source? Processor time of a frame, against encoding and decoding it.

A client encodes every frame that it sends, so a scene that costs a few times what the JPEG codec does at the same size
keeps up with any camera. Several scenes (layout, light and weather differ by seed) are played for four seconds each.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time

import cv2
import numpy as np
import simplejpeg

from moonjelly.scenes import Scene

SEEDS = range(100, 112)
WARM_UP = 25
FRAMES = 100
MOST = 3.0
"""Times what the codec takes, in the median scene."""


def main() -> int:
    cv2.setNumThreads(1)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"numpy {np.__version__}, OpenCV {cv2.__version__}, simplejpeg {simplejpeg.__version__}")
    drawn_ms, ratios = [], []
    for seed in SEEDS:
        scene = Scene(seed)
        for index in range(WARM_UP):
            scene.picture(index)
        drawing = codec = 0
        for index in range(WARM_UP, WARM_UP + FRAMES):
            started = time.process_time_ns()
            picture = scene.picture(index)
            drawn = time.process_time_ns()
            simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(picture, 90, "RGB", "420"), "RGB")
            drawing += drawn - started
            codec += time.process_time_ns() - drawn
        drawn_ms.append(drawing / FRAMES / 1e6)
        ratios.append(drawing / codec)
        print(f"scene {seed}: {drawn_ms[-1]:.2f} ms a frame, codec {codec / FRAMES / 1e6:.2f} ms, {ratios[-1]:.2f} x")
    ratio = statistics.median(ratios)
    print(f"median {statistics.median(drawn_ms):.2f} ms of processor time for 640x360")
    print(f"{ratio:.2f} x the codec (at most {MOST})")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
