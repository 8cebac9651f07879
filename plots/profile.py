"""What a zoo reaches on a device (Fig. 6 of the Jellyfish paper): accuracy, p99 latency, throughput."""

from __future__ import annotations

from matplotlib.figure import Figure

from moonjelly.profiles import Profile
from plots import style

_MAX_LINES = 8


def draw(profile: Profile) -> Figure:
    """Accuracy against input size; latency and throughput against batch size, a line per variant (at most eight)."""
    made, axes = style.figure(1, 3, height_in=2.6)
    accuracy, latency, throughput = axes[0]
    for index, model in enumerate(sorted({variant.model for variant in profile.variants})):
        points = [
            (variant.input_size, value)
            for variant, value in zip(profile.variants, profile.accuracy, strict=True)
            if variant.model == model
        ]
        accuracy.plot(
            *zip(*sorted(points), strict=True), marker=style.MARKERS[index], label=model, **style.series(index)
        )
    accuracy.set_xlabel("input size, pixels")
    accuracy.set_ylabel("accuracy")
    accuracy.legend(fontsize=6)
    batches = range(1, profile.max_batch + 1)
    count = len(profile.variants)
    step = max(1, -(-count // _MAX_LINES))
    for line, variant in enumerate(range(0, count, step)):
        name = profile.variants[variant].name
        latency.plot(batches, profile.latency_ms[variant], label=name, **style.series(line))
        rates = [profile.throughput(variant, batch) for batch in batches]
        throughput.plot(batches, rates, label=name, **style.series(line))
    latency.set_xlabel("batch")
    latency.set_ylabel("p99 latency, ms")
    latency.set_ylim(bottom=0)
    throughput.set_xlabel("batch")
    throughput.set_ylabel("throughput, frames/s")
    throughput.set_yscale("log")
    throughput.legend(fontsize=5)
    made.suptitle(f"profile of {profile.device_kind}", fontsize=9)
    return made
