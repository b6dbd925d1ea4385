"""Which curves the page shows of a data set."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.comparison.costs import Costs
from scorefield.comparison.groups import Group
from scorefield.report.curves import Plot, against_calls, against_noise, against_time
from scorefield.report.style import Look

LEAST = 1e-5
"""Below this a relative curl is rounding: such points are drawn at the foot of the axis."""
_LEAST_SQUARE = 1e-5
"""The same of a mean square that is estimated without bias, and has noise about zero."""


def plots(
    members: Sequence[Group], exact: Group | None, look: dict[str, Look], costs: Costs
) -> list[Plot]:
    """The curves of a data set: diagnostics against noise, distances against network calls and
    against training time.
    """
    name = members[0].dataset
    rounding = f"Below {LEAST:g} it is rounding: such points stand at the foot, as triangles."
    found = [
        against_noise(
            f"{name}-asymmetry",
            "Relative asymmetry",
            f"Of the score's Jacobian: 0 for a gradient, 1 for a rotation. {rounding}",
            "relative_asymmetry",
            members,
            look,
            least=LEAST,
        ),
        against_noise(
            f"{name}-circulation",
            "Circulation around loops",
            "The curl of the denoiser seen by octagons of radius σ/2. What the exact field shows "
            f"is the error of the quadrature. {rounding}",
            "loop_circulation",
            members,
            look,
            exact,
            least=LEAST,
            scale=0.5,
        ),
        against_noise(
            f"{name}-cycles",
            "Circulation around graph cycles",
            "The curl of the denoiser seen by triangles of near noisy points. At low noise their "
            "sides are much longer than σ, and the bars hold what the quadrature may err by. "
            f"{rounding}",
            "cycle_circulation",
            members,
            look,
            exact,
            least=LEAST,
        ),
        against_noise(
            f"{name}-paths",
            "Gap between two paths",
            "How much the log-density ratio of two noisings of one point depends on the way from "
            f"one to the other: root mean square, in nats. {rounding}",
            "path_gap",
            members,
            look,
            exact,
            least=LEAST,
        ),
        against_noise(
            f"{name}-winding",
            "Winding around the torus",
            "The circulation of the score around straight loops that cannot be shrunk: what the "
            "log-density gains in a turn, root mean square over points and directions, in nats. "
            "Where the exact field's score jumps over less than the nodes of a loop resolve, its "
            f"bars hold what the quadrature may err by. {rounding}",
            "winding",
            members,
            look,
            exact,
            least=LEAST,
        ),
        against_noise(
            f"{name}-harmonic",
            "Harmonic part",
            "The mean of the score over the torus times the period: the part of the winding that "
            f"no curl explains, root mean square over directions, in nats a turn. {rounding}",
            "harmonic_part",
            members,
            look,
            exact,
            least=LEAST,
        ),
        against_noise(
            f"{name}-fokker-planck",
            "Residual of the Fokker–Planck equation",
            "By how much the score changes with the noise level otherwise than the equation of the "
            "diffusion says: root mean square, in units of the noise for each unit of ln σ. "
            f"{rounding}",
            "fokker_planck",
            members,
            look,
            exact,
            least=LEAST,
        ),
        against_noise(
            f"{name}-fokker-planck-gap",
            "Curl in the Fokker–Planck equation",
            "The difference between the equation's form for gradients and that for each component, "
            f"which curl alone makes; root mean square, in the same unit. {rounding}",
            "fokker_planck_gap",
            members,
            look,
            exact,
            least=LEAST,
        ),
        against_noise(
            f"{name}-consistency",
            "Consistency error",
            "The mean square distance of the field at one noise level from the mean of what it "
            "says at the end of its own trajectories, at half the level; in squared units of the "
            "noise. "
            "It is unbiased: what is near zero, or negative, stands at the foot, as a triangle.",
            "consistency",
            members,
            look,
            exact,
            least=_LEAST_SQUARE,
        ),
        against_noise(
            f"{name}-score",
            "Error of the score",
            "Root mean square error of the predicted noise against the exact field's.",
            "score_error",
            members,
            look,
        ),
        against_noise(
            f"{name}-loss",
            "Denoising loss",
            "Mean square error of the predicted noise on held-out data."
            + (" No field is below the exact one, beyond the errors." if exact else ""),
            "denoising_loss",
            members,
            look,
            exact,
        ),
        against_calls(
            f"{name}-sw",
            "Sliced Wasserstein distance to real samples",
            "Against the true number of network calls; the band is what two real sets of the same "
            "size have between them.",
            "sliced_wasserstein",
            members,
            look,
            exact,
        ),
        against_calls(
            f"{name}-mmd",
            "Squared maximum mean discrepancy",
            "Unbiased, and zero for equal laws: what is far below the floor's noise, or negative, "
            "stands at the foot, as a triangle.",
            "mmd",
            members,
            look,
            exact,
        ),
        against_calls(
            f"{name}-tv",
            "Total variation from the exact law",
            "Between the samples and their law, over the cells of a regular grid; the band is what "
            "as many samples of the law have.",
            "total_variation",
            members,
            look,
            exact,
        ),
        against_calls(
            f"{name}-marginal_ks",
            "Kolmogorov–Smirnov distance from the exact law",
            "The largest gap between the distribution function of one coordinate and its exact "
            "marginal law; the band is what as many samples of the law have.",
            "marginal_ks",
            members,
            look,
            exact,
        ),
        against_time(
            f"{name}-along-sw",
            "Samples along the training",
            "The sliced Wasserstein distance at the sampler's preset number of calls, against the "
            "time that the steps up to a checkpoint took.",
            "sliced_wasserstein",
            members,
            look,
            costs,
        ),
        against_time(
            f"{name}-along-loss",
            "Loss along the training",
            "The denoising loss on held-out data, averaged weights, against the time that the "
            "steps up to a checkpoint took.",
            "validation_loss",
            members,
            look,
            costs,
        ),
    ]
    return [plot for plot in found if plot is not None]
