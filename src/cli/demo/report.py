"""The HTML report of a run: one self-contained file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from cli.demo.results import Results
from cli.demo.settings import DemoSettings
from moonjelly.types import Outcome
from plots import adaptation, latency_cdf, outcomes


def write_report(settings: DemoSettings, results: Results) -> Path:
    """Write ``report.html`` into the run's folder and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        settings=settings,
        summary=results.summary,
        misses=[outcome.value.lower() for outcome in Outcome if outcome.is_miss],
        figures=figures(results),
        pictures=[{"caption": picture.caption, "data": _encode(picture.png)} for picture in results.pictures],
    )
    path = settings.out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


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
    return [{"title": title, "caption": caption, "data": _picture(made)} for title, caption, made in drawn]


def _picture(made: Figure) -> str:
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=130)
    return _encode(buffer.getvalue())


def _encode(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")
