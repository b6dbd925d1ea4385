import copy
import math
from functools import reduce
from operator import getitem
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorefield.config import presets
from scorefield.config.document import differences, dump, parse
from scorefield.config.resolve import load_config
from scorefield.config.schema import validate
from scorefield.config.sde import Process
from scorefield.errors import ConfigError


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_described_and_survives_writing_and_reading(name):
    config = load_config(name)
    assert config.name == name
    assert config.description == presets.description(name) != ""
    # A configuration of the user's own is trusted.
    assert validate(parse(dump(config.document()), "here"), "here", trust_code=True) == config


@pytest.mark.parametrize("family", ["toy", "digits"])
def test_the_members_of_a_family_differ_in_field_and_objective_only(family):
    base = load_config(f"{family}/m0").document()
    for member in ("m1", "m2", "m3", "m4"):
        changed = differences(base, load_config(f"{family}/{member}").document())
        sections = {key.partition(".")[0] for key, _, _ in changed}
        assert sections <= {"name", "description", "field", "objective"}


@pytest.mark.parametrize("name", presets.names())
def test_the_process_of_a_preset_fits_its_data(name):
    config = load_config(name)
    if config.data.kind == "ring":
        spread = math.sqrt(config.data.radius**2 / 2 + config.data.std**2)
        assert config.sde.sigma_max > 10 * spread
        assert config.sde.sigma_min < 0.1 * config.data.std


PROCESSES = [
    kind
    for section in get_args(get_args(Process)[0])
    for kind in get_args(section.model_fields["kind"].annotation)
]
WRONG = [
    ("optim.lrr=1", "no key 'optim.lrr'; the nearest is 'lr'"),
    ("optimm.lr=1", "the nearest is 'optim'"),
    ("field.network.hiden=3", "'field.network.hiden'; the nearest is 'hidden'"),
    ("objective.asymetry.weight=1", "the nearest is 'asymmetry'"),
    ("objective.asymmetry.wieght=1", "the nearest is 'weight'"),
    ("sde.sigma_mn=1", "the nearest is 'sigma_min'"),
    ("optim.steps=100", "no key 'optim.steps'; the nearest is 'train.steps'"),
    ("steps=100", "no key 'steps'; the nearest is 'train.steps'"),
    ("train.lr=1", "no key 'train.lr'; the nearest is 'optim.lr'"),
    ("optim.stepps=1", "no key 'optim.stepps'; the nearest is 'train.steps'"),
    ("hiden=3", "no key 'hiden'; the nearest is 'field.network.hidden'"),
    ("zzz=1", "the sections are name, description, data"),
    ("optim.lr=abc", "optim.lr is 'abc', it must be a number"),
    ("optim.lr=true", "optim.lr is true, it must be a number"),
    ("optim.lr=-1", "optim.lr is -1, it must be greater than 0"),
    ("optim.lr=.nan", "it must be finite"),
    ("optim.lr=.inf", "it must be finite"),
    ("optim.betas=[0.9]", "optim.betas.1 is missing"),
    ("optim.betas=0.9", "it must be a list"),
    ("optim.betas=[0.9, 1.0]", "optim.betas.1 is 1.0, it must be below 1"),
    ("optim.decay=exp", "optim.decay is 'exp', it must be 'constant', 'linear'"),
    ("train.steps=1.5", "train.steps is 1.5, it must be an integer"),
    ("train.steps=true", "train.steps is true, it must be an integer"),
    ("train.steps=0", "train.steps is 0, it must be at least 1"),
    ("train.ema_decay=1", "must be below 1"),
    ("sde.sigma_min=-1", "sde.sigma_min is -1, it must be at least 1e-12"),
    ("sde.sigma_min=50", "sde.sigma_min is 50.0, it must be below sde.sigma_max"),
    ("sde.kind=emd", f"must be one of {', '.join(PROCESSES)}; the nearest"),
    ("sde.kind=null", "the key sde.kind is missing"),
    ("eval.nfes=[8, 0]", "eval.nfes.1 is 0, it must be at least 1"),
    ("eval.nfes=[]", "a list of at least 1"),
    ("field.network={kind: minimal_resnet, channels: 20}", "channels is 20, it must be a multiple"),
    ("field.network={kind: minimal_unet, normalization: batch}", "normalization is 'batch'"),
    ("data.radius=-4", "data.radius is -4"),
    ("data.modes=1000000000", "it must be at most 10000"),
    ("train.steps=1" + "0" * 30, "it must be at most 1000000000000"),
    ("data.radius=1e300", "data.radius is 1e+300, it must be at most 1e+06"),
    ("data.std=1e-300", "data.std is 1e-300, it must be at least 1e-06"),
    ("field.network.kind=unet", "data of kind 'ring' needs 'mlp'"),
    ("field.network.embedding=5", "a multiple of 2"),
    ("field.sigma_data=0", "field.sigma_data is 0"),
    ("objective.boundary.weight=1", "needs a field of kind 'hybrid'"),
    ("objective.asymmetry.probes=2", "objective.asymmetry.weight is missing"),
    ("objective.cycles.points=64", "either a weight or a balance"),
    ("objective.cycles={weight: 1, neighbours: 200}", "must be below objective.cycles.points"),
    ("objective.cycles={weight: 1, neighbours: 512, points: 600}", "train.batch_size, which"),
    ("eval.samples=3", "eval.samples is 3, it must be at least 4"),
    ("objective.loops={weight: 1, quadrature: simson}", "objective.loops.quadrature"),
    ("sampler={churn_min: 2.0, churn_max: 1.0}", "sampler.churn_max is 1.0"),
    ("seed=null", "seed is null, it must be an integer"),
    ("seed=-1", "seed is -1, it must be at least 0"),
    ("seed=" + 23 * "9", "it must be below 9223372036854775808"),
    ("eval.seed=-1", "eval.seed is -1, it must be at least 0"),
    ("eval.seed=9223372036854775808", "it must be below 9223372036854775808"),
    ("seed.x=1", "seed is {'x': 1}"),
    ("optim=3", "optim is 3, it must be a mapping"),
    ("name=../../etc", "name"),
    ("sde.prior_mean=high", "sde.prior_mean is 'high', it must be a number, or a list"),
    ("sde.prior_mean=[]", "sde.prior_mean is [], it must be a number, or a list"),
    ("sde.prior_mean=[0.5, .nan]", "it must be a number, or a list of one a channel"),
    ("sde={kind: ve, t_min: 1.0}", "sde.t_min is 1.0, it must be below 1"),
    ("sde={kind: discrete_vp, levels: 20}", "sde.levels is 20, it must be above sde.beta_max"),
    ("sde={kind: cosine, t_max: 1.0}", "sde.t_max + sde.offset is 1.008, it must be below"),
    ("sde={kind: cosine, offset: 0.0, t_max: 1.0, margin: -1.0}", "sde.margin is -1.0"),
    ("objective.law={kind: table}", "objective.law.kind 'table' needs a table"),
    ("objective.reduction=sum", "it must be 'mean' or 'half_sum'"),
    ("objective.label_dropout=1.0", "objective.label_dropout is 1.0, it must be below 1"),
    ("field.label=index", "field.label 'index' needs field.levels"),
    ("field={label: index, levels: 10}", "field.label 'index' needs sde.kind 've', it is 'edm'"),
    ("data={kind: images, dataset: cifar10}", "data of kind 'images' needs 'unet' or 'ncsnpp' or"),
    ("data={kind: images, size: 0}", "data.size is 0, it must be the side of images"),
    ("data={kind: images, dataset: cats, channels: 0}", "data.channels is 0, it must be at"),
    ("sampler.kind=hoin", "must be one of euler, heun, predictor_corrector, ode, ddim, dpm_solver"),
    ("sampler={kind: ode, churn: 1.0}", "no key 'sampler.churn'"),
    ("sampler={kind: ddim, eta: 2.0}", "sampler.eta is 2.0, it must be at most 1"),
    ("sampler={kind: predictor_corrector, predictor: none}", "corrector are both 'none'"),
    (
        "sampler={kind: predictor_corrector, predictor: ancestral, probability_flow: true}",
        "not for 'ancestral'",
    ),
    ("name=toy/my file", "it must be family/member"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "told"), WRONG)
def test_a_wrong_value_is_refused_in_one_sentence(override, told):
    with pytest.raises(ConfigError) as error:
        load_config("toy/m0", [override])
    sentence = str(error.value)
    assert told in sentence
    assert sentence.startswith("toy/m0: ")
    assert "\n" not in sentence


def places(document, path=()):
    """The paths of all keys of a document."""
    for key, value in document.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


def refusal(document):
    """The sentence about a wrong document; empty for one that is right."""
    try:
        validate(document, "here")
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("value", [3, "x", [{}]], ids=repr)
def test_a_value_of_a_wrong_type_is_refused_in_words_of_the_project(value):
    document = load_config("toy/m3").document()
    document["data"] = {"kind": "custom", "target": "math:sqrt", "arguments": {}}
    found = []
    for *path, key in places(document):
        wrong = copy.deepcopy(document)
        reduce(getitem, path, wrong)[key] = value
        found.append(refusal(wrong))
    assert sum(map(bool, found)) > len(found) / 3
    assert not [sentence for sentence in found if "Input should" in sentence or "\n" in sentence]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("toy/m9", "there is no preset 'toy/m9'; the nearest are 'toy/m"),
        ("toi/m3", "the nearest is 'toy/m3'"),
        ("???", "the families are atoms, "),
        ("toy/../toy/m0", "there is no preset"),
        ("missing.yaml", "missing.yaml cannot be read: no such file"),
    ],
)
def test_an_unknown_name_is_told(name, told):
    with pytest.raises(ConfigError) as error:
        load_config(name)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("field.label=time", "scale_by_sigma needs field.label 'sigma', it is 'time'"),
        ("field.network.embedding=positional", "needs field.label 'index', it is 'sigma'"),
        ("field.network.kind=ncsn", "field.label must be 'index', not 'sigma'"),
        ("field.network={kind: mlp, embedding: 8}", "kind 'digits' needs 'unet' or 'ncsnpp'"),
        ("field.network.combine=stack", "field.network.combine is 'stack', it must be"),
    ],
)
def test_a_network_that_does_not_fit_is_told(override, told):
    with pytest.raises(ConfigError) as error:
        load_config("digits/ncsnpp_ve", [override])
    assert told in str(error.value)


def test_a_new_kind_keeps_what_it_shares_with_the_old():
    field = load_config("toy/m0", ["field.kind=potential", "field.network.hidden=7"]).field
    assert (field.kind, field.head, field.network.hidden, field.network.depth) == (
        "potential", "sum", 7, 3
    )  # fmt: skip
    sde = load_config("toy/m0", ["sde.kind=vp", "sde.beta_max=9.0"]).sde
    assert (sde.kind, sde.beta_max, sde.beta_min) == ("vp", 9.0, 0.1)


OF_LATENTS = ["data.kind=latents", "data.shape=[4, 32, 32]", "data.classes=1000"]


def test_a_new_kind_of_data_keeps_no_settings_that_it_lacks_but_refuses_those_that_are_given():
    assert load_config("imagenet64/m0").data.flip
    assert "flip" not in load_config("imagenet64/m0", OF_LATENTS).document()["data"]
    together = "data={kind: latents, shape: [4, 32, 32], classes: 1000, centered: true}"
    for overrides, told in (
        ([*OF_LATENTS, "data.flip=false"], "data.flip is for images"),
        ([*OF_LATENTS, "data.centered=true"], "there is no key 'data.centered'"),
        ([together], "there is no key 'data.centered'"),
    ):
        with pytest.raises(ConfigError, match=told):
            load_config("imagenet64/m0", overrides)


def test_the_augmentation_of_a_preset_is_not_dropped_with_its_images():
    with pytest.raises(ConfigError, match=r"without it, objective\.augmentation=null"):
        load_config("cifar10/m0", OF_LATENTS)
    without = load_config("cifar10/m0", [*OF_LATENTS, "objective.augmentation=null"])
    assert without.objective.augmentation is None


CHANGES = [
    "train.steps=200", "train.steps=15000", "optim.lr=1e-3", "optim.lr=2.0e-3", "seed=3",
    "objective.asymmetry.weight=0.2", "eval.nfes=[8]", "sde.kind=vp", "sampler.churn=5.0",
    "field.network.hidden=64",
]  # fmt: skip
changes = st.lists(st.sampled_from(CHANGES), unique_by=lambda c: c.partition("=")[0], max_size=4)


@given(changes, changes)
def test_folders_are_shared_by_equal_configurations_only(one, other):
    a, b = load_config("toy/m0", one), load_config("toy/m0", other)

    def content(config):
        return {k: v for k, v in config.document().items() if k != "name"}

    assert (a.folder == b.folder) == (content(a) == content(b))


def test_the_folder_of_a_preset_is_its_name_and_seed():
    assert str(load_config("toy/m1").folder) == "toy/m1/seed0"
    assert str(load_config("toy/m1", ["seed=7"]).folder) == "toy/m1/seed7"
    # A value that is what the preset says already is no change.
    assert str(load_config("toy/m0", ["sampler.kind=heun"]).folder) == "toy/m0/seed0"
    changes = ["train.steps=1500", "optim.lr=1e-3"]
    assert load_config("toy/m1", changes).name == "toy/m1_lr=0.001,train.steps=1500"
    assert load_config("toy/m1", ["objective.asymmetry=null"]).name == "toy/m1_asymmetry=none"
    # Two atoms on a line, and one in the plane.
    atoms = ("data.positions=[[0.2],[0.7]]", "data.positions=[[0.2,0.7]]")
    assert len({load_config("atoms/no_regularizer", [each]).name for each in atoms}) == 2
    # What is too long for a name is distinguished by a hash.
    long = [load_config("toy/m0", [f"eval.nfes={list(range(k, 170))}"]).name for k in (100, 101)]
    assert len(set(long)) == 2
    assert max(map(len, long)) < 120
    assert load_config("toy/m1", ["optim.lr=1e-3", "name=mine/fast"]).name == "mine/fast"


def test_a_file_extends_a_preset_a_neighbour_or_a_path(tmp_path):
    (tmp_path / "one.yaml").write_text("extends: toy/m1\noptim: {lr: 1e-4}\n")
    (tmp_path / "two.yaml").write_text("extends: one\nobjective: {asymmetry: {rows: 8}}\n")
    (tmp_path / "sub").mkdir()
    three = tmp_path / "sub" / "three.yaml"
    three.write_text("extends: ../two.yaml\nseed: 5\n")
    config = load_config(three)
    assert (config.optim.lr, config.optim.warmup) == (1e-4, load_config("toy/m1").optim.warmup)
    assert config.objective.asymmetry.rows == 8
    assert config.objective.asymmetry.weight == load_config("toy/m1").objective.asymmetry.weight
    assert str(config.folder) == "toy/three/seed5"
    assert config.description == ""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("extends: wrong\n", "extends itself"),
        ("extends: 3\n", "extends is 3"),
        ("extends: toy/m8\n", "there is no preset 'toy/m8'"),
        ("- 1\n", "must hold a mapping of sections"),
        ("a: [1\n", "is not valid YAML in line 2"),
        ("seed: 1\nseed: 2\n", "'seed' is given twice"),
        ("1: 2\n", "the key 1 is not text"),
        ("extends: toy/m0\ndata: {}\nfield: {netwrk: {}}\n", "the nearest is 'network'"),
        ("seed: 1\n", "is missing"),
        ("a: &a [*a]\n", "has an alias 'a'"),
        ("a: &a [1]\nb: [*a, *a]\n", "has an alias 'a'"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 50 deep"),
        ("a: " + "[" * 100_000, "nested more than 50 deep"),
        ("seed: " + "9" * 5000 + "\n", "a value in it cannot be read"),
        ("seed: 2024-13-45\n", "a value in it cannot be read"),
        ("seed: 010\n", "'010' is not a decimal one"),
        ("seed: 1:30\n", "'1:30' is not a decimal one"),
        ("seed: -1:30.5\n", "'-1:30.5' is not a decimal one"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, content, told):
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_is_told(tmp_path):
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="is not text"):
        load_config(file)


def test_a_loop_of_links_is_told(tmp_path):
    file = tmp_path / "loop.yaml"
    file.symlink_to(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(file)


def test_a_file_whose_name_is_no_name_of_a_run_is_told(tmp_path):
    file = tmp_path / "my file.yaml"
    file.write_text("extends: toy/m0\n")
    with pytest.raises(ConfigError, match="give another with name=family/member"):
        load_config(file)
    assert load_config(file, ["name=toy/mine"]).name == "toy/mine"


def test_numbers_are_decimal():
    assert parse("[0, -7, 1_000, 0x10, 1e-3, 0.5, 00.5, .inf]", "here") == [
        0, -7, 1000, 16, 1e-3, 0.5, 0.5, math.inf
    ]  # fmt: skip
