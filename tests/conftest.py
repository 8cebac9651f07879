"""Fixtures that every folder of tests may use, and the rule that CI knows every skip."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, not of the code; what is drawn depends on the code alone.
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")
ROOT = Path(__file__).resolve().parent.parent
ALLOWED_SKIPS = ROOT / "tests" / "allowed_skips.txt"


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real videos, images, weights and traces: what ``download_data.sh`` fetches, and two files that have no home."""
    data = Path(os.environ.get("MOONJELLY_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "coco" / "instances.json").exists():
        pytest.skip(
            f"real data absent: {data} has no coco/instances.json; set MOONJELLY_DATA to a folder with all of it"
        )
    return data


def pytest_configure() -> None:
    """Tests interrupt programs: these must not inherit that SIGINT is ignored, as it is in a shell's background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="fail on a skip that tests/allowed_skips.txt lacks")


def allowed_reasons() -> list[re.Pattern[str]]:
    lines = ALLOWED_SKIPS.read_text(encoding="utf-8").splitlines()
    return [re.compile(line) for line in lines if line.strip() and not line.startswith("#")]


def unexpected_skips(reasons: dict[str, str]) -> dict[str, str]:
    """Of test id to reason, those that no committed line allows."""
    allowed = allowed_reasons()
    return {test: reason for test, reason in reasons.items() if not any(line.search(reason) for line in allowed)}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--strict-skips"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reasons = {
        report.nodeid: report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in reporter.stats.get("skipped", [])
    }
    surprises = unexpected_skips(reasons)
    for test, reason in surprises.items():
        reporter.write_line(f"\nSKIP NOT ALLOWED {test}: {reason}", red=True)
    if surprises and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
