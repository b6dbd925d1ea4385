"""From a preset or a file, and overrides, to a configuration."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scorefield.config import presets, schema
from scorefield.config.config import Config
from scorefield.config.custom import with_hashes
from scorefield.config.data import ArraysData, ImagesData, LatentsData
from scorefield.config.document import (
    differences,
    flatten,
    merge,
    parse_overrides,
    read,
    shown,
)
from scorefield.errors import ConfigError, section_of

ENDINGS = (".yaml", ".yml")
"""How the name of a file ends, in place of that of a preset."""

# These do not decide what is trained.
_LABELS = ("name", "description")
# What a set of data is, besides how it is seen.
_OF_A_SET = {"data.kind", "data.path", "data.dataset", "data.sha256"}
_GIVEN = ("path", "dataset", "hub", "size", "channels", "classes", "sha256")
_OWN = ArraysData | ImagesData | LatentsData
_FORM = ("crop", "filter", "background")


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a preset or a file, with overrides.

    A file may extend a preset (``extends: toy/m0``), a file next to it (``extends: base``), one at
    a relative path (``extends: ../base.yaml``), or several, the later on top of the earlier.
    Overrides that change a value add to the name what they change, so that the runs of two
    configurations never share a directory; those of data of the user's own are kept under the name
    of the set.
    Where a layer changes the kind of a section, settings from below that the new kind lacks are
    left out; those of its own are refused.
    What is not given of data in a file or folder is filled in as it is found there.
    Classes of the user's own may be imported, and are recorded with the hashes of their files.

    Arguments:
        name_or_path: ``family/member``, or the path of a YAML file.
        overrides: Changes ``a.b=c``; the value is YAML.

    Raises:
        ConfigError: If there is no such preset or file, or something in it is wrong.
    """
    source = str(name_or_path)
    document, layer = _document(source), parse_overrides(overrides)
    config = schema.validate(merge(document, layer, schema.keys), source, trust_code=True)
    config = _settled(config, source)
    if layer and "name" not in layer:
        preset = schema.validate(document, source)
        own = _own_set(preset, config)
        suffix = _suffix(preset.identity(), config.identity(), flatten(layer), own is not None)
        family, _, member = config.name.partition("/")
        config = config.model_copy(update={"name": f"{own or family}/{member}{suffix}"})
    plain = config.document()
    hashed = with_hashes(plain)
    return config if hashed == plain else schema.validate(hashed, source, trust_code=True)


def _document(source: str) -> dict[str, Any]:
    """The document of a preset or a file, on top of all that it extends."""
    path = Path(source) if source.endswith(ENDINGS) else presets.path(source)
    layers = _layers(path, source, ())
    family = next(filter(None, (presets.family(path) for path, _ in layers[::-1])), "runs")
    merged: dict[str, Any] = {}
    for k, (_, layer) in enumerate(layers):
        own = k == len(layers) - 1
        plain = {key: value for key, value in layer.items() if own or key not in _LABELS}
        merged = merge(merged, plain, schema.keys)
    return {"name": f"{family}/{Path(source).stem}", **merged}


def _layers(path: Path, source: str, above: tuple[str, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """The files that a file extends, from the first to itself; of several, the later ones come on
    top of the earlier.
    """
    # Other than Path.resolve, it takes a loop of links.
    real = os.path.realpath(path)
    if real in above:
        raise ConfigError(f"{source} extends itself: {path} comes up twice")
    layer = read(path)
    given = layer.pop("extends", None)
    parents = given if isinstance(given, list) else [] if given is None else [given]
    found = [
        one for each in parents for one in _layers(_extended(path, each), source, (*above, real))
    ]
    return [*found, (path, layer)]


def _extended(path: Path, parent: object) -> Path:
    if not isinstance(parent, str) or not parent:
        raise ConfigError(f"{path}: extends is {shown(parent)}, it must be a preset or a file")
    if parent.endswith(ENDINGS):
        return path.parent / parent
    if "/" in parent:
        return presets.path(parent)
    return path.with_name(f"{parent}.yaml")


def _settled(config: Config, source: str) -> Config:
    """The configuration with what is found in the file or folder of its data, and in the run of its
    teacher.
    """
    data, teacher, document = config.data, config.objective.teacher, config.document()
    if isinstance(data, _OWN) and data.path is not None:
        with section_of("data", keys=data):
            match data:
                case ImagesData():
                    found = _of_images(data)
                case LatentsData():
                    found = _of_latents(data)
                case _:
                    found = _of_points(data)
        document["data"] |= found
    # With both recorded nothing is looked up: a run can be read where its teacher is not.
    if teacher is not None and teacher.run is not None and None in (teacher.step, teacher.sha256):
        from scorefield.config.teacher import settled

        document["objective"]["teacher"] |= settled(teacher)
    if document == config.document():
        return config
    return schema.validate(document, source, trust_code=True)


def _of_images(data: ImagesData) -> dict[str, Any]:
    """What is found of images; a known set that is not packed needs nothing of it."""
    from scorefield.data.known import settle

    settled = settle(**{key: getattr(data, key) for key in _GIVEN + _FORM})
    if settled.found is None and data.dataset is not None:
        return {}
    found = settled.keys()
    return found if data.class_names is None else found | {"class_names": data.class_names}


def _of_latents(data: LatentsData) -> dict[str, Any]:
    from scorefield.data.latents import LatentSource

    source = LatentSource(**data.settings())
    found = {"dataset": source.name, "shape": source.pack.shape, "classes": source.classes}
    names = source.class_names or source.pack.classes
    return {**found, "class_names": names, "sha256": source.pack.sha256}


def _of_points(data: ArraysData) -> dict[str, Any]:
    if data.shape is not None:
        return {}
    from scorefield.data.point_files import PointFile

    found = PointFile(data.path, data.dataset, None, data.classes, data.held_out_seed)
    return {"dataset": found.name, "shape": found.shape, "classes": found.classes}


def _own_set(preset: Config, config: Config) -> str | None:
    """The name of the user's own data where a preset is for others."""
    data = config.data
    if not isinstance(data, _OWN) or data.dataset is None:
        return None
    return None if getattr(preset.data, "dataset", None) == data.dataset else data.dataset


_LONGEST, _NAMED = 80, re.compile(r"[\w.+-]+")
"""The longest suffix that is readable, and the values that can be part of the name of a folder."""


def _suffix(
    preset: Mapping[str, Any],
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    own: bool = False,
) -> str:
    """What the overrides ``given`` change, as in ``_train.steps=1500,lr=0.01``: each key as short
    as no other key is called. Where that is not all that distinguishes the run from others, as with
    data of the user's ``own``, a hash of all changes is at the end.
    """
    changes = [
        (key, value) for key, _, value in differences(preset, config) if key not in ("name", "seed")
    ]
    if not changes:
        return ""
    now, keys = flatten(config), flatten(preset).keys() | flatten(config).keys()
    changed = {key for key, _ in changes}
    parts, whole = [], not own
    for key, value in given.items():
        if own and key in _OF_A_SET:
            continue
        if not any(f"{other}.".startswith(f"{key}.") for other in changed):
            continue
        text = _plain(now.get(key, value))
        # Of a list in a list it is not said where each of them ends.
        whole &= _NAMED.fullmatch(text) is not None and not _nested(now.get(key, value))
        parts.append(f"{_shortest(key, keys)}={text}")
    text = re.sub(r"[^\w.=+,-]", "", ",".join(sorted(parts)))
    if text and whole and len(text) <= _LONGEST:
        return f"_{text}"
    digest = hashlib.sha256(json.dumps(sorted(changes)).encode()).hexdigest()[:8]
    text = text[:_LONGEST].rstrip(".=+,-_")
    return f"_{text}_{digest}" if text else f"_{digest}"


def _shortest(key: str, keys: Iterable[str]) -> str:
    """The shortest end of a dotted key that is the end of no other."""
    names = key.split(".")
    ends = [".".join(names[k:]) for k in range(len(names) - 1, -1, -1)]
    others = [f".{other}" for other in keys if other != key]
    return next((e for e in ends if not any(o.endswith(f".{e}") for o in others)), key)


def _nested(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(v, list | str) for v in value)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return "-".join(map(_plain, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
