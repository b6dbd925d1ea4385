"""Finding a run by its preset or a part of its path."""

from __future__ import annotations

from pathlib import Path

from scorefield.errors import RunError, nearest
from scorefield.runs.run import CONFIG

_LISTED = 6
_OF_MODELS = (".json", ".yaml", ".safetensors", ".pt", ".pth")
"""The ends of the names of files, one of which every folder of a model has."""


def folders(root: Path) -> list[Path]:
    """The folders of all runs in ``root/dataset/model/seed``, by name."""
    return sorted(file.parent for file in root.glob(f"*/*/seed*/{CONFIG}"))


def written(folder: Path) -> float:
    """When a run was last trained, in seconds since the epoch."""
    files = (folder / "metrics.csv", folder / "checkpoints")
    return max(path.stat().st_mtime for path in (folder / CONFIG, *files) if path.exists())


def find_run(name: str, root: Path) -> Path:
    """The folder of a run: a path, or the one run below ``root`` whose path has ``name`` in it as
    whole names, or else as any part; of several seeds of one model, the newest.

    What is no run's, but another file or folder, or is the name of something else, is returned as
    it is; of a folder without files of a model, such as the data of a run that is named after them,
    only where no run has that name.

    Raises:
        RunError: If several models have the name, or none, but others resemble it.
    """
    path = Path(name)
    inside, there = path.is_relative_to(root), path.exists()
    elsewhere = there and not inside and not _holds_data(path)
    if elsewhere or (path / CONFIG).is_file() or (":" in name and not there):
        return path
    part = (path.relative_to(root) if inside else path).as_posix()
    known = {folder.relative_to(root).as_posix(): folder for folder in folders(root)}
    found = [key for key in known if f"/{part}/" in f"/{key}/"]
    whole = bool(found)
    if not whole and not there:
        found = [key for key in known if part in key]
    if not found:
        near = nearest(part, [*known, *{key.rpartition("/")[0] for key in known}])
        if near and not there:
            raise RunError(f"there is no run {name!r} in {root}; {near}")
        return path
    models = sorted({key.rpartition("/")[0] for key in found})
    if len(models) > 1:
        more = f" and {len(models) - _LISTED} more" if len(models) > _LISTED else ""
        raise RunError(
            f"{name!r} is part of the paths of several runs: {', '.join(models[:_LISTED])}{more}; "
            "give more of the path"
        )
    newest = max((known[key] for key in found), key=written)
    if len(found) > 1:
        print(f"{newest} is the newest of {len(found)} runs of {models[0]}", flush=True)
    elif not whole:
        print(f"{newest} is the one run with {part!r} in its path", flush=True)
    return newest


def _holds_data(path: Path) -> bool:
    return path.is_dir() and not any(file.suffix in _OF_MODELS for file in path.iterdir())
