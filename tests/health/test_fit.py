"""Claims that are wrong in one point, and claims that are right, of networks in closed form."""

import pytest
import torch

import scorefield as sf
from scorefield.errors import UserError
from scorefield.fields.labels import SigmaLabel
from scorefield.health import fit
from scorefield.health.measure import measurements
from scorefield.health.plan import Done
from scorefield.health.points import LEVELS, Points, noise_levels
from scorefield.health.readings import Reading, readings
from scorefield.health.subject import Subject
from scorefield.health.verdicts import verdicts
from tests.health.networks import (
    SHAPE,
    Via,
    claim,
    claim_edm,
    colours,
    edm,
    flow,
    steps,
)

LAW, SOURCE = colours()
STD = SOURCE.std
# A step says something of points that are nearly known.
NARROW, POINTS = colours(std=0.002)


def said(field, source=SOURCE, alternatives=None):
    """The faults that are found in a claim, by what they are about."""
    subject = Subject(field, source, 0, None, alternatives or {})
    first = next(iter(measurements(subject)))
    found = verdicts({"fit": Done(0, 1.0, first.measure(0))}, {})
    return {verdict.about: verdict.words for verdict in found if verdict.grade == "fault"}


def changed(function):
    """The data, changed."""
    return sf.ArraySource(*(function(SOURCE.stored(s)) for s in ("train", "test")), "changed")


WRONG = {
    "time for a step": (lambda: claim(Via(steps(LAW), lambda label: label / 999)), "time"),
    "steps of steps": (lambda: claim(Via(steps(LAW), lambda label: label * 1000)), "time"),
    "steps from the end": (lambda: claim(Via(steps(LAW), lambda label: 999 - label)), "time"),
    "the data for noise": (lambda: claim(steps(LAW, "denoiser")), "output"),
    "the noise for data": (lambda: claim(steps(LAW), predicts="denoiser"), "output"),
    "v for noise": (lambda: claim(steps(LAW, "v")), "output"),
    "the noise for v": (lambda: claim(steps(LAW), predicts="v"), "output"),
    "the noise for the score": (lambda: claim(steps(LAW), predicts="score"), "output"),
    "the sign of the noise": (lambda: claim(Via(steps(LAW), output=lambda y: -y)), "sign"),
    "the sign of v": (
        lambda: claim(Via(steps(LAW, "v"), output=lambda y: -y), predicts="v"),
        "sign",
    ),
    "scaled linear betas": (lambda: claim(steps(LAW, betas="scaled_linear")), "betas"),
    "betas of a cosine": (lambda: claim(steps(LAW, betas="cosine")), "betas"),
    "betas of a sigmoid": (lambda: claim(steps(LAW, betas="sigmoid")), "betas"),
    "linear betas": (lambda: claim(steps(LAW), betas="cosine"), "betas"),
    "the flow's time": (
        lambda: sf.wrap(Via(flow(LAW), lambda t: 1 - t), shape=SHAPE, predicts="velocity",
                        time="t"),
        "time",
    ),
    "the flow's label": (
        lambda: sf.wrap(Via(flow(LAW), lambda t: t * 1000), shape=SHAPE, predicts="velocity",
                        time="t"),
        "time",
    ),
    "the flow's sign": (
        lambda: sf.wrap(Via(flow(LAW), output=lambda y: -y), shape=SHAPE, predicts="velocity",
                        time="t"),
        "sign",
    ),
    "a velocity for noise": (
        lambda: sf.wrap(flow(LAW), shape=SHAPE, predicts="noise", time="t", sde=sf.RectifiedFlow()),
        "output",
    ),
    "sigma for its logarithm": (lambda: claim_edm(edm(LAW, STD), STD, SigmaLabel()), "time"),
    "twice sigma_data": (lambda: claim_edm(edm(LAW, STD), 2 * STD), "sigma_data"),
    "half of sigma_data": (lambda: claim_edm(edm(LAW, STD), STD / 2), "sigma_data"),
}  # fmt: skip

RIGHT = {
    **{f"noise, {betas}": (lambda betas=betas: claim(steps(LAW, betas=betas), betas=betas))
       for betas in ("linear", "scaled_linear", "cosine", "sigmoid")},
    **{f"{gives}, linear": (lambda gives=gives: claim(steps(LAW, gives), predicts=gives))
       for gives in ("denoiser", "v")},
    "velocity": lambda: sf.wrap(flow(LAW), shape=SHAPE, predicts="velocity", time="t"),
    "edm": lambda: claim_edm(edm(LAW, STD), STD),
    "edm for one": lambda: claim_edm(edm(LAW, 1.0), 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_claim_is_named(name):
    make, about = WRONG[name]
    assert about in said(make())


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_claim_is_not_doubted(name):
    assert said(RIGHT[name]()) == {}


@pytest.mark.parametrize(("shift", "told"), [(1, "one step less"), (-1, "one step more")])
def test_a_step_too_many_or_too_few_is_named(shift, told):
    field = claim(Via(steps(NARROW), lambda label: label + shift))
    assert told in said(field, POINTS)["time"]


def test_data_in_another_range_are_named():
    found = said(claim(steps(LAW)), changed(lambda x: (x + 1) / 2))
    assert "[-1, 1]" in found["data"]


def test_channels_in_the_other_order_are_named():
    assert "channels" in said(claim(steps(LAW)), changed(lambda x: x.flip(1)))


def test_averaged_weights_that_were_not_taken_are_named():
    pattern = 0.2 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    blurred = Via(steps(LAW), output=lambda y: y + pattern)
    right = claim(steps(LAW))
    found = said(claim(blurred), alternatives={"the averaged weights were used": right})
    assert "averaged" in found["weights"]


def test_a_clipped_denoiser_is_named():
    field = sf.ClippedField(claim(steps(LAW)), -0.8, 0.8)
    assert "clipping" in said(field)


def test_dropout_is_named():
    net = steps(LAW)
    field = claim(net)
    field.backbone.net = Via(net, output=lambda y: y * (torch.rand(y.shape) > 0.1))
    assert "randomness" in said(field)


def test_what_depends_on_the_batch_is_named():
    assert "batch" in said(claim(Via(steps(LAW), output=lambda y: y - 0.3 * y.mean(dim=0))))


def test_what_fits_nothing_is_said():
    field = claim(Via(steps(LAW), output=lambda y: y.flatten(1).flip(1).reshape(y.shape)))
    assert "none of" in said(field)["fit"]


def test_readings_that_are_worse_at_each_of_few_points_are_tried_at_no_others():
    rows = {"worse": 0, "as good": 0}

    def counted(name, output):
        def net(x, label):
            rows[name] += len(x)
            return output(steps(LAW)(x, label))

        return Reading(name, name, sf.wrap(net, shape=SHAPE, predicts="noise", time="index:1000",
                                           betas="linear"))  # fmt: skip

    field = claim(steps(LAW))
    points = Points.of(field, SOURCE, 32, 0)
    sigmas = noise_levels(field, STD)[4::5]
    claimed = fit.look(Reading("", "", field), points, sigmas)
    others = [counted("worse", lambda y: -y), counted("as good", lambda y: y)]
    rows.update(dict.fromkeys(rows, 0))
    gains = {r.kind: fit.gain_of(r, claimed, points, sigmas) for r in others}
    assert len(sigmas) == 2
    assert rows == {"worse": fit.FIRST, "as good": fit.FIRST + 2 * len(points.clean)}
    # What is compared is the same points: the gain of the same network is none.
    assert gains["as good"].mean.value == 0


def test_a_reading_gains_nothing_at_levels_that_its_process_lacks():
    field = claim(steps(LAW, betas="cosine"), betas="cosine")
    sigmas = (0.007, 0.5)
    (other,) = (r for r in readings(field, STD) if "betas were linear" in r.words)
    assert sigmas[0] < other.field.sde.level_range[0]
    points = Points.of(field, SOURCE, 16, 0)
    claimed = fit.look(Reading("", "", field), points, sigmas)
    seen = fit.look(other, points, sigmas, claimed)
    assert torch.equal(seen.loss[0], claimed.loss[0])
    assert (seen.loss[1] != claimed.loss[1]).all()


def test_no_level_counts_for_more_than_others_however_large_its_loss():
    loss = torch.tensor([[1e6, 3e6], [0.5, 0.7]], dtype=torch.float64)
    rest = [torch.ones_like(loss)] * 4
    skill = fit.Seen((0.01, 1.0), loss, *rest).skill.mean(dim=1)
    assert torch.allclose(skill, torch.tensor([-1.0, 0.25], dtype=torch.float64), atol=1e-5)


def seen(cross, predicted, n=64):
    """What is seen of a prediction, of noise of size one, that has so much of it and is so large,
    relative to a trivial denoiser that knows nothing.
    """
    one = torch.ones(LEVELS, n, dtype=torch.float64)
    # Points differ, and the same of them in all readings.
    one = one * (1 + 0.01 * torch.arange(n) / n)
    loss = one * (1 - 2 * cross + predicted)
    return fit.Seen(SIGMAS, loss, one, cross * one, predicted * one, one)


SIGMAS = tuple(0.1 * 2**k for k in range(LEVELS))


def test_what_a_factor_would_gain_is_known():
    # The best factor of a prediction of the size 0.25 that has 0.4 of the noise is 1.6.
    lack = seen(0.4, 0.25).lack
    skill = lambda loss: (1 - loss) / (1 + loss)  # noqa: E731
    assert lack == pytest.approx(skill(1 - 0.4**2 / 0.25) - skill(1 - 0.8 + 0.25), rel=1e-6)
    assert seen(0.4, 0.4).lack == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("predicted", "doubted"), [(0.25, False), (0.4, True)])
def test_a_small_gain_of_a_network_that_is_not_calibrated_is_no_evidence(predicted, doubted):
    """Both other readings gain the same; the one of a posterior mean is named."""
    other = seen(0.4, predicted)
    before = seen(0.4 - 0.01, predicted)
    gain = fit._gain(Reading("time", "other", None), before, other)
    assert gain.fits
    assert gain.mean.value == pytest.approx(0.016, abs=0.005)
    assert gain.beyond(25) is doubted


def test_the_trivial_denoiser_of_normal_data_is_the_best():
    law = sf.Gaussian(torch.zeros(4), covariance=torch.eye(4) + 0.5)
    points = law.sample(20_000, seed=1, dtype=torch.float64)
    found = fit.trivial(points)
    assert torch.allclose(found.covariance, law.covariance, atol=0.06)
    # The loss of the posterior mean: the variance of the noise given the point.
    seen = fit.look(Reading("", "", law.under(sf.EDM())),
                    Points(points, torch.randn_like(points)), (0.5, 1.0))  # fmt: skip
    for level in seen.levels():
        variances = torch.linalg.eigvalsh(law.covariance)
        expected = float((variances / (variances + level.sigma**2)).mean())
        for estimate in (level.loss, level.trivial):
            assert abs(estimate.value - expected) < 6 * estimate.standard_error + 1e-3
        assert abs(level.slope.value - 1) < 6 * level.slope.standard_error


def test_data_without_spread_are_one_sentence():
    with pytest.raises(UserError, match="all equal"):
        noise_levels(claim(steps(LAW)), 0.0)
