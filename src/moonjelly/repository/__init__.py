"""Models at rest: the zoo (an ordered set of variants with profiles) and the repository (versions of models).

Formats and rules are in ``docs/zoo.md``. Everything here touches files; nothing here decides.
"""

from moonjelly.repository.cache import FileCache
from moonjelly.repository.places import clone_root, data_file, data_folders, zoo_names
from moonjelly.repository.sources import check_name, source_digest
from moonjelly.repository.store import ModelCard, ModelRepository
from moonjelly.repository.zoo import MEASURED, PARTIAL_SUFFIX, Zoo, load_zoo

__all__ = [
    "MEASURED",
    "PARTIAL_SUFFIX",
    "FileCache",
    "ModelCard",
    "ModelRepository",
    "Zoo",
    "check_name",
    "clone_root",
    "data_file",
    "data_folders",
    "load_zoo",
    "source_digest",
    "zoo_names",
]
