"""One protocol, three runtimes: torch (CPU, CUDA), onnx (CPU, CUDA) and simulated."""

from moonjelly.inference.factory import cuda_devices, device_kind, make_executor, resolve_runtime
from moonjelly.inference.options import PostOptions
from moonjelly.inference.protocol import ArtifactCache, DeviceInfo, Executor, FrameInput, ModelSource
from moonjelly.inference.simulated import SimulatedExecutor, SimulationOptions, SyntheticAnswers

__all__ = [
    "ArtifactCache",
    "DeviceInfo",
    "Executor",
    "FrameInput",
    "ModelSource",
    "PostOptions",
    "SimulatedExecutor",
    "SimulationOptions",
    "SyntheticAnswers",
    "cuda_devices",
    "device_kind",
    "make_executor",
    "resolve_runtime",
]
