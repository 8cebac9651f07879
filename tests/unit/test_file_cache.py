"""The artifact cache on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from moonjelly.repository import FileCache


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return b"artifact"


def test_an_artifact_is_made_once_for_all_caches_of_a_folder(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(3):
        assert FileCache(tmp_path).get("key", make) == b"artifact"
    assert make.calls == 1
    FileCache(tmp_path).get("other key", make)
    assert make.calls == 2


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 64])
def test_a_broken_entry_is_made_anew(tmp_path: Path, content: bytes) -> None:
    make = Maker()
    FileCache(tmp_path).get("key", make)
    next(tmp_path.iterdir()).write_bytes(content)
    assert FileCache(tmp_path).get("key", make) == b"artifact"
    assert FileCache(tmp_path).get("key", make) == b"artifact"
    assert make.calls == 2


def test_a_folder_that_cannot_be_written_costs_the_caching_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert FileCache(tmp_path / "file").get("key", Maker()) == b"artifact"


def test_the_folder_is_the_user_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    FileCache().get("key", Maker())
    assert len(list((tmp_path / "moonjelly").iterdir())) == 1
