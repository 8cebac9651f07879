"""onnxruntime on the CPU, and on CUDA where its build has it.

The fastest runtime for small detectors on a CPU (``docs/benchmarks.md``). Serving with it never imports torch; only
the conversion of a ``.pth`` checkpoint does, and its result is cached.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from moonjelly.errors import ExecutorError, ModelError
from moonjelly.inference import onnx_graph
from moonjelly.inference.frames import answers, fill, not_resident, read_config
from moonjelly.inference.options import DEFAULT_POST, PostOptions
from moonjelly.inference.protocol import ArtifactCache, DeviceInfo, FrameInput, ModelSource
from moonjelly.models.definition import BOX_VALUES, NetworkConfig
from moonjelly.models.weights import decode_weights
from moonjelly.types import Detections, Variant

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


@dataclass(frozen=True, eq=False, slots=True)
class _Loaded:
    session: onnxruntime.InferenceSession
    buffer: NDArray[np.uint8]


class OnnxExecutor:
    """Implements :class:`~moonjelly.inference.protocol.Executor` with onnxruntime.

    Args:
        device: number of the GPU; of no matter on a CPU.
        threads: that one batch is computed with on a CPU. They sleep, not spin, between batches.
        cache: keeps converted checkpoints.
        post: thresholds.
        provider: ``CUDAExecutionProvider`` or ``CPUExecutionProvider``; ``None``: CUDA where onnxruntime has it.

    Raises:
        ExecutorError: this build of onnxruntime has no such provider.
    """

    def __init__(
        self,
        *,
        device: int = 0,
        threads: int = 1,
        cache: ArtifactCache | None = None,
        post: PostOptions = DEFAULT_POST,
        provider: str | None = None,
    ) -> None:
        present = onnxruntime.get_available_providers()
        self._provider = provider if provider is not None else (CUDA if CUDA in present else CPU)
        if self._provider not in present:
            raise ExecutorError(f"onnxruntime {onnxruntime.__version__} has no {self._provider}; it has {present}")
        self._device = device
        self._threads = threads
        self._cache = cache
        self._post = post
        self._loaded: dict[str, _Loaded] = {}

    @property
    def info(self) -> DeviceInfo:
        """The CPU or GPU."""
        versions = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}
        if self._provider == CPU:
            return DeviceInfo("cpu", cpu_name(), "onnx", versions)
        from moonjelly.inference.factory import device_kind

        kind = device_kind("torch", self._device)
        return DeviceInfo(kind, f"{kind} ({CUDA})", "onnx", versions)

    @property
    def needs_pixels(self) -> bool:
        """It looks."""
        return True

    def load(self, variant: Variant, source: ModelSource, max_batch: int) -> None:
        """Make ``variant`` resident; a precision of fp16 runs as fp32.

        Raises:
            ModelError: the model cannot be built, or gives values that are not finite; nothing of it stays allocated.
        """
        held = self._loaded.get(variant.name)
        if held is not None and len(held.buffer) >= max_batch:
            return
        config = read_config(variant, source)
        graph = self._graph(config, source)
        try:
            session = onnxruntime.InferenceSession(graph, self._session_options(variant), providers=self._providers())
        except Exception as fault:  # onnxruntime's errors share no base
            raise ModelError(f"variant '{variant.name}' cannot be loaded by onnxruntime: {fault}") from fault
        loaded = _Loaded(session, np.zeros((max_batch, variant.input_size, variant.input_size, 3), np.uint8))
        for batch in {1, max_batch} if self._provider == CPU else range(1, max_batch + 1):
            _check_output(variant, config, _run(variant.name, session, loaded.buffer[:batch]))
        self._loaded[variant.name] = loaded

    def unload(self, variant: str) -> None:
        """Free a variant."""
        self._loaded.pop(variant, None)

    def resident(self) -> frozenset[str]:
        """Names of loaded variants."""
        return frozenset(self._loaded)

    def infer(self, variant: str, frames: Sequence[FrameInput]) -> list[Detections]:
        """Infer and apply NMS.

        Raises:
            ExecutorError: ``variant`` is not resident, an image has the wrong shape, or the device failed.
        """
        loaded = self._loaded.get(variant)
        if loaded is None:
            raise not_resident(variant, self.resident())
        rows = _run(variant, loaded.session, fill(loaded.buffer, variant, frames))
        return answers(rows, self._post)

    def close(self) -> None:
        """Free everything."""
        self._loaded.clear()

    def _graph(self, config: NetworkConfig, source: ModelSource) -> bytes:
        if source.architecture == "darknet":
            return onnx_graph.build_graph(config, decode_weights(config, source.weights)[1], self._post.candidates)

        def convert() -> bytes:
            from moonjelly.models.checkpoint import load_checkpoint

            blocks = load_checkpoint(config, source.weights).fuse().blocks()
            arrays = [
                {name: tensor.detach().numpy() for name, tensor in block.named_arrays().items()} for block in blocks
            ]
            return onnx_graph.build_graph(config, arrays, self._post.candidates)

        key = f"onnx-graph/{onnx_graph.GRAPH_VERSION}/{onnx.__version__}/{self._post.candidates}/{source.digest}"
        return convert() if self._cache is None else self._cache.get(key, convert)

    def _session_options(self, variant: Variant) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors: constants that folding leaves unused are no news
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for side in (onnx_graph.HEIGHT, onnx_graph.WIDTH):
            options.add_free_dimension_override_by_name(side, variant.input_size)
        return options

    def _providers(self) -> list[str | tuple[str, dict[str, int]]]:
        return [(CUDA, {"device_id": self._device}), CPU] if self._provider == CUDA else [CPU]


def _run(variant: str, session: onnxruntime.InferenceSession, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        return np.asarray(session.run([onnx_graph.OUTPUT], {onnx_graph.INPUT: images})[0], np.float32)
    except Exception as fault:  # onnxruntime's errors share no base
        raise ExecutorError(f"onnxruntime failed on '{variant}' with {len(images)} frames: {fault}") from fault


def _check_output(variant: Variant, config: NetworkConfig, rows: NDArray[np.float32]) -> None:
    if rows.ndim != 3 or rows.shape[2] != BOX_VALUES + config.class_count or not np.isfinite(rows).all():
        raise ModelError(f"variant '{variant.name}' gives {rows.shape} with finite: {bool(np.isfinite(rows).all())}")


def cpu_name() -> str:
    """The CPU's name as the system gives it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
