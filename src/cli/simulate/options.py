"""What the simulation's commands have in common: options, and the profile that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moonjelly.profiles import Profile, ProfileOptions
from moonjelly.repository import load_zoo
from simulation.compare import Size

Out = Annotated[Path, typer.Option(help="folder for CSV files, figures and summary.json")]
Seed = Annotated[int, typer.Option(min=0, help="of everything that is drawn")]
ZooName = Annotated[str, typer.Option(help="zoo whose profile the devices have; 'formula': Jellyfish's formula")]
Kind = Annotated[str, typer.Option(help="device kind of the zoo's profile; its first when not given")]
Policies = Annotated[list[str], typer.Option("--policy", help="planning policy; repeat for several")]
Full = Annotated[bool, typer.Option("--full", help="the paper's full size")]

DEFAULT_POLICIES = ["multiset", "sa-dp"]


def sizes(devices: tuple[int, ...], clients_per_device: tuple[int, ...]) -> tuple[Size, ...]:
    """Every number of devices with every number of clients on each."""
    return tuple(Size(count, count * each) for count in devices for each in clients_per_device)


def profile_of(zoo: str, kind: str, percentile: float = 99.0) -> Profile | None:
    """The profile that ``--zoo`` and ``--kind`` name; ``None``: the formula."""
    if zoo == "formula":
        return None
    found = load_zoo(zoo)
    return found.profile(kind or found.kinds()[0], ProfileOptions(percentile=percentile))
