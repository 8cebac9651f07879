"""Names of a sweep's settings as people read and order them."""

from __future__ import annotations

import re


def setting_label(setting: str) -> str:
    """A setting's name as people read it: ``slo-75_fps-15`` is ``SLO 75 ms, 15 fps``; others stay as they are."""
    found = re.fullmatch(r"slo-([\d.]+)_fps-([\d.]+)", setting)
    return f"SLO {found[1]} ms, {found[2]} fps" if found else setting


def natural(text: str) -> list[tuple[float, str]]:
    """Sort key under which ``slo-75`` comes before ``slo-150``."""
    return [(float(word), "") if word[0].isdigit() else (-1.0, word) for word in re.findall(r"\d+(?:\.\d+)?|\D+", text)]


def by_rate(setting: str) -> tuple[bool, list[tuple[float, str]], list[tuple[float, str]]]:
    """Sort key of a grid of panels: a rate after the other, deadlines rising within each; mixed settings last."""
    found = re.fullmatch(r"slo-([\d.]+)_fps-([\d.]+)", setting)
    return (False, natural(found[2]), natural(found[1])) if found else (True, natural(setting), [])


def file_name(trace: str) -> str:
    """A trace, a name or a path, as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.@-]+", "-", trace.rsplit("/", maxsplit=1)[-1])
