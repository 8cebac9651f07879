"""The model repository: versions appear whole, publishing is compare-and-set, nothing broken is handed out."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from moonjelly.errors import ZooError
from moonjelly.repository import ModelCard, ModelRepository, source_digest

CARD = ModelCard("darknet", 96, ("car", 'b"us\\'), metrics={"ap50": 0.25, "loss": 1e-7}, created="2026-11-20T10:00:00Z")


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(tmp_path / "models")


def test_an_empty_repository_has_nothing(repository: ModelRepository) -> None:
    assert repository.models() == ()
    assert repository.versions("net") == ()
    assert repository.serving("net") is None
    with pytest.raises(ZooError, match="model 'net' has no version 'serving'; it has none"):
        repository.load("net")


def test_what_is_published_can_be_loaded(repository: ModelRepository) -> None:
    assert repository.publish("net", CARD, "[net]", b"w1", files={"profiles/cpu/accuracy.txt": b"ModelSize"}) == 1
    source = repository.load("net")
    assert (source.name, source.architecture, source.definition, source.weights) == ("net", "darknet", "[net]", b"w1")
    assert source.classes == CARD.classes
    assert source.digest == source_digest("[net]", b"w1")
    card = repository.card("net", 1)
    assert replace(card, checksums={}) == CARD
    assert set(card.checksums) == {"model.cfg", "model.weights", "profiles/cpu/accuracy.txt"}
    assert (repository.path("net") / "profiles" / "cpu" / "accuracy.txt").read_bytes() == b"ModelSize"
    assert repository.models() == ("net",)
    repository.verify("net")


def test_a_version_follows_its_parent_and_can_be_rolled_back(repository: ModelRepository) -> None:
    repository.publish("net", CARD, "[net]", b"w1")
    assert repository.publish("net", replace(CARD, parent=1), "[net]", b"w2") == 2
    assert (repository.serving("net"), repository.versions("net")) == (2, (1, 2))
    repository.set_serving("net", 1)
    assert repository.load("net").weights == b"w1"
    assert repository.load("net", 2).weights == b"w2"
    # From the rolled-back version on, numbers still grow.
    assert repository.publish("net", replace(CARD, parent=1), "[net]", b"w3") == 3


def test_a_candidate_does_not_serve_until_it_is_pointed_at(repository: ModelRepository) -> None:
    repository.publish("net", CARD, "[net]", b"w1")
    repository.publish("net", replace(CARD, parent=1), "[net]", b"w2", serve=False)
    assert repository.serving("net") == 1
    repository.set_serving("net", 2)
    assert repository.serving("net") == 2


def test_who_derived_from_an_older_version_is_refused(repository: ModelRepository) -> None:
    repository.publish("net", CARD, "[net]", b"w1")
    repository.publish("net", replace(CARD, parent=1), "[net]", b"w2")
    with pytest.raises(ZooError, match="derived from 1, but 2 serves now"):
        repository.publish("net", replace(CARD, parent=1), "[net]", b"w3")
    with pytest.raises(ZooError, match="derived from nothing, but 2 serves now"):
        repository.publish("net", CARD, "[net]", b"w3")
    assert repository.versions("net") == (1, 2)


def test_of_many_publishers_at_once_exactly_one_wins(repository: ModelRepository) -> None:
    repository.publish("net", CARD, "[net]", b"w1")
    outcomes: list[str] = []
    barrier = threading.Barrier(6)

    def publish(number: int) -> None:
        barrier.wait()
        try:
            repository.publish("net", replace(CARD, parent=1), "[net]", bytes([number]))
            outcomes.append("published")
        except ZooError:
            outcomes.append("refused")

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["published"] + ["refused"] * 5
    assert repository.versions("net") == (1, 2)
    repository.verify("net", 2)


def test_what_a_crashed_publisher_left_is_neither_seen_nor_kept(repository: ModelRepository) -> None:
    repository.publish("net", CARD, "[net]", b"w1")
    left_over = repository.root / "net" / ".incoming-dead"
    left_over.mkdir()
    (left_over / "model.cfg").write_text("half")
    assert repository.versions("net") == (1,)
    repository.publish("net", replace(CARD, parent=1), "[net]", b"w2")
    assert not left_over.exists()


@pytest.mark.parametrize(("file", "content"), [("model.weights", b"w0"), ("model.cfg", b"[nte]")])
def test_a_file_that_is_not_what_was_published_is_refused(
    repository: ModelRepository, file: str, content: bytes
) -> None:
    repository.publish("net", CARD, "[net]", b"w1")
    (repository.path("net") / file).write_bytes(content)
    with pytest.raises(ZooError, match=rf"{file} has SHA-256 .* publish it again"):
        repository.load("net")
    with pytest.raises(ZooError, match="SHA-256"):
        repository.verify("net")


def test_missing_files_and_versions_are_named(repository: ModelRepository) -> None:
    repository.publish("net", CARD, "[net]", b"w1")
    with pytest.raises(ZooError, match="no version '7'; it has 1"):
        repository.load("net", 7)
    with pytest.raises(ZooError, match="no version '7'"):
        repository.set_serving("net", 7)
    (repository.path("net") / "model.weights").unlink()
    with pytest.raises(ZooError, match=r"'model\.weights' of version net/1 is missing"):
        repository.load("net")
    shutil.rmtree(repository.path("net"))
    with pytest.raises(ZooError, match="no version 'serving'"):
        repository.load("net")


def test_a_broken_card_or_pointer_is_named(repository: ModelRepository) -> None:
    repository.publish("net", CARD, "[net]", b"w1")
    card = repository.path("net") / "model.toml"
    card.write_text(card.read_text() + "\n[extra]\n")
    with pytest.raises(ZooError, match=r"model\.toml: unknown key 'extra'"):
        repository.card("net")
    (repository.root / "net" / "serving").write_text("../../etc")
    with pytest.raises(ZooError, match="not a version number"):
        repository.serving("net")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 129])
def test_names_that_would_leave_the_repository_are_refused(repository: ModelRepository, name: str) -> None:
    with pytest.raises(ZooError, match="model name"):
        repository.publish(name, CARD, "[net]", b"w1")


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "model.toml", "", "a/../../b"])
def test_files_that_would_leave_the_version_are_refused(repository: ModelRepository, path: str) -> None:
    with pytest.raises(ZooError, match="is not allowed in a model version"):
        repository.publish("net", CARD, "[net]", b"w1", files={path: b""})
    assert repository.versions("net") == ()


def test_a_root_that_cannot_be_written_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="cannot be written"):
        ModelRepository(tmp_path / "file").publish("net", CARD, "[net]", b"w1")
