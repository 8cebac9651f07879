"""Which runtime serves a device."""

from __future__ import annotations

import re
from pathlib import Path

from moonjelly.errors import ConfigError
from moonjelly.inference.options import DEFAULT_POST, RUNTIMES, PostOptions
from moonjelly.inference.protocol import ArtifactCache, Executor
from moonjelly.inference.simulated import Answers, SimulatedExecutor, SimulationOptions
from moonjelly.profiles import Profile

_GPU_NODES = Path("/dev")


def gpu_nodes() -> int:
    """NVIDIA GPUs that the kernel shows; asks no library, so that it costs nothing where there is none."""
    return sum(1 for node in _GPU_NODES.glob("nvidia*") if node.name.removeprefix("nvidia").isdigit())


def cuda_devices() -> int:
    """GPUs that torch can use; imports it only where the kernel shows one."""
    if not gpu_nodes():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def resolve_runtime(runtime: str) -> str:
    """``torch``, ``onnx`` or ``simulated`` for what a user asked for.

    Raises:
        ConfigError: there is no such runtime.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime '{runtime}' is unknown; there are {', '.join(RUNTIMES)}")
    if runtime != "auto":
        return runtime
    return "torch" if cuda_devices() else "onnx"


def kind_of(device_name: str) -> str:
    """Device kind for the name of a GPU: ``NVIDIA H200`` is ``nvidia-h200``."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")


def device_kind(runtime: str, device: int = 0) -> str:
    """The kind of a device, which names its profile: ``cpu``, ``nvidia-h200``.

    A simulated device has the kind of the profile it is given; none is named here.

    Raises:
        ConfigError: the runtime is unknown or simulated, or the device does not exist.
    """
    resolved = resolve_runtime(runtime)
    if resolved == "simulated":
        raise ConfigError("a simulated device has the kind of its profile; name one")
    count = cuda_devices()
    if not count:
        return "cpu"
    if device >= count:
        raise ConfigError(f"device {device} does not exist; there are {count} GPUs")
    import torch

    return kind_of(torch.cuda.get_device_name(device))


def make_executor(
    runtime: str = "auto",
    *,
    device: int = 0,
    threads: int = 1,
    profile: Profile | None = None,
    cache: ArtifactCache | None = None,
    post: PostOptions = DEFAULT_POST,
    simulation: SimulationOptions | None = None,
    answers: Answers | None = None,
) -> Executor:
    """Make the executor of one device. A process makes one: thread pools of two get in one another's way.

    Args:
        runtime: ``auto``, ``torch``, ``onnx`` or ``simulated``.
        device: number of the GPU; CPU and simulated devices do not look.
        threads: that a CPU device computes with.
        profile: what a simulated device behaves like.
        cache: keeps derived graphs; ``None``: they are made anew.
        post: thresholds.
        simulation: jitter and scale of a simulated device.
        answers: detections of a simulated device; ``None``: synthetic ones.

    Raises:
        ConfigError: the runtime is unknown, or a simulated one has no profile.
        ExecutorError: the device does not exist or cannot be used.
    """
    resolved = resolve_runtime(runtime)
    if threads < 1:
        raise ConfigError(f"threads {threads} must be at least 1")
    if resolved == "simulated":
        if profile is None:
            raise ConfigError("a simulated executor needs the profile that it is to behave like")
        return SimulatedExecutor(profile, simulation, answers)
    if resolved == "onnx":
        from moonjelly.inference.onnx_runtime import OnnxExecutor

        return OnnxExecutor(device=device, threads=threads, cache=cache, post=post)
    from moonjelly.inference.torch_runtime import TorchExecutor

    return TorchExecutor(device=device, threads=threads, post=post)
