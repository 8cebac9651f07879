"""Two network namespaces joined by a veth pair, for tests and benchmarks of shaping."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENT_ADDRESS, SERVER_ADDRESS = "10.91.7.1", "10.91.7.2"
INTERFACE = "shaped0"


def problem() -> str | None:
    """Why namespaces cannot be made here, or ``None``."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"mj-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces not available: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


@dataclass(frozen=True)
class Pair:
    """``client`` and ``server`` are names of namespaces; ``INTERFACE`` is the client's end."""

    client: str
    server: str

    @staticmethod
    def make(label: str) -> Pair:
        """A fresh pair."""
        pair = Pair(f"mj-{label}-c", f"mj-{label}-s")
        pair.remove()
        for name in (pair.client, pair.server):
            _ip("netns", "add", name)
        _ip(
            "link", "add", INTERFACE, "netns", pair.client, "type", "veth", "peer", "name", "far0", "netns", pair.server
        )
        ends = ((pair.client, INTERFACE, CLIENT_ADDRESS), (pair.server, "far0", SERVER_ADDRESS))
        for name, interface, address in ends:
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
            _ip("-n", name, "link", "set", interface, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        return pair

    def remove(self) -> None:
        """Delete both, and what is in them. Idempotent."""
        for name in (self.client, self.server):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    @staticmethod
    def inside(namespace: str, *command: str) -> list[str]:
        """A command line that runs in one of them."""
        return ["ip", "netns", "exec", namespace, *command]

    def python(self, namespace: str, code: str, *arguments: str) -> list[str]:
        """A command line that runs Python code in one of them."""
        return self.inside(namespace, sys.executable, "-c", code, *arguments)

    def shaping(self, *arguments: str) -> list[str]:
        """``python -m network_shaping`` at the client."""
        return self.inside(self.client, sys.executable, "-m", "network_shaping", *arguments)

    def qdiscs(self) -> str:
        """What ``tc`` says of the client's interface."""
        return subprocess.run(
            self.inside(self.client, "tc", "-s", "qdisc", "show", "dev", INTERFACE),
            capture_output=True,
            text=True,
            check=True,
        ).stdout


def environment() -> dict[str, str]:
    """With the clone on the path."""
    paths: Sequence[str] = (str(ROOT / "src"), str(ROOT))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
