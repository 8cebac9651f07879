"""Scenes: the same from the same seed, with boxes that are exactly what they enclose, and drift that drifts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from moonjelly.errors import ConfigError
from moonjelly.scenes import CLASSES, LAYOUTS, Conditions, Drift, FrameLabels, Keyframe, Scene, SceneOptions
from moonjelly.scenes.camera import draw_camera
from moonjelly.scenes.layout import draw_belts, draw_layout
from moonjelly.scenes.traffic import Traffic

SMALL = SceneOptions(width=320, height=180)
BAD_DAYS = {
    "noon": Conditions(),
    "night": Conditions(daylight=0.0),
    "dusk and rain": Conditions(daylight=0.35, rain=0.9),
    "fog": Conditions(fog=0.8),
    "snow": Conditions(snow=1.0, density=2.0),
}


def steady(conditions: Conditions, **changes: object) -> SceneOptions:
    return dataclasses.replace(SMALL, drift=Drift.steady(conditions), **changes)  # type: ignore[arg-type]


def same(labels: FrameLabels, others: FrameLabels) -> bool:
    return all(np.array_equal(getattr(labels, f.name), getattr(others, f.name)) for f in dataclasses.fields(labels))


def test_the_same_seed_gives_the_same_frames_in_any_order() -> None:
    forward, backward = Scene(11, SMALL), Scene(11, SMALL)
    expected = [forward.frame(index) for index in range(0, 60, 6)]
    for index in reversed(range(0, 60, 6)):
        picture, labels = backward.frame(index)
        assert np.array_equal(picture, expected[index // 6][0])
        assert same(labels, expected[index // 6][1])


@pytest.mark.parametrize("daylight", [1.0, 0.0])
def test_a_picture_without_its_truth_is_the_frames_picture(daylight: float) -> None:
    options = dataclasses.replace(SMALL, drift=Drift.steady(Conditions(daylight=daylight, rain=0.5, density=2.0)))
    labelled, plain = Scene(5, options), Scene(5, options)
    for index in (0, 1, 40):
        np.testing.assert_array_equal(plain.picture(index), labelled.frame(index)[0])


def test_a_frame_handed_out_is_the_callers_to_change() -> None:
    scene = Scene(4, SMALL)
    first, _ = scene.frame(3)
    kept = first.copy()
    first[:] = 0
    again, _ = scene.frame(3)
    assert np.array_equal(again, kept)


def test_other_seeds_and_other_instants_give_other_frames() -> None:
    pictures = [Scene(seed, SMALL).frame(0)[0] for seed in range(4)]
    pictures += [Scene(0, dataclasses.replace(SMALL, noise=0.0)).frame(index)[0] for index in (1, 25)]
    for number, picture in enumerate(pictures):
        for other in pictures[number + 1 :]:
            assert not np.array_equal(picture, other)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_box_encloses_exactly_the_pixels_that_its_object_changes(layout: str, day: str) -> None:
    scene = Scene(5, steady(BAD_DAYS[day], layout=layout))
    picture, labels = scene.frame(40)
    assert len(labels) >= 3
    checked = 0
    for box, track, visible in zip(labels.boxes, labels.tracks, labels.visible, strict=True):
        without, others = scene.frame(40, hidden=frozenset({int(track)}))
        assert track not in others.tracks
        rows, columns = np.nonzero(np.any(picture != without, axis=2))
        if len(rows) == 0:
            continue  # it has the very colours of what it hides
        left, top, right, bottom = np.rint(box * (320, 180, 320, 180)).astype(int)
        assert left <= columns.min()
        assert columns.max() < right
        assert top <= rows.min()
        assert rows.max() < bottom
        if visible == 1.0 and day == "noon":
            # Unhidden on a clear day: the box is tight, but for rims that happen to have the ground's colour.
            assert columns.min() - left <= 2
            assert right - 1 - columns.max() <= 2
            checked += 1
    assert checked > 0 or day != "noon"


def test_a_hidden_object_frees_what_it_hid() -> None:
    scene = Scene(12, steady(Conditions(density=2.0)))
    _, labels = scene.frame(0)
    covered = int(np.argmin(labels.visible))
    assert labels.visible[covered] < 0.7
    others = frozenset(int(track) for track in labels.tracks if track != labels.tracks[covered])
    _, alone = scene.frame(0, hidden=others)
    now = alone.tracks.tolist().index(labels.tracks[covered])
    assert alone.visible[now] > labels.visible[covered] + 0.1


def test_boxes_lie_in_the_frame_and_shares_are_shares() -> None:
    for seed in range(6):
        _, labels = Scene(seed, SMALL).frame(100)
        assert (labels.boxes >= 0.0).all()
        assert (labels.boxes <= 1.0).all()
        assert (labels.boxes[:, 2:] > labels.boxes[:, :2]).all()
        assert (labels.visible > 0.0).all()
        assert (labels.visible <= 1.0).all()
        assert set(labels.classes.tolist()) <= set(range(len(CLASSES)))
        assert len(set(labels.tracks.tolist())) == len(labels)


def test_tracks_move_coherently() -> None:
    scene = Scene(3, steady(Conditions()))
    before = scene.frame(0)[1]
    met = 0
    for index in range(1, 40):
        now = scene.frame(index)[1]
        where = {int(track): place for place, track in enumerate(before.tracks)}
        for place, track in enumerate(now.tracks.tolist()):
            if track in where:
                met += 1
                assert now.classes[place] == before.classes[where[track]]
                assert abs(now.distance_m[place] - before.distance_m[where[track]]) < 30.0 / 25.0 * 1.9 + 0.01
        before = now
    assert met > 200


def test_objects_come_and_go() -> None:
    scene = Scene(3, steady(Conditions()))
    first, last = set(scene.frame(0)[1].tracks.tolist()), set(scene.frame(25 * 40)[1].tracks.tolist())
    assert first - last
    assert last - first


def shares(drift: Drift, instant_s: float) -> NDArray[np.float64]:
    """Share of each class among everything on the road, over several roads."""
    counts = np.zeros(len(CLASSES))
    for seed in range(9):
        random = np.random.default_rng(seed)
        layout = draw_layout(random, LAYOUTS[seed % 3])
        camera = draw_camera(random, 320, 180, layout.half_road_m)
        traffic = Traffic(seed, draw_belts(random, layout, camera), camera, drift)
        counts += np.bincount([actor.kind for actor in traffic.actors(instant_s)], minlength=len(CLASSES))
    return np.asarray(counts / counts.sum())


def test_drift_moves_the_class_mix() -> None:
    walkers = Conditions(mix=(0.8, 0.1, 0.02, 0.02, 0.04, 0.02))
    lorries = Conditions(mix=(0.05, 0.2, 0.65, 0.05, 0.02, 0.03))
    drift = Drift((Keyframe(0.0, walkers), Keyframe(30.0, walkers), Keyframe(60.0, lorries)))
    # Who walks slowly stays in sight for a minute after the mix has changed.
    early, late = shares(drift, 10.0), shares(drift, 150.0)
    person, truck = CLASSES.index("person"), CLASSES.index("truck")
    assert early[person] > late[person] + 0.4
    assert late[truck] > early[truck] + 0.3


def test_every_class_appears_in_the_default_mix() -> None:
    assert (shares(Drift.steady(Conditions()), 33.0) > 0.01).all()


def test_drift_moves_light_and_weather() -> None:
    drift = Drift((Keyframe(0.0, Conditions()), Keyframe(10.0, Conditions(daylight=0.0, rain=1.0))))
    scene = Scene(2, dataclasses.replace(SMALL, drift=drift))
    means = [float(scene.frame(index)[0].mean()) for index in (0, 125, 250)]
    assert means[0] > means[1] + 5.0 > means[2] + 10.0
    assert scene.conditions(125).rain == pytest.approx(0.5)


def test_conditions_between_and_beyond_keyframes() -> None:
    drift = Drift((Keyframe(2.0, Conditions(fog=0.2)), Keyframe(4.0, Conditions(fog=0.8, density=2.0))))
    assert drift.at(-5.0).fog == 0.2
    assert drift.at(3.0).fog == pytest.approx(0.5)
    assert drift.at(3.0).density == pytest.approx(1.5)
    assert drift.at(99.0).fog == 0.8


@pytest.mark.parametrize(("width", "height"), [(64, 64), (161, 97), (960, 540), (180, 320)])
def test_any_resolution(width: int, height: int) -> None:
    picture, labels = Scene(8, SceneOptions(width=width, height=height)).frame(7)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert labels.boxes.shape == (len(labels), 4)


def test_selection_by_visibility_and_size() -> None:
    labels = Scene(12, steady(Conditions(density=2.0))).frame(0)[1]
    chosen = labels.select(min_visible=0.6, min_side=0.05)
    assert 0 < len(chosen) < len(labels)
    assert (chosen.visible >= 0.6).all()
    assert (np.max(chosen.boxes[:, 2:] - chosen.boxes[:, :2], axis=1) >= 0.05).all()
    assert (chosen.as_detections().scores == 1.0).all()


def test_what_is_asked_for_is_mostly_visible_and_32_pixels_of_640() -> None:
    labels = Scene(12, SceneOptions(drift=Drift.steady(Conditions(density=2.0)))).frame(0)[1]
    asked = labels.asked(640, 360)
    assert 0 < asked.sum() < len(labels)
    for kept, box, visible in zip(asked, labels.boxes * (640, 360, 640, 360), labels.visible, strict=True):
        assert kept == (visible >= 0.5 and round(max(box[2] - box[0], box[3] - box[1]), 3) >= 32.0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Scene(-1), "seed -1 is negative"),
        (lambda: SceneOptions(width=10), "10x360 pixels; each side must be in"),
        (lambda: SceneOptions(layout="moon"), "layout 'moon' is not known; choose from avenue, street, junction"),  # type: ignore[arg-type]
        (lambda: SceneOptions(fps=0.0), "fps is 0.0; it must be in"),
        (lambda: SceneOptions(noise=-1.0), "noise -1.0"),
        (lambda: Conditions(rain=1.5), "rain is 1.5; it must be in"),
        (lambda: Conditions(density=9.0), "density is 9.0"),
        (lambda: Conditions(mix=(1.0,)), "mix has 1 weights"),
        (lambda: Conditions(mix=(0.0,) * 6), "not all zero"),
        (lambda: Drift(()), "there is no keyframe"),
        (lambda: Drift((Keyframe(1.0, Conditions()), Keyframe(1.0, Conditions()))), "must increase"),
    ],
)
def test_impossible_choices_are_named(make: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text.replace("(", r"\(")):
        make()  # type: ignore[operator]
