"""The zoo: an ordered set of variants (model, input size, precision) with one profile per device kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from moonjelly import config, profiles
from moonjelly.errors import ConfigError, ProfileError, ZooError
from moonjelly.inference.protocol import ModelSource
from moonjelly.profiles import Profile, ProfileKey, ProfileOptions
from moonjelly.repository import places
from moonjelly.repository.sources import check_name, make_source, read_bytes, read_text
from moonjelly.repository.store import SERVING, ModelRepository
from moonjelly.types import DEFAULT_GROUP, Variant

MEASURED = "measured"
"""Folder in a zoo's directory for profiles made on this machine; they are preferred to the shipped ones."""

PARTIAL_SUFFIX = ".partial"
"""Ends the name of a profile that is being measured."""


class _FilesEntry(config.Options):
    architecture: Literal["darknet", "pth"] = "darknet"
    definition: str
    weights: str


class _RepositoryEntry(config.Options):
    repository: str
    version: str = SERVING


class _VariantEntry(config.Options):
    name: str
    model: str
    input_size: PositiveInt
    precision: Literal["fp32", "fp16"] = "fp32"


class _ZooFile(config.Options):
    format: Literal[1]
    name: str
    group: str = DEFAULT_GROUP
    classes: list[str] | str
    profile_key: ProfileKey | None = None
    models: dict[str, _FilesEntry | _RepositoryEntry]
    variants: list[_VariantEntry] = Field(min_length=1)


@dataclass(frozen=True)
class Zoo:
    """A zoo as its ``zoo.toml`` describes it; weights and profiles are read when asked for.

    Attributes:
        name: of the zoo.
        group: model group that it serves unless told otherwise.
        classes: class names by index.
        variants: in increasing accuracy and cost.
        directory: where ``zoo.toml`` lies.
        profile_key: what names a variant in profile files.
        entries: where each model's files are.
    """

    name: str
    group: str
    classes: tuple[str, ...]
    variants: tuple[Variant, ...]
    directory: Path
    profile_key: ProfileKey
    entries: dict[str, _FilesEntry | _RepositoryEntry]

    def index(self, name: str) -> int:
        """Position of the variant called ``name``.

        Raises:
            ZooError: there is none.
        """
        for position, variant in enumerate(self.variants):
            if variant.name == name:
                return position
        known = ", ".join(variant.name for variant in self.variants)
        raise ZooError(f"zoo '{self.name}' has no variant '{name}'; it has {known}")

    def variant(self, name: str) -> Variant:
        """The variant called ``name``; errors as in :meth:`index`."""
        return self.variants[self.index(name)]

    def source(self, model: str, *, with_weights: bool = True) -> ModelSource:
        """Read a model.

        Args:
            model: its name, as variants give it.
            with_weights: false for an executor that does not look at pixels: it runs a zoo whose weights are not here.

        Raises:
            ZooError: the model is unknown, or one of its files is missing or not what its checksum says.
        """
        entry = self.entries.get(model)
        if entry is None:
            raise ZooError(f"zoo '{self.name}' has no model '{model}'; it has {', '.join(self.entries)}")
        if not with_weights:
            return make_source(model, "none", "", b"", self.classes)
        if isinstance(entry, _RepositoryEntry):
            return ModelRepository(places.resolve(entry.repository, self.directory)).load(model, entry.version)
        what = f"of model '{model}' of zoo '{self.name}'"
        definition = read_text(f"definition {what}", self._file(entry.definition, what))
        weights = read_bytes(f"weights file {what}", self._file(entry.weights, what))
        return make_source(model, entry.architecture, definition, weights, self.classes)

    def kinds(self) -> tuple[str, ...]:
        """Device kinds that the zoo has profiles of."""
        found = {file.parent.name for folder in self._profile_folders() for file in folder.glob("*/accuracy.txt")}
        return tuple(sorted(name for name in found if not name.endswith(PARTIAL_SUFFIX)))

    def profile_directory(self, kind: str) -> Path:
        """Where the profile of a device kind lies: one measured on this machine, else the shipped one.

        A profile of the first few variants, as a trial run of the profiler leaves, does not hide a whole one.

        Raises:
            ProfileError: the zoo has none, or its accuracies cannot be read.
        """
        found = [folder / kind for folder in self._profile_folders() if (folder / kind / "accuracy.txt").is_file()]
        if found:
            return next((directory for directory in found if self.is_whole(directory)), found[0])
        known = ", ".join(self.kinds()) or "none"
        raise ProfileError(
            f"zoo '{self.name}' has no profile for device kind '{kind}' (it has {known}); "
            f"make one with 'moonjelly profile --zoo {self.name}'"
        )

    def profile(self, kind: str, options: ProfileOptions = profiles.DEFAULT_OPTIONS) -> Profile:
        """The profile of a device kind.

        Raises:
            ProfileError: the zoo has none, it has holes, or its accuracies contradict the order of the variants.
        """
        profile = profiles.read_profile(self.profile_directory(kind), self.variants, self.profile_key, options)
        pairs = zip(self.variants, self.variants[1:], profile.accuracy, profile.accuracy[1:], strict=False)
        for before, after, low, high in pairs:
            if high < low:
                raise ProfileError(
                    f"zoo '{self.name}', kind '{kind}': '{after.name}' is less accurate ({high:g}) than "
                    f"'{before.name}' ({low:g}) before it; order the variants by accuracy or leave one out"
                )
        return profile

    def is_whole(self, profile_directory: Path) -> bool:
        """Whether a profile knows every variant of the zoo.

        Raises:
            ProfileError: its accuracies cannot be read.
        """
        known = profiles.read_accuracy(profile_directory / "accuracy.txt")
        return all(profiles.variant_key(variant, self.profile_key) in known for variant in self.variants)

    def _profile_folders(self) -> tuple[Path, Path]:
        return self.directory / MEASURED, self.directory

    def verify(self) -> None:
        """Read every model and every profile.

        Raises:
            ZooError: or :class:`ProfileError`: the first thing that is missing or broken.
        """
        for model in self.entries:
            self.source(model)
        for kind in self.kinds():
            self.profile(kind)

    def _file(self, path: str, what: str) -> Path:
        try:
            return places.resolve(path, self.directory)
        except ZooError as fault:
            raise ZooError(f"a file {what} is missing: {fault}") from None


def load_zoo(path_or_name: str | Path, *, search: Sequence[Path] | None = None) -> Zoo:
    """Read a zoo's ``zoo.toml``.

    Args:
        path_or_name: a directory (or its ``zoo.toml``), else a name below ``search``.
        search: folders that hold zoos by name; ``None``: ``profiles`` in the clone.

    Raises:
        ZooError: there is no such zoo, or its file has unknown keys, impossible values or contradicts itself.
    """
    directory = _find(path_or_name, places.zoo_folders() if search is None else search)
    file = directory / "zoo.toml"
    try:
        content = config.load(_ZooFile, file=file)
    except ConfigError as fault:
        raise ZooError(f"{file}: {fault}") from None
    try:
        return _check(content, directory)
    except ZooError as fault:
        raise ZooError(f"{file}: {fault}") from None


def _find(path_or_name: str | Path, search: Sequence[Path]) -> Path:
    path = Path(path_or_name)
    if path.name == "zoo.toml":
        path = path.parent
    candidates = [path, *(folder / path for folder in search if not path.is_absolute())]
    for candidate in candidates:
        if (candidate / "zoo.toml").is_file():
            return candidate.resolve()
    raise ZooError(
        f"no zoo '{path_or_name}': no zoo.toml in {', '.join(map(str, candidates))}; "
        f"there are {', '.join(places.zoo_names(search)) or 'none'}"
    )


def _check(content: _ZooFile, directory: Path) -> Zoo:
    check_name("zoo", content.name)
    for model in content.models:
        check_name("model", model)
    variants = tuple(
        Variant(check_name("variant", entry.name), entry.model, entry.input_size, entry.precision)
        for entry in content.variants
    )
    for variant in variants:
        if variant.model not in content.models:
            known = ", ".join(content.models) or "none"
            raise ZooError(f"variant '{variant.name}' names the model '{variant.model}'; [models] has {known}")
    twice = [name for name, count in Counter(variant.name for variant in variants).items() if count > 1]
    if twice:
        raise ZooError(f"variant '{twice[0]}' is there twice")
    sizes_are_unique = len({variant.input_size for variant in variants}) == len(variants)
    one_model = len({variant.model for variant in variants}) == 1
    key = content.profile_key or ("input_size" if one_model and sizes_are_unique else "variant")
    if key == "input_size" and not sizes_are_unique:
        raise ZooError("profile_key = 'input_size' needs variants of different input sizes; use 'variant'")
    return Zoo(
        content.name, content.group, _classes(content, directory), variants, directory, key, dict(content.models)
    )


def _classes(content: _ZooFile, directory: Path) -> tuple[str, ...]:
    if isinstance(content.classes, str):
        file = places.resolve(content.classes, directory)
        names = tuple(line.strip() for line in read_text("list of class names", file).splitlines() if line.strip())
    else:
        names = tuple(content.classes)
    if not names:
        raise ZooError("classes is empty; name at least one class")
    return names
