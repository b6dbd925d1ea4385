"""Defaults are declared once: those of a section are those of what it builds."""

import dataclasses
import gzip
import inspect
import json
import subprocess
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest
from pydantic import BaseModel

from scorefield import DenoisingScoreMatching, Langevin, Objective, ReverseDiffusion
from scorefield.config import presets, schema
from scorefield.config.base import build, defaults
from scorefield.config.config import Config
from scorefield.config.document import flatten
from scorefield.config.objective import ObjectiveSection
from scorefield.config.resolve import load_config
from scorefield.objectives.denoising import NoiseLaw


def sections(model: type[BaseModel] = Config) -> set[type[BaseModel]]:
    """All sections that a configuration can have."""
    inner = [m for field in model.model_fields.values() for m in schema._models(field.annotation)]
    return {model}.union(*map(sections, inner))


BUILDING = sorted((s for s in sections() if s.builds), key=lambda s: s.__name__)

# What a document must give.
GIVEN = {
    "weight": 1.0, "dataset": "mnist", "positions": [[0.5]], "std": 0.1, "ratio": 1.0,
    "max_weight": 1.0, "shape": [2],
}  # fmt: skip


def constructor(section):
    module, _, name = section.builds.partition(":")
    return attrgetter(name)(import_module(module))


def parameters(section):
    """The arguments of a constructor that are plain values, and their defaults."""
    found = constructor(section)
    call = found.__init__ if inspect.isclass(found) else found
    return {
        name: parameter.default
        for name, parameter in inspect.signature(call).parameters.items()
        if not (dataclasses.is_dataclass(parameter.default) or callable(parameter.default))
        or parameter.default is inspect.Parameter.empty
    }


def least(section):
    """A section of which no more is given than must be."""
    known = defaults(section.builds)
    open_keys = [k for k, f in section.model_fields.items() if f.is_required() and k not in known]
    document = {key: GIVEN[key] for key in open_keys if key in GIVEN}
    if "kind" in open_keys:
        document["kind"] = inspect.get_annotations(section, eval_str=True)["kind"].__args__[0]
    if "balance" in section.model_fields:
        document["weight"] = GIVEN["weight"]
    return section.model_validate(document), document


def test_there_are_sections_of_every_sort():
    assert len(BUILDING) > 35


@pytest.mark.parametrize("section", BUILDING, ids=lambda s: s.__name__)
def test_a_default_of_a_section_is_that_of_its_constructor(section):
    found, document = least(section)
    settings, arguments = found.settings(), parameters(section)
    for name in settings.keys() & arguments.keys() - document.keys():
        assert settings[name] == arguments[name], name
        assert type(settings[name]) is type(arguments[name]) or name in ("fir_kernel", "radii")


def test_defaults_from_other_constructors():
    objective = ObjectiveSection.model_validate({})
    dropout = inspect.signature(Objective).parameters["label_dropout"].default
    assert objective.label_dropout == dropout
    assert build(objective.law, "law", NoiseLaw) == DenoisingScoreMatching(sigma_data=1.0).law
    sampler = load_config(
        "toy/m0", ["sampler={kind: predictor_corrector, corrector: langevin}"]
    ).sampler
    assert sampler.build_predictor() == ReverseDiffusion()
    assert sampler.build_corrector() == Langevin()


def test_the_resolved_presets_are_those_of_the_first_version():
    file = Path(__file__).parents[1] / "reference" / "presets.json.gz"
    recorded = json.loads(gzip.decompress(file.read_bytes()))
    assert recorded.keys() <= set(presets.names())
    for name, document in recorded.items():
        now = flatten(load_config(name).document())
        del document["description"]  # words, not settings
        # Whether blocks are computed again is the engine's.
        then = {k: v for k, v in flatten(document).items() if not k.endswith(".checkpointing")}
        assert {key: now[key] for key in then} == then, name
        assert (
            flatten(schema.validate(document | {"description": ""}, name).document()).items()
            >= then.items()
        )


def test_validation_imports_no_torch():
    script = (
        "import sys; from scorefield.config.resolve import load_config; load_config('toy/m4'); "
        "load_config('digits/ncsnpp_ve'); load_config('atoms/consistency'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
