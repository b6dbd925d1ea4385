"""Named experiments, one YAML file each.

A preset is called ``family/member`` after its file. It may extend another (``extends: base``),
whose keys it inherits. The list is read without the libraries that train.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from scorefield.config.document import read
from scorefield.errors import ConfigError, nearest

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of all presets; a file called ``base``, and one in a folder whose name begins with
    ``_``, is there to be extended only.
    """
    files = [file for file in _FOLDER.glob("[!_]*/*.yaml") if file.stem != "base"]
    return sorted(f"{file.parent.name}/{file.stem}" for file in files)


def families() -> list[str]:
    """The families of presets."""
    return sorted({name.partition("/")[0] for name in names()})


def matching(pattern: str) -> list[str]:
    """The names that a pattern as of a shell stands for, such as ``toy/m1*``; what is no pattern
    stands for itself.

    Raises:
        ConfigError: If there is none; names the nearest.
    """
    if not set("*?[") & set(pattern):
        return [pattern]
    found = [name for name in names() if fnmatchcase(name, pattern)]
    if not found:
        patterns = [f"{family}/*" for family in families()]
        raise ConfigError(f"no preset matches {pattern!r}; {_nearest(pattern, patterns)}")
    return found


def path(name: str) -> Path:
    """The file of a preset.

    Raises:
        ConfigError: If there is none of that name; names the nearest.
    """
    file = _FOLDER / f"{name}.yaml"
    if name.count("/") != 1 or ".." in name or not file.is_file():
        whole = name.removesuffix("*").removesuffix("/")
        if whole in families():
            one = next(known for known in names() if known.startswith(f"{whole}/"))
            raise ConfigError(
                f"{name!r} is a family of presets: name one, as in {one!r}, or sweep '{whole}/*'"
            )
        more = [] if "/" in name else families()
        raise ConfigError(f"there is no preset {name!r}; {_nearest(name, more)}")
    return file


def _nearest(word: str, more: list[str]) -> str:
    return nearest(word, [*more, *names()]) or f"the families are {', '.join(families())}"


def description(name: str) -> str:
    """What a preset is, in one line."""
    return str(read(path(name)).get("description", ""))


def family(file: Path) -> str | None:
    """The family of a preset's file; ``None`` for any other file."""
    return file.parent.name if file.parent.parent == _FOLDER else None
