"""torch on CUDA (own stream, pinned buffers, half precision, a captured graph per batch size) and on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from moonjelly.errors import ExecutorError, ModelError
from moonjelly.inference.factory import kind_of
from moonjelly.inference.frames import answers, fill, not_resident, read_config
from moonjelly.inference.onnx_runtime import cpu_name
from moonjelly.inference.options import DEFAULT_POST, PostOptions
from moonjelly.inference.protocol import DeviceInfo, FrameInput, ModelSource
from moonjelly.models.checkpoint import load_checkpoint
from moonjelly.models.darknet import DarknetNetwork, load_network, strongest
from moonjelly.types import Detections, Variant

_WARM_UP_RUNS = 3
"""Before a capture: cuDNN chooses its algorithms in the first runs, which a graph must not record."""


class _Pipeline(nn.Module):
    """Pictures as they are decoded to the best candidates: what runs on the device."""

    def __init__(self, network: DarknetNetwork, candidates: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.candidates = candidates
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """``(b, s, s, 3)`` uint8 to ``(b, k, 5 + C)`` float32."""
        planes = images.permute(0, 3, 1, 2).to(self.dtype).div_(255.0)
        return strongest(self.network(planes), self.candidates)


@dataclass(frozen=True, eq=False, slots=True)
class _Loaded:
    """A resident variant.

    Attributes:
        pipeline: the module.
        staging: ``(max_batch, s, s, 3)`` uint8 on the host, pinned for CUDA.
        images: the same on the device; graphs read it. The host's own on a CPU.
        results: ``(max_batch, k, 5 + C)`` float32 on the host, pinned for CUDA.
        graphs: batch size to its captured graph and the output that it writes; empty on a CPU.
    """

    pipeline: _Pipeline
    staging: Tensor
    images: Tensor
    results: Tensor
    graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = field(default_factory=dict)


class TorchExecutor:
    """Implements :class:`~moonjelly.inference.protocol.Executor` with torch.

    Args:
        device: number of the GPU.
        threads: that a CPU computes with; process-wide.
        post: thresholds.
        cuda: whether to run on a GPU; ``None``: where there is one.

    Raises:
        ExecutorError: the GPU does not exist.
    """

    def __init__(
        self, *, device: int = 0, threads: int = 1, post: PostOptions = DEFAULT_POST, cuda: bool | None = None
    ) -> None:
        use_cuda = torch.cuda.is_available() if cuda is None else cuda
        if use_cuda and (not torch.cuda.is_available() or device >= torch.cuda.device_count()):
            raise ExecutorError(f"GPU {device} does not exist; torch sees {torch.cuda.device_count()}")
        self._device = torch.device("cuda", device) if use_cuda else torch.device("cpu")
        self._post = post
        self._loaded: dict[str, _Loaded] = {}
        # Loading has a stream of its own, so that it goes on beside inference.
        self._infer_stream = torch.cuda.Stream(self._device) if use_cuda else None  # type: ignore[no-untyped-call]
        self._load_stream = torch.cuda.Stream(self._device) if use_cuda else None  # type: ignore[no-untyped-call]
        if use_cuda:
            torch.backends.cudnn.benchmark = True  # input sizes are few and fixed
        else:
            torch.set_num_threads(threads)

    @property
    def info(self) -> DeviceInfo:
        """The CPU or GPU."""
        versions = {"torch": str(torch.__version__)}
        if self._device.type == "cpu":
            return DeviceInfo("cpu", cpu_name(), "torch", versions)
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
        name = torch.cuda.get_device_name(self._device)
        return DeviceInfo(kind_of(name), name, "torch", versions)

    @property
    def needs_pixels(self) -> bool:
        """It looks."""
        return True

    def load(self, variant: Variant, source: ModelSource, max_batch: int) -> None:
        """Make ``variant`` resident; on a CPU a precision of fp16 runs as fp32.

        Raises:
            ModelError: the model cannot be built, does not fit, or gives values that are not finite; nothing of it
                stays allocated.
        """
        held = self._loaded.get(variant.name)
        if held is not None and len(held.staging) >= max_batch:
            return
        try:
            with self._on(self._load_stream), torch.inference_mode():
                self._loaded[variant.name] = self._make(variant, source, max_batch)
        except RuntimeError as fault:  # torch's: out of memory, a kernel that failed
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            raise ModelError(f"variant '{variant.name}' cannot be loaded by torch: {fault}") from fault

    def unload(self, variant: str) -> None:
        """Free a variant and give its memory back to the device."""
        if self._loaded.pop(variant, None) is not None and self._device.type == "cuda":
            torch.cuda.empty_cache()

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
        fill(loaded.staging.numpy(), variant, frames)
        try:
            with self._on(self._infer_stream), torch.inference_mode():
                rows = self._run(loaded, len(frames)).numpy()
        except RuntimeError as fault:
            raise ExecutorError(f"torch failed on '{variant}' with {len(frames)} frames: {fault}") from fault
        return answers(rows, self._post)

    def close(self) -> None:
        """Free everything."""
        for variant in tuple(self._loaded):
            self.unload(variant)

    def _on(self, stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
        return nullcontext() if stream is None else torch.cuda.stream(stream)

    def _make(self, variant: Variant, source: ModelSource, max_batch: int) -> _Loaded:
        config = read_config(variant, source)
        make = load_network if source.architecture == "darknet" else load_checkpoint
        half = variant.precision == "fp16" and self._device.type == "cuda"
        dtype = torch.float16 if half else torch.float32
        network = make(config, source.weights).fuse().to(self._device, dtype)
        if self._device.type == "cuda":
            # Pictures come channels last, and so do tensor cores like them.
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pipeline = _Pipeline(network, self._post.candidates, dtype).eval()
        shape = (max_batch, variant.input_size, variant.input_size, 3)
        staging = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        images = staging.to(self._device)
        rows = pipeline(images)
        if not bool(torch.isfinite(rows).all()):
            raise ModelError(f"variant '{variant.name}' gives values that are not finite at {variant.precision}")
        results = torch.zeros(rows.shape, dtype=rows.dtype, pin_memory=self._device.type == "cuda")
        loaded = _Loaded(pipeline, staging, images, results)
        if self._load_stream is not None:
            self._capture(loaded, self._load_stream)
        return loaded

    def _capture(self, loaded: _Loaded, stream: torch.cuda.Stream) -> None:
        """Capture a graph per batch size, the largest first: they run one at a time and share its memory."""
        pool = torch.cuda.graph_pool_handle()
        for batch in range(len(loaded.images), 0, -1):
            images = loaded.images[:batch]
            for _ in range(_WARM_UP_RUNS):
                loaded.pipeline(images)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Only this thread's calls are checked: the other one infers meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                rows = loaded.pipeline(images)
            loaded.graphs[batch] = (graph, rows)
        stream.synchronize()

    def _run(self, loaded: _Loaded, batch: int) -> Tensor:
        """Candidates of the staged batch on the host; valid until the next run."""
        if self._infer_stream is None:
            rows: Tensor = loaded.pipeline(loaded.images[:batch])
            return rows
        loaded.images[:batch].copy_(loaded.staging[:batch], non_blocking=True)
        graph, captured = loaded.graphs[batch]
        graph.replay()
        results = loaded.results[:batch].copy_(captured, non_blocking=True)
        self._infer_stream.synchronize()
        return results
