"""What a frame is worth that is smaller than the variant that runs it: the matrix a(frame size -> variant), measured.

A client whose link falls sends smaller frames before the plan changes, and the server enlarges them. Effective
accuracy counts such a frame at the accuracy of the variant that ran, "as sized" at that of the variant that the frame
was sized for. Here pictures are squashed and encoded as clients do (JPEG quality 75), decoded and enlarged as the
server does, and every variant sees them at every size of its ladder up to its own: the shipped Yolo-Fastest zoo, and
its larger model at every 32 pixels as YOLOv4's zoo has them, on COCO pictures (average precision) and on videos (F1
against the larger model at 416 pixels on undistorted frames); the `synthetic` zoo on generated scenes (AP at IoU 0.5
against exact boxes).

Errors are standard errors of a bootstrap over pictures, over scenes, or over stretches of a video; all cells see the
same draws, so that those of differences are paired. Exits with 1 when frames of the next smaller size earn
significantly (two errors) less than as sized.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.detection import match, without_ignored
from moonjelly.detection.average_precision import resampled_precision
from moonjelly.detection.coco import CocoImage, CocoSet
from moonjelly.inference import Executor, FrameInput, PostOptions, make_executor
from moonjelly.inference.onnx_runtime import cpu_name
from moonjelly.inference.options import DEFAULT_POST
from moonjelly.inference.preprocess import decode, resize
from moonjelly.network import DEFAULT_QUALITY
from moonjelly.repository import Zoo, load_zoo
from moonjelly.repository.places import data_file
from moonjelly.scenes import CLASSES, Scene
from moonjelly.sdk.encoding import encode
from moonjelly.training.recipes import HELD_OUT_SEED
from moonjelly.types import Detections, Variant
from server.profiler.accuracy import EVALUATION, read_truth, read_video

SIZES = range(128, 321, 32)
"""Of the ladder of one model: up to the size that it was trained at."""
GOLDEN_SIZE = 416
VIDEOS = ("highway-camera", "highway-dashcam")
STRETCHES = 20
"""Of a video, drawn as a whole: neighbouring frames resemble one another."""
SCENES, FRAMES_OF_A_SCENE, FRAMES_APART = 60, 2, 205

Draws = NDArray[np.int64]
"""``(1 + draws, pictures)`` indices of pictures; the first row has each once."""
Estimates = NDArray[np.float64]
"""``(1 + draws,)``: the measured value, and what it could as well have been."""


@dataclass(frozen=True)
class Pictures:
    """What is looked at.

    Attributes:
        name: where they are from.
        rgb: as a camera gives them.
        stretches: per picture, what it is drawn together with; all of one length.
        post: thresholds of the detector.
        accuracies: from the detections of every picture to an accuracy per draw, by the metric's name.
    """

    name: str
    rgb: Sequence[NDArray[np.uint8]]
    stretches: NDArray[np.int64]
    post: PostOptions
    accuracies: Callable[[Sequence[Detections], Draws], dict[str, Estimates]]

    def draws(self, count: int, seed: int) -> Draws:
        members = np.stack([np.flatnonzero(self.stretches == one) for one in np.unique(self.stretches)])
        drawn = np.random.default_rng(seed).integers(0, len(members), (count, len(members)))
        return np.vstack([members.ravel(), members[drawn].reshape(count, -1)])


Cells = Mapping[tuple[str, int], Estimates]
"""Accuracy by name of the variant and size of the frame."""


@dataclass(frozen=True)
class Matrix:
    """a(frame size -> variant) of a ladder of variants, in increasing order."""

    variants: Sequence[Variant]
    cells: Cells

    @property
    def sizes(self) -> list[int]:
        return sorted({variant.input_size for variant in self.variants})

    def own(self, variant: Variant) -> Estimates:
        """Frames of the variant's own size: what effective accuracy counts."""
        return self.cells[variant.name, variant.input_size]

    def as_sized(self, variant: Variant, size: int) -> Estimates:
        """What the variant has that a client sizes such a frame for: the best of that size below the one that runs."""
        below = self.variants[: self.variants.index(variant)]
        return self.own([one for one in below if one.input_size == size][-1])

    def smaller(self, variant: Variant) -> list[int]:
        """Sizes below the variant's, the next one first."""
        return [size for size in reversed(self.sizes) if size < variant.input_size]


@dataclass(frozen=True)
class Worth:
    """Of frames that are some sizes too small, mean over the variants.

    Attributes:
        kept: share of the accuracy that the variant has on frames of its own size.
        gained: accuracy beyond that of the variant that the frame was sized for.
        place: of the way from "as sized" (0) to effective accuracy (1).
    """

    kept: Estimates
    gained: Estimates
    place: Estimates


def worth(matrix: Matrix, steps: int) -> Worth:
    pairs = [
        (variant, smaller[steps - 1]) for variant in matrix.variants if len(smaller := matrix.smaller(variant)) >= steps
    ]
    got = np.mean([matrix.cells[variant.name, size] for variant, size in pairs], axis=0)
    own = np.mean([matrix.own(variant) for variant, _ in pairs], axis=0)
    sized = np.mean([matrix.as_sized(variant, size) for variant, size in pairs], axis=0)
    return Worth(got / own, got - sized, (got - sized) / (own - sized))


def measure(zoo: Zoo, variants: Iterable[Variant], pictures: Pictures, draws: Draws) -> dict[str, Cells]:
    """Every variant on frames of every size up to its own; by metric."""
    variants = tuple(variants)
    sizes = sorted({variant.input_size for variant in variants})
    frames = {size: [encode(rgb, size, 0, DEFAULT_QUALITY).data for rgb in pictures.rgb] for size in sizes}
    found: dict[str, dict[tuple[str, int], Estimates]] = defaultdict(dict)
    with closing(make_executor("onnx", post=pictures.post)) as executor:
        for variant in variants:
            for size in (size for size in sizes if size <= variant.input_size):
                images = [decode(data, variant.input_size) for data in frames[size]]
                accuracies = pictures.accuracies(detect(executor, zoo, variant, images), draws)
                for metric, estimates in accuracies.items():
                    found[metric][variant.name, size] = estimates
    print(f"\n{pictures.name}; mean bytes of a frame: ", end="")
    print(", ".join(f"{size}: {np.mean([len(data) for data in frames[size]]):.0f}" for size in sizes))
    return dict(found)


def detect(
    executor: Executor, zoo: Zoo, variant: Variant, images: Sequence[NDArray[np.uint8]]
) -> list[Detections]:  # fmt: skip
    executor.load(variant, zoo.source(variant.model), 1)
    inputs = [FrameInput("accuracy", number, image) for number, image in enumerate(images)]
    found = [executor.infer(variant.name, [one])[0] for one in inputs]
    executor.unload(variant.name)
    return found


def f1(truth: Sequence[Detections], seen: Sequence[Detections], draws: Draws) -> dict[str, Estimates]:
    counts = [match(found, golden) for found, golden in zip(seen, truth, strict=True)]
    table = np.array([(one.true_positives, one.false_positives, one.false_negatives) for one in counts], np.float64)
    right, wrong, overlooked = table[draws].sum(axis=1).T
    return {"F1": 2.0 * right / np.maximum(1.0, 2.0 * right + wrong + overlooked)}


def coco_pictures(zoo: Zoo) -> Pictures:
    folder = data_file("coco/instances.json").parent
    truth = read_truth(folder)
    names = dict(sorted((int(image["id"]), image["file_name"]) for image in truth["images"]))
    rgb = [_read(folder / "images" / name) for name in names.values()]

    def accuracies(seen: Sequence[Detections], draws: Draws) -> dict[str, Estimates]:
        found = resampled_precision(truth, dict(zip(names, seen, strict=True)), zoo.classes, draws)
        return {"AP": np.array([one.ap for one in found]), "AP50": np.array([one.ap50 for one in found])}

    return Pictures(f"{len(rgb)} COCO pictures", rgb, np.arange(len(rgb)), EVALUATION, accuracies)


def video_pictures(zoo: Zoo, name: str, frames: int) -> Pictures:
    rgb = read_video(data_file(f"videos/{name}.mp4"), frames)
    rgb = rgb[: len(rgb) // STRETCHES * STRETCHES]
    golden = replace(zoo.variants[-1], input_size=GOLDEN_SIZE)
    with closing(make_executor("onnx", post=DEFAULT_POST)) as executor:
        truth = detect(executor, zoo, golden, [resize(picture, GOLDEN_SIZE) for picture in rgb])
    stretches = np.arange(len(rgb)) * STRETCHES // len(rgb)
    return Pictures(f"{len(rgb)} frames of {name}.mp4", rgb, stretches, DEFAULT_POST, partial(f1, truth))


def scene_pictures(seed: int) -> Pictures:
    scenes = [Scene(HELD_OUT_SEED + 1000 * seed + number) for number in range(SCENES)]
    drawn = [scene.frame(index * FRAMES_APART) for scene in scenes for index in range(FRAMES_OF_A_SCENE)]
    asked = [labels.asked(rgb.shape[1], rgb.shape[0]) for rgb, labels in drawn]
    truth = [labels.where(those).as_detections() for (_, labels), those in zip(drawn, asked, strict=True)]
    ignored = [labels.boxes[~those] for (_, labels), those in zip(drawn, asked, strict=True)]
    images = [CocoImage(number, "", rgb.shape[1], rgb.shape[0]) for number, (rgb, _) in enumerate(drawn)]
    content = CocoSet.of(CLASSES, images, dict(enumerate(truth)))

    def accuracies(seen: Sequence[Detections], draws: Draws) -> dict[str, Estimates]:
        judged = zip(seen, truth, ignored, strict=True)
        counted = {
            number: without_ignored(found, boxes.boxes, others) for number, (found, boxes, others) in enumerate(judged)
        }
        return {"AP50": np.array([one.ap50 for one in resampled_precision(content, counted, CLASSES, draws)])}

    stretches = np.repeat(np.arange(SCENES), FRAMES_OF_A_SCENE)
    return Pictures(
        f"{len(drawn)} frames of {SCENES} scenes", [rgb for rgb, _ in drawn], stretches, EVALUATION, accuracies
    )


def _read(file: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    assert picture is not None, f"{file} cannot be decoded"
    return np.asarray(picture, np.uint8)


def one_model(zoo: Zoo) -> tuple[Variant, ...]:
    """The best model at every size of YOLOv4's zoo."""
    best = zoo.variants[-1]
    return tuple(replace(best, name=f"{best.model}-{size}", input_size=size) for size in SIZES)


def show(matrix: Matrix) -> None:
    width = max(len(variant.name) for variant in matrix.variants)
    print(f"  {'':{width}} " + "".join(f"{size:>15} " for size in matrix.sizes))
    for variant in matrix.variants:
        values = [matrix.cells.get((variant.name, size)) for size in matrix.sizes]
        print(f"  {variant.name:{width}} " + "".join(f"{'' if one is None else said(one):>15} " for one in values))
    print("  beyond as sized")
    for variant in matrix.variants:
        gained = [matrix.cells[variant.name, size] - matrix.as_sized(variant, size) for size in matrix.smaller(variant)]
        print(f"  {variant.name:{width}} " + "".join(f"{said(one, '+'):>15} " for one in reversed(gained)))
    for steps in range(1, len(matrix.sizes)):
        found = worth(matrix, steps)
        print(f"  {steps} smaller: keeps {said(found.kept)}, beyond as sized {said(found.gained, '+')}, ", end="")
        print(f"place between as sized (0) and effective accuracy (1) {said(found.place)}")


def said(estimates: Estimates, sign: str = "") -> str:
    return f"{estimates[0]:{sign}.3f} ± {estimates[1:].std():.3f}"


def studied(
    zoo: Zoo, ladders: Mapping[str, Sequence[Variant]], pictures: Pictures, options: argparse.Namespace
) -> Iterator[bool]:
    """Print the matrix of each ladder and metric; whether frames one size too small earn what they do as sized."""
    variants = {variant.name: variant for ladder in ladders.values() for variant in ladder}
    found = measure(zoo, variants.values(), pictures, pictures.draws(options.draws, options.seed))
    for metric, cells in found.items():
        for name, ladder in ladders.items():
            matrix = Matrix(ladder, cells)
            print(f"\n{metric} on {pictures.name}; {name}")
            show(matrix)
            gained = worth(matrix, 1).gained
            yield bool(gained[0] >= -2.0 * gained[1:].std())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100, help="of the bootstrap")
    parser.add_argument("--frames", type=int, default=120, help="of each video")
    parser.add_argument("--seed", type=int, default=0, help="of the draws and of the scenes")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{cpu_name()}, Python {platform.python_version()}, onnxruntime {metadata.version('onnxruntime')}, ", end="")
    print(f"pycocotools {metadata.version('pycocotools')}, OpenCV {cv2.__version__}")
    fastest, synthetic = load_zoo("yolo-fastest"), load_zoo("synthetic")
    real = {"the zoo": fastest.variants, "one model at every 32 pixels": one_model(fastest)}
    holds = list(studied(fastest, real, coco_pictures(fastest), options))
    for name in VIDEOS:
        holds += studied(fastest, real, video_pictures(fastest, name, options.frames), options)
    holds += studied(synthetic, {"the zoo": synthetic.variants}, scene_pictures(options.seed), options)
    print(f"\n{time.process_time():.0f} s of processor time")
    print(
        f"frames of the next smaller size earn what they do as sized, or more, in {sum(holds)} of {len(holds)} matrices"
    )
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
