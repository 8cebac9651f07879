"""A server on onnxruntime never pays for torch."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from moonjelly.inference import make_executor
from moonjelly.repository import FileCache
from tests.support.models import noise_frames, tiny_source, tiny_variant

executor = make_executor("onnx", cache=FileCache())
executor.load(tiny_variant(), tiny_source(), 2)
assert len(executor.infer("tiny-64", noise_frames(2, 64))) == 2
assert "torch" not in sys.modules, "torch was imported"
"""


def test_loading_and_inferring_with_onnxruntime_does_not_import_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
