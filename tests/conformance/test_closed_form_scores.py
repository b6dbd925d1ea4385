"""Scores in closed form against recorded values of the convolutional_diffusion code.

Its circular score wraps the point and not the training images, which is padding "valid" here;
the scores of images that are wrapped as well were recorded from a brute-force formula.
"""

import pytest
import torch

from scorefield import (
    DDIM,
    Cosine,
    EquivariantLocalScore,
    EquivariantScore,
    IdealScore,
    LocalScore,
    PatchSizes,
    jacobian,
)
from scorefield.calculus.asymmetry import exact_asymmetry
from scorefield.calculus.derivatives import jvp_vjp
from tests.conformance import reference

# The published process reaches t = 1.
SDE = Cosine(offset=0.0, margin=0.008, t_min=0.01, t_max=1.0)
SIZES = (3, 5, 7, 11)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def ideal(images, size, **settings):
    return IdealScore(images, SDE, **settings)


def equivariant(images, size, **settings):
    return EquivariantScore(images, SDE, **settings)


def local(images, size, **settings):
    return LocalScore(images, SDE, size, **settings)


def bordered(images, size, **settings):
    return EquivariantLocalScore(images, SDE, size, **settings)


def query_wrapped(images, size, **settings):
    return EquivariantLocalScore(images, SDE, size, padding="valid", **settings)


def wrapped(images, size, **settings):
    return EquivariantLocalScore(images, SDE, size, padding="circular", **settings)


BY_SIZE = {
    "LS": local,
    "ELSborder": bordered,
    "ELScirc_query": query_wrapped,
    "own_ELStorus": wrapped,
}
SCORES = {
    "IS": (ideal, 3),
    "own_ES_torus": (equivariant, 3),
    **{f"{name}_k{k}": (make, k) for name, make in BY_SIZE.items() for k in SIZES},
}
OF_A_CLASS = {
    "cond1_IS": (ideal, 3),
    "cond1_LS_k3": (local, 3),
    "cond1_ELSborder_k5": (bordered, 5),
}
MACHINES = {
    "machine_IS": ideal,
    "machine_LS": local,
    "machine_ELSborder": bordered,
    "machine_ELScirc_query": query_wrapped,
}
CURLS = {"IS": ideal, "LS": local, "ELSborder": bordered, "ELScirc_query": query_wrapped}


@pytest.fixture(params=list(TOLERANCE), ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request):
    return request.param


def recorded(dtype=torch.float64):
    arrays = reference.load("scores_1x12x12", "els")
    return {name: reference.tensor(array, dtype) for name, array in arrays.items()}


def points(arrays):
    """The points of all times as one batch, each with a time of its own."""
    x = arrays["x"]
    return x.flatten(0, 1), arrays["t"].repeat_interleave(x.shape[1])


def close(actual, expected, dtype):
    """Within the tolerance, relative to the largest value of each row."""
    assert actual.dtype == dtype
    actual, expected = actual.double().flatten(1), expected.flatten(1)
    error = (actual - expected).abs().amax(dim=1) / expected.abs().amax(dim=1)
    assert float(error.max()) <= TOLERANCE[dtype]


def test_the_process_is_the_recorded_one():
    arrays = recorded()
    assert torch.allclose(SDE.sigma(arrays["t"]) ** 2, arrays["beta"], rtol=1e-13, atol=0)
    assert torch.allclose(1 - SDE.alpha(arrays["t"]) ** 2, arrays["beta"], rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", SCORES)
def test_scores(name, dtype):
    arrays, expected = recorded(dtype), recorded()[name].flatten(0, 1)
    make, size = SCORES[name]
    close(make(arrays["train"], size).score(*points(arrays)), expected, dtype)


@pytest.mark.parametrize("name", OF_A_CLASS)
def test_scores_of_a_class(name, dtype):
    arrays, expected = recorded(dtype), recorded()[name].flatten(0, 1)
    make, size = OF_A_CLASS[name]
    known = make(arrays["train"], size, labels=arrays["labels"])
    close(known.score(*points(arrays), 1), expected, dtype)
    each = torch.ones(len(expected), dtype=torch.int64)
    close(known.score(*points(arrays), each), expected, dtype)
    alone = make(arrays["train"][arrays["labels"] == 1], size)
    close(alone.score(*points(arrays)), expected, dtype)


def test_every_recorded_score_is_compared():
    known = {"train", "labels", "t", "beta", "x", "kernel_sizes", "machine_seed", "machine_scales"}
    assert set(recorded()) == {*known, *SCORES, *OF_A_CLASS, *MACHINES}
    assert recorded()["kernel_sizes"].tolist() == list(SIZES)


@pytest.mark.parametrize("name", MACHINES)
def test_samples_with_a_patch_size_a_noise_level(name, dtype):
    """The published machine begins a step late, at t = 7/8, with the sizes of its times."""
    arrays, expected = recorded(dtype), recorded()[name]
    time = torch.arange(1, 8, dtype=torch.float64) / 8
    sizes = PatchSizes(SDE.noise_level(time).tolist(), arrays["machine_scales"][1:].tolist())
    field = MACHINES[name](arrays["train"], sizes)
    field.sde = Cosine(offset=0.0, margin=0.008, t_min=1 / 8, t_max=7 / 8)
    x = DDIM(7, spacing="time").sample(field, start=arrays["machine_seed"], dtype=dtype)
    close(x, expected, dtype)


@pytest.fixture(params=[(t, k) for t in (0.3, 0.7) for k in (3, 5)], ids=str)
def curl(request):
    """Images, a point, its time, the patch size, and the recorded 2-forms by machine."""
    t, k = request.param
    arrays = {n: reference.tensor(a) for n, a in reference.load("ed_els", "els").items()}
    forms = {
        n: (arrays[f"ed_{n}_t{t}_k{k}"][0], float(arrays[f"edmag_{n}_t{t}_k{k}"])) for n in CURLS
    }
    x = arrays["x"].reshape(1, 1, 8, 8)
    return arrays["train"], x, torch.tensor([t], dtype=torch.float64), k, forms


@pytest.mark.parametrize("name", CURLS)
def test_exterior_derivatives(name, curl):
    images, x, t, k, forms = curl
    field = CURLS[name](images, k)
    form, magnitude = forms[name]
    for found in (field.jacobian(x, t), jacobian(field.score, x, t)):
        scale = float(found.abs().max())
        assert float((found[0] - found[0].mT - form).abs().max()) <= 1e-10 * scale
        size = float(exact_asymmetry(found)[0].sqrt())
        assert abs(size - magnitude) <= 1e-10 * magnitude + 1e-11 * scale


@pytest.mark.parametrize("name", CURLS)
def test_the_recorded_curl_is_that_of_probes(name, curl):
    """For every pair of products, J v - Jᵀ v is the recorded form applied to v."""
    images, x, t, k, forms = curl
    field = CURLS[name](images, k)
    for row in (0, 27, 63):
        v = torch.zeros_like(x)
        v.view(-1)[row] = 1
        forward, backward = jvp_vjp(field.score, x, t, v)
        found = (forward - backward).detach().reshape(-1)
        scale = float(forward.detach().abs().max())
        assert float((found - forms[name][0][:, row]).abs().max()) <= 1e-10 * scale


def test_locality_alone_makes_a_score_non_conservative():
    """The recorded size of |J - Jᵀ| at t = 0.3 with patches of 3 x 3: 16.1 and 8.2, and none."""
    arrays = {n: reference.tensor(a) for n, a in reference.load("ed_els", "els").items()}
    x, t = arrays["x"].reshape(1, 1, 8, 8), torch.tensor([0.3], dtype=torch.float64)
    sizes = {
        make: float(exact_asymmetry(make(arrays["train"], 3).jacobian(x, t))[0].sqrt())
        for make in (ideal, local, bordered)
    }
    assert sizes[ideal] < 1e-11
    assert round(sizes[local], 1) == 16.1
    assert round(sizes[bordered], 1) == 8.2
