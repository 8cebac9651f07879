"""Reports as single HTML files: templates, and figures and pictures embedded into them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import jinja2
from matplotlib.figure import Figure


def write(path: Path, template: str, **context: object) -> Path:
    """Render a template of this package into ``path``, in one step, and return it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template(template).render(**context)
    beside = path.with_name(path.name + ".part")
    beside.write_text(page, encoding="utf-8")
    beside.replace(path)
    return path


def embed(drawn: Iterable[tuple[str, str, Figure]]) -> list[dict[str, str]]:
    """Title, caption and picture (PNG, base64) of each figure."""
    found = []
    for title, caption, made in drawn:
        buffer = io.BytesIO()
        made.savefig(buffer, format="png", dpi=130)
        found.append({"title": title, "caption": caption, "data": encode(buffer.getvalue())})
    return found


def encode(png: bytes) -> str:
    """A picture as it stands in a page."""
    return base64.b64encode(png).decode("ascii")
