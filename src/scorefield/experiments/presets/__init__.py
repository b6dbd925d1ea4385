"""Named experiments, one YAML file each.

A preset is called ``family/member`` after its file. It may extend another (``extends: base``),
whose keys it inherits. The list is read without the libraries that train.
"""

from __future__ import annotations

from pathlib import Path

from scorefield.experiments.document import read
from scorefield.experiments.errors import ConfigError, hint

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of all presets; a file called ``base``, and one in a folder whose name begins with
    ``_``, is there to be extended only.
    """
    files = [file for file in _FOLDER.glob("[!_]*/*.yaml") if file.stem != "base"]
    return sorted(f"{file.parent.name}/{file.stem}" for file in files)


def path(name: str) -> Path:
    """The file of a preset.

    Raises:
        ConfigError: If there is none of that name; tells the nearest.
    """
    file = _FOLDER / f"{name}.yaml"
    if name.count("/") != 1 or ".." in name or not file.is_file():
        raise ConfigError(f"there is no preset {name!r}; {hint(name, names(), 'the presets')}")
    return file


def description(name: str) -> str:
    """What a preset is, in one line."""
    return str(read(path(name)).get("description", ""))


def family(file: Path) -> str | None:
    """The family of a preset's file; ``None`` for any other file."""
    return file.parent.name if file.parent.parent == _FOLDER else None
