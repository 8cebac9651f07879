"""Ctrl-C while a program still imports what it runs."""

import os
import signal
import subprocess
import sys

import pytest

INTERRUPTED = """
import os, runpy, signal, sys

program, imported = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]

class CtrlC:
    def find_spec(self, name, path, target=None):
        if name == imported:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
runpy.run_module(program, run_name="__main__")
"""
AFTERWARDS = """
import os, signal, sys
from moonjelly.interrupts import silently_interruptible

if "ignored" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
with silently_interruptible():
    if "ignored" in sys.argv:
        os.kill(os.getpid(), signal.SIGINT)
try:
    os.kill(os.getpid(), signal.SIGINT)
    print("goes on")
except KeyboardInterrupt:
    print("interrupted")
"""


def run(program: str, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("program", "imported", "arguments"),
    [
        ("server", "server.app", ()),
        ("server.profiler", "server.profiler.app", ()),
        ("client", "client.app", ()),
        ("network_shaping", "network_shaping.app", ()),
        ("cli", "cli.demo.run", ("demo",)),
    ],
)
def test_it_ends_by_the_signal_and_says_nothing(program: str, imported: str, arguments: tuple[str, ...]) -> None:
    assert run(INTERRUPTED, program, imported, *arguments) == (-signal.SIGINT, "", "")


def test_afterwards_it_is_what_it_was() -> None:
    assert run(AFTERWARDS) == (0, "interrupted\n", "")
    assert run(AFTERWARDS, "ignored") == (0, "goes on\n", "")
