"""Score wrappers, losses and their gradients against recorded values of the score_sde code."""

import pytest
import torch

from scorefield import (
    DenoisingScoreMatching,
    DiscreteVP,
    NoisePrediction,
    PreconditionedField,
    TimeLabel,
    UniformTime,
)
from scorefield.fields.parametrization import TablePrediction
from scorefield.objectives.denoising import Batch, TableLaw
from tests.conformance import reference
from tests.conformance.linear import LEVELS, continuous, discrete, network

WEIGHTINGS = {"lw0": "score", "lw1": "likelihood"}
REDUCTIONS = {"rm0": "half_sum", "rm1": "mean"}


@pytest.fixture(params=["ve", "vp"])
def process(request):
    return request.param


@pytest.fixture
def arrays(process):
    return reference.load(f"losses_{process}")


def close(actual, expected, tol=1e-10):
    torch.testing.assert_close(
        actual, reference.tensor(expected, torch.float64), rtol=tol, atol=tol
    )


@pytest.mark.parametrize(("name", "wrap"), [("cont1", continuous), ("cont0", discrete)])
def test_the_score_of_a_network(process, arrays, name, wrap):
    x, t = (reference.tensor(arrays[k]) for k in ("batch", "score_wrapper_t"))
    field = wrap(network(arrays), process)
    close(field.score(x, t).detach(), arrays[f"score_wrapper_{name}"])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_continuous_losses(process, arrays, weighting, reduction):
    field = continuous(network(arrays), process)
    sde, law = field.sde, UniformTime()
    u, x, z = (reference.tensor(arrays[k]) for k in ("u", "batch", "z"))
    t = law.quantile(sde, u, *sde.level_range)
    close(t, arrays["t"])
    objective = DenoisingScoreMatching(WEIGHTINGS[weighting], law, reduction=REDUCTIONS[reduction])
    loss = objective(field, Batch(x, t, z)).mean()
    loss.backward()
    close(loss.detach(), arrays[f"cont_{weighting}_{reduction}_loss"], 1e-9)
    close(field.backbone.gradient(), arrays[f"cont_{weighting}_{reduction}_grad"], 1e-9)


def table_fields(net, process):
    """The fields whose loss at the times of a table is that of SMLD or DDPM."""
    if process == "ve":
        return [discrete(net, process)]
    kinds = [TablePrediction(LEVELS), NoisePrediction(TimeLabel(LEVELS - 1))]
    sde = DiscreteVP(0.1, 20.0, levels=LEVELS)
    return [PreconditionedField(net, sde, parametrization=kind) for kind in kinds]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_on_tables(process, arrays, reduction):
    name = {"ve": "smld", "vp": "ddpm"}[process]
    labels, x, z = (reference.tensor(arrays[k]) for k in (f"{name}_labels", "batch", f"{name}_z"))
    # Their labels of SMLD count down from the greatest level.
    place = LEVELS - 1 - labels if process == "ve" else labels
    law = TableLaw(LEVELS)
    objective = DenoisingScoreMatching("score", law, reduction=REDUCTIONS[reduction])
    for field in table_fields(network(arrays), process):
        sde, net = field.sde, field.backbone
        t = law.quantile(sde, (place + 0.5).double() / LEVELS, *sde.level_range)
        net.zero_grad()
        loss = objective(field, Batch(x, t, z)).mean()
        loss.backward()
        close(loss.detach(), arrays[f"{name}_{reduction}_loss"], 1e-9)
        close(net.gradient(), arrays[f"{name}_{reduction}_grad"], 1e-9)
