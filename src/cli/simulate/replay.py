"""``moonjelly simulate replay``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from cli.simulate.options import Kind, Out, Seed, profile_of
from cli.simulate.results import make_table, plain, write_summary
from cli.simulate.sittings import console, keep_earlier
from moonjelly import dispatching
from moonjelly.profiles import Profile
from moonjelly.reference import reference_profile
from moonjelly.types import DEFAULT_GROUP
from simulation import replay as replaying
from simulation.replay import Distribution

SERVED = ["synthetic"]


def replay(
    run: Annotated[Path, typer.Argument(help="folder of a run, or of its server's logs")],
    dispatcher: Annotated[str, typer.Option(help="that the server used")] = dispatching.DEFAULT,
    zoo: Annotated[
        list[str], typer.Option(help="that the server served; GROUP=ZOO for each group of several")
    ] = SERVED,
    kind: Kind = "",
    seed: Seed = 0,
    out: Out = Path("logs/simulation/replay"),
) -> None:
    """A recorded run through the same engine: the same decisions? and predicted against measured latency.

    Exits with 1 when a decision came out differently.
    """
    folder = run / "logs" / "server" if (run / "logs" / "server").is_dir() else run
    recording = replaying.read_recording(folder)
    zoos = {
        group if place else DEFAULT_GROUP: place or group for group, _, place in (one.partition("=") for one in zoo)
    }
    profiles = {group: profile_of(one, kind) or reference_profile(max_batch=12) for group, one in zoos.items()}
    typical = [_typical_share(profiles[group], profile_of(one, kind, percentile=50.0)) for group, one in zoos.items()]
    agreement = replaying.ask_again(recording, profiles, dispatcher)
    measured = replaying.measured(recording)
    predicted = replaying.predicted(recording, profiles, dispatcher, float(np.mean(typical)), seed)
    console.print(_table(measured, predicted))
    for one in agreement.mismatches[:5]:
        console.print(f"at {one.ts} ns, device {one.device}: recorded '{one.recorded}', now '{one.replayed}'")
    same = agreement.decisions - len(agreement.mismatches)
    console.print(f"{same} of {agreement.decisions} decisions are the same")
    content = {
        "decisions": agreement.decisions,
        "mismatches": [plain(one) for one in agreement.mismatches],
        "measured": plain(measured),
        "predicted": plain(predicted),
    }
    keep_earlier(out)
    write_summary(out, content)
    raise typer.Exit(0 if not agreement.mismatches else 1)


def _table(measured: Distribution, predicted: Distribution) -> Table:
    columns = ("", "frames run", *(f"p{each}" for each in replaying.PERCENTILES), "dropped")
    shown = make_table("queue to answer, ms", columns)
    for name, each in (("measured", measured), ("predicted", predicted)):
        shown.add_row(name, str(each.ran), *(f"{value:.1f}" for value in each.ms.values()), str(each.dropped))
    return shown


def _typical_share(profile: Profile, typical: Profile | None) -> float:
    if typical is None:
        return 1.0
    pairs = zip(np.ravel(typical.latency_ms), np.ravel(profile.latency_ms), strict=True)
    return float(np.mean([middle / high for middle, high in pairs]))
