"""What a zoo reaches on a device (Fig. 6 of the Jellyfish paper): accuracy, p99 latency, throughput."""

from __future__ import annotations

from matplotlib.figure import Figure

from moonjelly.profiles import Profile
from plots import style

_MAX_LINES = 8


def draw(profile: Profile) -> Figure:
    """Accuracy against input size; latency and throughput against batch size, a line per variant (at most eight)."""
    made, axes = style.figure(1, 3, height_in=2.9)
    accuracy, latency, throughput = axes[0]
    models = sorted({variant.model for variant in profile.variants})
    for index, model in enumerate(models):
        points = [
            (variant.input_size, value)
            for variant, value in zip(profile.variants, profile.accuracy, strict=True)
            if variant.model == model
        ]
        look = {"marker": style.marker(index), **style.series(index)}
        accuracy.plot(*zip(*sorted(points), strict=True), label=model, **look)
    if len(models) > 1:
        accuracy.legend(fontsize=6)
    accuracy.set_xlabel("input size, pixels")
    accuracy.set_ylabel("accuracy")
    batches = range(1, profile.max_batch + 1)
    for line, variant in enumerate(style.spread(len(profile.variants), _MAX_LINES)):
        look = {"marker": style.marker(line), "markevery": (line % 2, 2), **style.series(line)}
        name = profile.variants[variant].name
        latency.plot(batches, profile.latency_ms[variant], label=name, **look)
        throughput.plot(batches, [profile.throughput(variant, batch) for batch in batches], **look)
    latency.set_xlabel("batch")
    latency.set_ylabel("p99 latency, ms")
    latency.set_ylim(bottom=0)
    throughput.set_xlabel("batch")
    throughput.set_ylabel("throughput, frames/s")
    throughput.set_yscale("log")
    style.plain_log_ticks(throughput.yaxis)
    style.legend_of(made, 4, of=[latency])
    made.suptitle(f"profile of {profile.device_kind}", fontsize=9)
    return made
