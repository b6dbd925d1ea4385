"""Patch sizes by noise level, in a file that other studies read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from scorefield.diagnostics import ScaleCalibration
from scorefield.errors import ConfigError
from scorefield.targets import PatchSizes

Choice = Literal["median", "mode", "monotone"]


def chosen_sizes(calibration: ScaleCalibration, choice: Choice) -> PatchSizes:
    """The sizes of a calibration that a local score is given."""
    match choice:
        case "median":
            return calibration.median
        case "mode":
            return calibration.mode
        case "monotone":
            return calibration.monotone


def scales_json(
    calibration: ScaleCalibration, choice: Choice, settings: Mapping[str, Any]
) -> bytes:
    """The content of a file with the sizes of a calibration, all three choices of them, and the
    table behind them.

    Arguments:
        calibration: The calibration.
        choice: The sizes that :func:`read_scales` gives.
        settings: What the numbers depend on.
    """
    names: tuple[Choice, ...] = ("median", "mode", "monotone")
    sizes: dict[str, Any] = {name: list(chosen_sizes(calibration, name).sizes) for name in names}
    content: dict[str, Any] = {
        "sigmas": list(calibration.sigmas),
        **sizes,
        "chosen": choice,
        "best": calibration.best.tolist(),
        "settings": {"by": calibration.by, "sizes": list(calibration.sizes), **settings},
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def read_scales(path: Path) -> PatchSizes:
    """The sizes that a file of ``analyze patches`` has chosen.

    Raises:
        ConfigError: If the file is not such a one.
        OSError: If it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a file of patch sizes: it is not JSON") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a file of patch sizes: it holds no names")
    sigmas = _numbers(path, content, "sigmas", (int, float))
    name = content.get("chosen")
    if name not in ("median", "mode", "monotone"):
        raise ConfigError(f"{path}: chosen must be one of median, mode and monotone, not {name!r}")
    sizes = _numbers(path, content, name, (int,))
    try:
        return PatchSizes(tuple(float(sigma) for sigma in sigmas), tuple(sizes))
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _numbers(
    path: Path, content: Mapping[str, Any], key: str, kinds: tuple[type, ...]
) -> list[Any]:
    values = content.get(key)
    if not isinstance(values, list) or not all(type(value) in kinds for value in values):
        what = "whole numbers" if kinds == (int,) else "numbers"
        raise ConfigError(f"{path}: {key} must be a list of {what}")
    return values
