"""Fetch the public videos, images, weights and traces.

What ``download_data.sh`` runs. Standard library only, so that it works before anything is installed. Files are
written beside their name, resumed where they stopped, checked against their SHA-256 and then renamed; a file that is
already right is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moonjelly.errors import MoonjellyError

MANIFEST = Path(__file__).with_name("downloads.tsv")
RAW_HOME = "https://raw.githubusercontent.com"
RELEASE_HOME = "https://github.com"
YOLOV4_PATH = "AlexeyAB/darknet/releases/download/darknet_yolo_v3_optimal/yolov4.weights"
YOLOV4_TARGET = "models/darknet/yolov4.weights"
YOLOV4_BYTES = 257_717_640
YOLOV4_SHA256 = "e8a4f6c62188738d86dc6898d82724ec0964d0eb9d2ae0f0a9d53d65d108d562"
"""Of the release's file, as projects that fetch it from there record it."""
_CHUNK = 1 << 18


_GIVE_UP_AFTER = 3
"""Files in a row whose home cannot be reached: the others' cannot be either, and each may take the time-out."""
_OFFLINE = (
    "Without a network, fetch the files on another machine and copy its data folder here, or name a mirror with "
    "--home; what is here is kept"
)


class DownloadError(MoonjellyError):
    """A file that could not be fetched or is not what it should be."""


class UnreachableError(DownloadError):
    """The file's home does not answer."""


@dataclass(frozen=True)
class Item:
    """One file: where it goes, what it must be, where it comes from."""

    path: str
    size: int
    sha256: str
    url: str


def read_manifest(home: str) -> list[Item]:
    """The files of ``downloads.tsv``, served below ``home`` as ``<repository>/<commit>/<path>``."""
    items = []
    for line in MANIFEST.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        path, size, digest, repository, commit, there = line.split("\t")
        items.append(Item(path, int(size), digest, f"{home}/{repository}/{commit}/{there}"))
    return items


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(item: Item, directory: Path, timeout_s: float = 30.0) -> str:
    """Fetch one file, resuming a partial one; returns what was done, in a word.

    Raises:
        DownloadError: unreachable, cut off, or the wrong content (what can be resumed is kept).
    """
    target = directory / item.path
    if target.exists() and _is_right(target, item):
        return "present"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    resumed = partial.exists() and 0 < partial.stat().st_size < item.size
    if not (partial.exists() and partial.stat().st_size == item.size):
        _transfer(item, partial, partial.stat().st_size if resumed else 0, timeout_s)
    if not _is_right(partial, item):
        got = f"{partial.stat().st_size} bytes, SHA-256 {sha256_of(partial)}"
        partial.unlink()
        raise DownloadError(
            f"{item.url} is not the file it should be: got {got}; expected {item.size} bytes, SHA-256 "
            f"{item.sha256}. It was removed; run this again"
        )
    partial.replace(target)
    return "resumed" if resumed else "fetched"


def _transfer(item: Item, partial: Path, start: int, timeout_s: float) -> None:
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(item.url, headers=headers)  # noqa: S310 - homes are http(s), checked in main
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            appends = start > 0 and answer.status == 206
            with partial.open("ab" if appends else "wb") as file:
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
    except urllib.error.HTTPError as fault:
        raise DownloadError(f"{item.url} answered {fault.code} {fault.reason}; is the home right?") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as fault:
        raise UnreachableError(f"{item.url} cannot be reached ({getattr(fault, 'reason', fault)})") from None
    if partial.stat().st_size < item.size:
        raise DownloadError(f"{item.url} was cut off at {partial.stat().st_size} of {item.size} bytes; run this again")


def _is_right(path: Path, item: Item) -> bool:
    if path.stat().st_size != item.size:
        return False
    return sha256_of(path) == item.sha256


def write_checksums(directory: Path, items: Sequence[Item]) -> None:
    """``SHA256SUMS`` of the files that are there, as ``sha256sum -c`` reads it."""
    present = [item for item in items if (directory / item.path).exists()]
    (directory / "SHA256SUMS").write_text(
        "".join(f"{item.sha256}  {item.path}\n" for item in present), encoding="utf-8"
    )


def fetch_all(items: Sequence[Item], directory: Path) -> int:
    """Fetch every item, say what happened to each, and return how many are missing."""
    missing = unreachable = 0
    for number, item in enumerate(items, start=1):
        prefix = f"[{number}/{len(items)}] {item.path} ({item.size / 1e6:.1f} MB)"
        try:
            print(f"{prefix}: {fetch(item, directory)}", flush=True)
            unreachable = 0
        except DownloadError as fault:
            missing += 1
            unreachable = unreachable + 1 if isinstance(fault, UnreachableError) else 0
            print(f"{prefix}: {fault}", file=sys.stderr, flush=True)
        if unreachable == _GIVE_UP_AFTER and number < len(items):
            missing += sum(not (directory / other.path).exists() for other in items[number:])
            print("the others were not tried", file=sys.stderr, flush=True)
            break
    if unreachable:
        print(_OFFLINE, file=sys.stderr, flush=True)
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of ``download_data.sh``; the exit status is 0 when everything is there."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="download_data.sh", description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=root / "data", help="folder to fill (default: data/ in the clone)")
    parser.add_argument(
        "--only", default="", metavar="PREFIX", help="only paths that begin so, e.g. models/ or traces/"
    )
    parser.add_argument("--yolov4", action="store_true", help="also YOLOv4's weights (258 MB)")
    parser.add_argument("--home", default=RAW_HOME, help="mirror that serves <repository>/<commit>/<path>")
    parser.add_argument(
        "--release-home", default=RELEASE_HOME, help="mirror of the release that holds YOLOv4's weights"
    )
    options = parser.parse_args(arguments)
    for home in (options.home, options.release_home):
        if not home.startswith(("http://", "https://")):
            parser.error(f"'{home}' is not an http(s) address")
    manifest = read_manifest(options.home)
    items = [item for item in manifest if item.path.startswith(options.only)]
    if not items:
        parser.error(f"no file begins with '{options.only}'; try videos/, traces/, models/ or coco/")
    yolov4 = Item(YOLOV4_TARGET, YOLOV4_BYTES, YOLOV4_SHA256, f"{options.release_home}/{YOLOV4_PATH}")
    if options.yolov4:
        items.append(yolov4)
    missing = fetch_all(items, options.out)
    write_checksums(options.out, [*manifest, yolov4])
    print(f"{len(items) - missing} of {len(items)} files are in {options.out}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
