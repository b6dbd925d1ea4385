"""Whether two configurations are those of one run."""

from __future__ import annotations

from pathlib import Path

from scorefield.config.config import Config
from scorefield.config.document import differences, flatten, shown
from scorefield.errors import RunError

# Null in runs that are older than the key; those of today that have it null are called so.
_YOUNGER = ("data.held_out_seed", "data.classes", "data.class_names")


def differences_of(*configs: Config) -> list[tuple[str, object, object]]:
    """The keys in which two configurations are of different runs, with their values."""
    one, other = (config.identity() for config in configs)
    found = differences(one, other)
    return [d for d in found if d[0] not in _YOUNGER or None not in d]


def check_same(folder: Path, there: Config, wanted: Config) -> None:
    """Raises RunError unless the configuration in a folder is the wanted one."""
    for key, old, new in differences_of(there, wanted)[:1]:
        if key.endswith(".sha256"):
            target = flatten(wanted.document())[key.removesuffix("sha256") + "target"]
            raise RunError(
                f"{folder} was made with another version of {target}: the file of the module has "
                f"changed since, and {key} with it; overwrite it, or give this one another name"
            )
        raise RunError(
            f"{folder} belongs to another configuration: {key} is {shown(old)} there and "
            f"{shown(new)} here; overwrite it, or give this one another name"
        )
