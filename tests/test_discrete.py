"""Truths about processes in steps."""

import math
from itertools import pairwise

import pytest
import torch

from scorefield import EDM, VE, VP, Cosine, DiscreteVP, IndexLabel, SubVP
from scorefield.sde.discrete import DDPMSteps, EulerForward, Exact, SMLDSteps
from scorefield.sde.tables import alphas_cumprod, betas, level_index, sigmas
from tests.laws.cases import SDES, times

TABLES = {"SMLD": (SMLDSteps, VE()), "DDPM": (DDPMSteps, VP())}


def nodes(levels, dtype=torch.float64):
    return torch.linspace(0, 1, levels, dtype=dtype)


def chain(steps):
    """Mean coefficient and variance after each of some steps, one after the other."""
    mean, variance, found = 1.0, 0.0, []
    for a, b in zip(steps.factor.tolist(), steps.std.tolist(), strict=True):
        mean, variance = a * mean, a**2 * variance + b**2
        found.append((mean, math.sqrt(variance)))
    return torch.tensor(found, dtype=torch.float64).unbind(dim=1)


def close(actual, expected, rtol=1e-10, atol=0.0):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
def test_exact_steps_compose_to_one(sde):
    s, m, t = (times(sde, 42)[i : i + 40] for i in range(3))
    first, second, both = (Exact().step(sde, b, a) for a, b in ((s, m), (m, t), (s, t)))
    close(second.factor * first.factor, both.factor)
    # By cancellation: the noise at the end of both is larger than what they add.
    left = (second.factor * first.std) ** 2 + second.std**2
    close(left, both.std**2, rtol=1e-8, atol=1e-14)
    close(first.sigma_to, second.sigma_from)
    close((both.factor * both.sigma_from) ** 2 + both.std**2, both.sigma_to**2)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
@pytest.mark.parametrize("points", [2, 7, 100])
def test_exact_steps_over_any_grid_end_in_the_marginals(sde, points):
    t = times(sde, points)
    first, rest = Exact().step(sde, t[:1], None), Exact().step(sde, t[1:], t[:-1])
    mean, std = chain(type(rest)(*(torch.cat(pair) for pair in zip(first, rest, strict=True))))
    close(mean, sde.alpha(t))
    close(std, sde.sigma(t))
    assert (rest.factor > 0).all()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("levels", [21, 1000])
def test_the_marginals_of_a_table_are_those_of_its_steps(name, levels):
    """Ho et al. (2020), equation 4: the steps of DDPM compose to the product of the alphas."""
    kind, sde = TABLES[name]
    step = kind(levels).step(sde, nodes(levels), None)
    mean, std = chain(step)
    close(std, step.sigma_to)
    close(step.sigma_from[1:], step.sigma_to[:-1])
    assert float(step.sigma_from[0]) == 0
    if name == "DDPM":
        close(mean**2, alphas_cumprod(sde.beta_min, sde.beta_max, levels))
        close(std**2, 1 - mean**2)
    else:
        assert torch.equal(mean, torch.ones(levels, dtype=torch.float64))
        close(std, sigmas(sde.sigma_min, sde.sigma_max, levels))


def errors(make, sizes=(200, 400, 800)):
    return [float(make(n)) for n in sizes]


def of_order_one(found):
    for coarse, fine in pairwise(found):
        assert math.log2(coarse / fine) == pytest.approx(1, abs=0.1)


def test_ddpm_goes_to_vp_at_order_one():
    def error(levels):
        t = nodes(levels)
        step = DDPMSteps(levels).step(VP(), t, None)
        return (step.sigma_to**2 - VP().sigma(t) ** 2).abs().max()

    of_order_one(errors(error))


def test_the_steps_of_smld_go_to_the_diffusion_of_ve_at_order_one():
    def error(levels):
        t = nodes(levels)[1:]
        growth = SMLDSteps(levels).step(VE(), t, None).std ** 2 * (levels - 1)
        return (growth / VE().diffusion_squared(t) - 1).abs().max()

    of_order_one(errors(error))
    t = nodes(50)
    exact, table = Exact().step(VE(), t[1:], t[:-1]), SMLDSteps(50).step(VE(), t[1:], t[:-1])
    for ours, theirs in zip(exact, table, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(
    "sde", [VP(), SubVP(), VE(), Cosine(t_max=0.9), EDM(0.01, 5.0)], ids=lambda s: type(s).__name__
)
def test_euler_steps_go_to_the_process_at_order_one(sde):
    """From time 0 with its marginal there, N steps of equal length to the prior."""

    def error(levels):
        s = nodes(levels + 1)[:-1] * sde.t_max
        s[0] += 1e-9  # where some have no derivative
        mean, variance = 1.0, float(sde.sigma(s[0])) ** 2
        step = EulerForward(levels).step(sde, s, None)
        for a, b in zip(step.factor.tolist(), step.std.tolist(), strict=True):
            mean, variance = a * mean, a**2 * variance + b**2
        end = torch.tensor(sde.t_max, dtype=torch.float64)
        # Relative, where the coefficient of the mean is tiny at the end.
        return abs(mean / float(sde.alpha(end)) - 1) + abs(
            math.sqrt(variance) / float(sde.sigma(end)) - 1
        )

    of_order_one(errors(error, (800, 1600, 3200)))


@pytest.mark.parametrize("levels", [21, 1000])
def test_the_steps_of_ddpm_are_those_of_its_own_process(levels):
    """The exact transition between neighbours is the step of the table, to rounding."""
    sde, t = DiscreteVP(levels=levels), nodes(levels)
    step, exact = DDPMSteps(levels).step(sde, t[1:], t[:-1]), Exact().step(sde, t[1:], t[:-1])
    for ours, theirs in zip(exact, step, strict=True):
        close(ours, theirs)
    close(Exact().step(sde, t[:1], None).std, DDPMSteps(levels).step(VP(), t[:1], None).std)


def test_the_discrete_process_has_the_product_of_the_steps():
    levels, t = 300, nodes(300)
    sde = DiscreteVP(levels=levels)
    close(sde.alpha(t) ** 2, alphas_cumprod(0.1, 20.0, levels), rtol=1e-12)
    between = (t[1:] + t[:-1]) / 2
    angle = torch.atan2(sde.sigma(t), sde.alpha(t))
    close(sde.alpha(between), torch.cos((angle[1:] + angle[:-1]) / 2))
    close(sde.sigma(between), torch.sin((angle[1:] + angle[:-1]) / 2))
    close(sde.time(sde.noise_level(between)), between)


def test_the_discrete_process_goes_to_vp_at_order_one():
    t = torch.linspace(0.05, 1, 400, dtype=torch.float64)
    of_order_one(errors(lambda n: (DiscreteVP(levels=n).sigma(t) - VP().sigma(t)).abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 3, 10, 232, 999, 1000, 2000, 4096])
def test_a_level_is_found_at_its_own_time_however_that_was_rounded(levels, dtype):
    i = torch.arange(levels)
    for t in (
        nodes(levels, dtype),
        nodes(levels).to(dtype),
        i.to(dtype) / (levels - 1),
        i.to(dtype) * torch.tensor(1 / (levels - 1), dtype=dtype),
    ):
        for nudged in (t, torch.nextafter(t, torch.zeros_like(t))):
            assert torch.equal(level_index(nudged, levels), i)
    if levels > 2:
        assert torch.equal(level_index((i[:-1] + 0.99).to(dtype) / (levels - 1), levels), i[:-1])


def test_a_time_before_a_level_by_more_than_rounding_belongs_to_the_one_before():
    t = nodes(1000)[1:]
    assert torch.equal(level_index(t * (1 - 1e-12), 1000), torch.arange(999))
    assert torch.equal(level_index(torch.tensor([-0.1, 1.1]), 10), torch.tensor([0, 9]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("steps", "sde"),
    [(Exact(), VP()), (SMLDSteps(50), VE()), (DDPMSteps(50), VP()), (EulerForward(50), SubVP())],
    ids=lambda v: type(v).__name__,
)
def test_steps_have_the_shape_and_dtype_of_the_times(steps, sde, dtype):
    for t in (torch.tensor(0.5), torch.tensor([0.2, 0.7]), torch.full((2, 1, 1), 0.4)):
        for s in (None, 0.5 * t.to(dtype), torch.tensor(0.1, dtype=dtype)):
            for part in steps.step(sde, t.to(dtype), s):
                assert part.shape == t.shape
                assert part.dtype == dtype
                assert part.isfinite().all()


def test_a_table_that_was_first_asked_for_in_inference_mode_takes_gradients_later():
    t = torch.tensor([0.3, 0.6])
    with torch.inference_mode():
        DDPMSteps(77).step(VP(), t, None)
        DiscreteVP(levels=77).alpha(t)
    x = torch.ones(2, requires_grad=True)
    (DDPMSteps(77).step(VP(), t, None).factor * DiscreteVP(levels=77).alpha(t) * x).sum().backward()
    assert x.grad is not None


T, S = torch.tensor([0.3]), torch.tensor([0.4])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SMLDSteps(1), "levels must be an integer of at least 2, got 1"),
        (lambda: DDPMSteps(0), "levels must be an integer of at least 2, got 0"),
        (lambda: EulerForward(-3), "levels must be an integer of at least 2"),
        (lambda: DiscreteVP(levels=1), "levels must be an integer of at least 2"),
        (lambda: betas(0.1, 20.0, 20), "levels=20 are too few for beta_max=20"),
        (lambda: DDPMSteps(20).step(VP(), T, None), "levels=20 are too few for beta_max=20"),
        (lambda: DDPMSteps(10).step(VP(), T, None), "levels=10 are too few for beta_max=20"),
        (lambda: DiscreteVP(levels=20), "levels=20 are too few"),
        (lambda: DiscreteVP(beta_min=2.0, beta_max=1.0), "DiscreteVP: .*beta_min"),
        (lambda: DiscreteVP(t_min=1.0), "DiscreteVP: .*t_min"),
        (lambda: DDPMSteps(50).step(VE(), T, None), "sde: DDPM discretises VP, not VE"),
        (lambda: DDPMSteps(50).step(SubVP(), T, None), "sde: .* not SubVP"),
        (lambda: SMLDSteps(50).step(VP(), T, None), "sde: SMLD discretises VE, not VP"),
        (lambda: DDPMSteps(50).step(DiscreteVP(levels=60), T, None), "levels: .* 60, .* 50"),
        (lambda: EulerForward(5).step(VP(), T + 0.7, None), "levels=5 are too few"),
        (lambda: Exact().step(VP(), T + 1, None), r"t must lie in \[0, 1\], got 1.3"),
        (lambda: SMLDSteps(50).step(VE(), -T, None), r"t must lie in \[0, 1\], got -0.3"),
        (lambda: Exact().step(VP(), T * math.nan, None), r"t must lie in \[0, 1\], got nan"),
        (lambda: Exact().step(VP(), T, S), "s of 0.4 and t of 0.3"),
        (lambda: DDPMSteps(50).step(VP(), T, -S), "s of -0.4"),
    ],
)
def test_a_bad_argument_is_an_error_that_names_it(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("levels", [10.5, True])
def test_levels_are_an_integer(unchecked, levels):
    for make in (SMLDSteps, lambda n: DiscreteVP(levels=n), IndexLabel):
        with pytest.raises(ValueError, match=f"must be an integer of at least 2, got {levels}"):
            make(levels)
