"""The HTML report of a run: one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli import pages
from cli.demo.results import Results
from cli.demo.settings import DemoSettings
from moonjelly.types import Outcome
from plots import adaptation, latency_cdf, outcomes


def write_report(settings: DemoSettings, results: Results) -> Path:
    """Write ``report.html`` into the run's folder and return its path."""
    return pages.write(
        settings.out / "report.html",
        "run.html.j2",
        settings=settings,
        summary=results.summary,
        misses=[outcome.value.lower() for outcome in Outcome if outcome.is_miss],
        figures=figures(results),
        pictures=[{"caption": picture.caption, "data": pages.encode(picture.png)} for picture in results.pictures],
    )


def figures(results: Results) -> Sequence[dict[str, str]]:
    """Title, caption and embedded picture of each figure; none when no frame was captured."""
    if not results.frames:
        return []
    drawn = (
        ("Adaptation", "Each client's bandwidth estimate and the variant that answered its frames; ticks are misses.",
         adaptation.draw(results.frames, results.variants)),
        ("Latency", "Capture at the client to result at the client, over answered frames.",
         latency_cdf.draw(results.frames)),
        ("Misses", "How the frames that were not answered in time ended.", outcomes.draw(results.frames)),
    )  # fmt: skip
    return pages.embed(drawn)
