"""Small planning problems, and random ones for property tests."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from moonjelly.planning import Assignment, Client, Device, Plan, Problem, check
from moonjelly.profiles import Profile
from moonjelly.types import Variant


def profile(
    latency_ms: tuple[tuple[float, ...], ...] = ((4.0, 5.0), (8.0, 10.0), (16.0, 20.0)),
    accuracy: tuple[float, ...] = (0.2, 0.3, 0.4),
    kind: str = "gpu",
) -> Profile:
    variants = tuple(Variant(f"v{index}", "m", 32 * (index + 1)) for index in range(len(accuracy)))
    return Profile(kind, variants, accuracy, latency_ms)


def problem(
    clients: list[Client], devices: int | list[Device] = 2, previous: Plan | None = None, rho: float = 1.0
) -> Problem:
    at_hand = [Device(index, "gpu") for index in range(devices)] if isinstance(devices, int) else devices
    return Problem(tuple(clients), tuple(at_hand), {("gpu", "default"): profile()}, previous, rho=rho)


def client(client_id: int, fps: float = 10.0, budget_ms: tuple[float, ...] = (90.0, 90.0, 90.0)) -> Client:
    return Client(client_id, fps, 100.0, budget_ms)


def best_by_brute_force(one: Problem) -> tuple[float, float]:
    """Effectiveness and accuracy of the best plan: every variant, batch and mapping is tried."""
    width = one.profiles["gpu", "default"].max_batch
    settings = list(itertools.product(range(len(one.profiles["gpu", "default"].variants)), range(1, width + 1)))
    best = (0.0, 0.0)
    for chosen in itertools.product(settings, repeat=len(one.devices)):
        for mapping in itertools.product(range(-1, len(one.devices)), repeat=len(one.clients)):
            plan = Plan(
                tuple(
                    Assignment(
                        device.device_id, "default", variant, batch,
                        tuple(c.client_id for c, where in zip(one.clients, mapping, strict=True) if where == index),
                    )
                    for index, (device, (variant, batch)) in enumerate(zip(one.devices, chosen, strict=True))
                ),
                {c.client_id: "left out" for c, where in zip(one.clients, mapping, strict=True) if where < 0},
            )  # fmt: skip
            report = check(one, plan)
            if report.valid:
                best = max(best, (report.effectiveness, report.accuracy))
    return best


_KINDS = ("gpu", "cpu")
_GROUPS = ("default", "night")
_positive = st.floats(0.01, 500.0, allow_nan=False)
_rates = st.one_of(st.sampled_from((5.0, 7.0, 10.0, 12.0, 15.0, 24.0, 25.0, 29.97, 30.0, 60.0)), _positive)


@st.composite
def _profiles(draw: st.DrawFn) -> dict[tuple[str, str], Profile]:
    found = {}
    for group in _GROUPS:
        variants = tuple(Variant(f"{group}-{index}", group, 32) for index in range(draw(st.integers(1, 4))))
        accuracy = tuple(draw(st.floats(0.0, 1.0)) for _ in variants)
        at_least = 1 if group == "default" and draw(st.integers(0, 9)) else 0
        kinds = draw(st.lists(st.sampled_from(_KINDS), unique=True, min_size=at_least, max_size=2))
        width = draw(st.integers(1, 5))
        for kind in kinds:
            rows = tuple(
                tuple(sorted(draw(st.lists(st.floats(0.5, 40.0), min_size=width, max_size=width)))) for _ in variants
            )
            found[kind, group] = Profile(kind, variants, accuracy, rows)
    return found


@st.composite
def _assignments(draw: st.DrawFn, devices: list[int]) -> Plan:
    """A previous plan that may know other devices, clients, groups and variants."""
    chosen = draw(st.lists(st.sampled_from([*devices, 99]), unique=True, max_size=5))
    return Plan(
        tuple(
            Assignment(
                device_id,
                draw(st.sampled_from((*_GROUPS, "gone"))),
                draw(st.integers(0, 5)),
                draw(st.integers(1, 8)),
                tuple(draw(st.lists(st.integers(0, 20), unique=True, max_size=4))),
            )
            for device_id in chosen
        )
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Several kinds, speeds and groups, any rates, dead links, missing profiles, overload, a stale previous plan."""
    profiles = draw(_profiles())
    kinds = sorted({kind for kind, _ in profiles})
    devices = [
        Device(index, draw(st.sampled_from(kinds)), draw(st.sampled_from((1.0, 1.0, 0.5, 0.31))))
        for index in range(draw(st.sampled_from((1, 2, 3, 4, 0))) if kinds else 0)
    ]
    widths = {group: len(one.variants) for (_, group), one in profiles.items()}
    clients = []
    for client_id in draw(st.lists(st.integers(0, 1000), unique=True, max_size=14)):
        group = draw(st.sampled_from(("default", *_GROUPS)))
        budget = st.one_of(st.just(0.0), st.floats(0.0, 400.0), st.floats(50.0, 400.0))
        width = widths.get(group, 2)
        budgets = tuple(draw(st.lists(budget, min_size=width, max_size=width)))
        clients.append(Client(client_id, draw(_rates), draw(st.floats(10.0, 500.0)), budgets, group))
    return Problem(
        tuple(clients),
        tuple(devices),
        profiles,
        draw(st.one_of(st.none(), _assignments([device.device_id for device in devices]))),
        draw(st.sampled_from((1.0, 2.0, 2.5))),
        draw(st.sampled_from((1.0, 0.9, 0.5))),
    )
