"""What the same work costs here and in other libraries.

Every library has the same network, and where it denoises, what it makes of the same noisy images is
compared first. Each round times all of a section, in an order of its own, so that a busy machine
slows all of them; written are the median of the times, and the median and the quartiles of the
rounds' ratios to scorefield: below 1 the other is faster. A library that is not installed has a row
that says so. The extra `peers` has all of them, with Python 3.13 all but k-diffusion. Run on an
idle machine as

    python benchmarks/peers.py docs/results/peers.md
"""

import argparse
import math
import os
import platform
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from denoisers import SHAPE, agreement, euler, heun, images, model, training
from scipy.linalg import sqrtm
from torch import Tensor
from torch.func import jacrev, vmap
from turns import OURS, Row, Section, measure, rows_of, spread, table, version_of

import scorefield as sf

POINTS, NATS, FAR = 256, 1e-3, 400.0
ASYMMETRIC = 32
SET, FEATURES = 2048, 512
SHORT = (
    "Times elsewhere as multiples of scorefield's, with the range of the medians and, in brackets, "
    "that of the quartiles: "
)
"""How the line begins that other pages quote."""
PEERS = (
    *("diffusers", "azula", "k-diffusion", "denoising-diffusion-pytorch", "torchdiffeq"),
    *("torch-fidelity", "scipy"),
)


def first_good(errors: Callable[[float], float]) -> float:
    """The loosest tolerance, in half decades, with errors of at most :data:`NATS`."""
    for k in range(2, 20):
        if errors(10 ** (-k / 2)) <= NATS:
            return 10 ** (-k / 2)
    raise SystemExit(f"no tolerance has an error of {NATS} nats")


def likelihood() -> Section:
    """Log-densities of a mixture whose score and density are known."""
    truth = sf.GaussianMixture.ring(sde=sf.EDM(0.05, FAR))
    x = truth.sample(POINTS, seed=0).double()
    first = torch.full((POINTS,), 0.05, dtype=torch.float64)
    exact = truth.log_density(x, first)

    def of_ours() -> Row:
        def value(tol: float, **settings: Any) -> Tensor:
            return sf.log_prob(truth, x, rtol=tol, atol=tol, t_min=0.05, **settings).value

        one = {"solver_error": "embedded"}
        tol = first_good(lambda tol: worst(value(tol, **one)))
        words = f"tolerance {tol:.0e}, error {worst(value(tol, **one)):.1e}"
        return Row(OURS, lambda: value(tol, **one), words)

    def with_error() -> Row:
        tol = first_good(lambda tol: worst(sf.log_prob(truth, x, rtol=tol, atol=tol,
                                                       t_min=0.05).value))  # fmt: skip
        words = f"tolerance {tol:.0e}, with the solver's error by a second integration"
        return Row(OURS, partial(sf.log_prob, truth, x, rtol=tol, atol=tol, t_min=0.05), words)

    def of_torchdiffeq() -> Row:
        odeint = import_module("torchdiffeq").odeint
        # Its last step goes beyond the end, and is interpolated.
        beyond = sf.GaussianMixture.ring(sde=sf.EDM(0.05, 1e9))
        ends = torch.tensor([0.05, FAR], dtype=torch.float64).log()

        def flow(log_sigma: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            sigma = log_sigma.exp()
            with torch.enable_grad():
                y = state[0].detach().requires_grad_()
                v = -(sigma**2) * beyond.score(y, sigma.expand(POINTS))
                first, second = (
                    torch.autograd.grad(v[:, i].sum(), y, retain_graph=i == 0)[0][:, i]
                    for i in range(2)
                )
            return v.detach(), first + second

        def value(tol: float) -> Tensor:
            start = (x, torch.zeros(POINTS, dtype=torch.float64))
            y, grown = odeint(flow, start, ends, rtol=tol, atol=tol, method="dopri5")
            prior = -y[-1].square().sum(1) / (2 * FAR**2) - math.log(math.tau * FAR**2)
            return prior + grown[-1]

        tol = first_good(lambda tol: worst(value(tol)))
        words = f"`dopri5` in ln σ, tolerance {tol:.0e}, error {worst(value(tol)):.1e}"
        return Row("torchdiffeq", lambda: value(tol), words)

    def worst(value: Tensor) -> float:
        return float((value - exact).abs().amax())

    return Section(
        "Likelihood at equal error",
        f"{POINTS} points of eight modes on a ring, whose score and density are known, in float64, "
        "with the exact trace. Each library has the loosest tolerance, in half decades, at which "
        f"the largest error is at most {NATS:g} nats.",
        "ms",
        [of_ours(), *rows_of(("torchdiffeq", of_torchdiffeq)), with_error()],
        rounds=9,
    )


# -------------------------------------------------------------------- exterior derivative


def exterior() -> Section:
    """The asymmetry of the Jacobian of a network's denoiser at noisy images."""
    ours, protocol = model().eval(), sf.Protocol([1.0], n=ASYMMETRIC, dtype=torch.float32)
    (points,) = protocol.points(images(), ours)

    def denoised(x: Tensor, t: Tensor) -> Tensor:
        return ours.predict(x[None], t[None], "denoiser")[0]

    def norm(jacobians: Tensor) -> float:
        j = jacobians.reshape(ASYMMETRIC, x_dim, x_dim)
        return float((j - j.mT).square().sum((1, 2)).mean().sqrt())

    def one_by_one() -> float:
        each = (torch.autograd.functional.jacobian(lambda y, t=t: denoised(y, t), x)
                for x, t in zip(points.noisy, points.t, strict=True))  # fmt: skip
        return norm(torch.stack(list(each)))

    def mapped() -> float:
        return norm(vmap(jacrev(denoised))(points.noisy, points.t))

    def exact() -> float:
        return sf.exterior_derivative(ours, images(), protocol).estimates[0].value

    x_dim = math.prod(SHAPE)
    probed = replace(protocol, precision=0.05)
    for other in (one_by_one(), mapped()):
        if not math.isclose(other, exact(), rel_tol=1e-3):
            raise SystemExit(f"the norms differ: {other}, {exact()}")
    return Section(
        "Exterior derivative",
        f"The root mean square of ‖J − Jᵀ‖ of the network's denoiser at {ASYMMETRIC} noisy images "
        f"of {x_dim} pixels. Ours draws the points too, and has the standard error.",
        "ms",
        [
            Row(OURS, exact, "exact"),
            Row("torch", mapped, "`torch.func`: `vmap(jacrev(f))`"),
            Row("torch", one_by_one, "`torch.autograd.functional.jacobian`, a point at a time"),
            Row(OURS, lambda: sf.exterior_derivative(ours, images(), probed, probes=4),
                "probes, until they add an error of 5 %"),
        ],
        rounds=7,
    )  # fmt: skip


# ------------------------------------------------------------------------- Fréchet distance


def frechet() -> Section:
    """The Fréchet distance between two sets of features."""
    draw = np.random.default_rng(0)
    mix = draw.normal(size=(FEATURES, FEATURES)) / math.sqrt(FEATURES)
    x, y = (torch.from_numpy(draw.normal(size=(SET, FEATURES)) @ mix + 0.1 * k) for k in range(2))
    wanted = sf.frechet_distance(x, y).value

    def of_scipy() -> Row:
        def value() -> float:
            a, b = x.numpy(), y.numpy()
            shift, c, d = a.mean(0) - b.mean(0), np.cov(a.T), np.cov(b.T)
            return float(shift @ shift + np.trace(c + d - 2 * sqrtm(c @ d).real))

        return agreed("scipy", value, "`linalg.sqrtm` of the product of the covariances")

    def of_fidelity() -> Row:
        own = import_module("torch_fidelity.metric_fid")

        def value() -> float:
            a, b = (own.fid_features_to_statistics(each) for each in (x, y))
            return float(own.fid_statistics_to_metric(a, b, False)[own.KEY_METRIC_FID])

        return agreed("torch-fidelity", value, "`fid_statistics_to_metric`, eigenvalues")

    def agreed(library: str, value: Callable[[], float], words: str) -> Row:
        if not math.isclose(found := value(), wanted, rel_tol=1e-6):
            raise SystemExit(f"{library} has the distance {found}, {OURS} {wanted}")
        return Row(library, value, words)

    return Section(
        "Fréchet distance",
        f"Of two sets of {SET:,} vectors of {FEATURES} features in float64, moments included. All "
        "agree to a millionth; ours has the standard error too.",
        "ms",
        [Row(OURS, lambda: sf.frechet_distance(x, y)),
         *rows_of(("scipy", of_scipy), ("torch-fidelity", of_fidelity))],
        rounds=7,
    )  # fmt: skip


# --------------------------------------------------------------------------------- the page


def page(sections: list[Section], differences: dict[str, float], threads: int) -> str:
    """The page of the results."""
    names = ("torch", "numpy", *PEERS)
    versions = ", ".join(f"{n} {version_of(n) or '(absent)'}" for n in names)
    rounds = min(len(row.seconds) for s in sections for row in s.rows if row.seconds)
    loads = [load for s in sections for load in s.loads]
    short = "; ".join(f"*{s.title}* {spread(s)}" for s in sections)
    agree = ", ".join(f"{name} {value:.0e}" for name, value in sorted(differences.items()))
    lines = [
        "# Side by side with other libraries",
        "",
        "The same network and the same work here and in other libraries, timed in turns. A ratio "
        "below 1 is a library that is faster than scorefield.",
        "",
        f"{SHORT}{short}.",
        "",
        "```console",
        "$ pip install '.[peers]'",
        "$ python benchmarks/peers.py docs/results/peers.md",
        "```",
        "",
        f"One run on {datetime.now(UTC).date().isoformat()}, on {machine()}, {threads} thread: "
        f"processor time, medians and quartiles of at least {rounds} rounds in which all of a "
        f"table take turns, under a load of {min(loads):.1f} to {max(loads):.1f}, the averages of "
        "a minute at the ends of the rounds. It was not repeated on other days or machines. "
        f"scorefield {sf.__version__}; {versions}. Another network, batch or device has other "
        "ratios: the network here is small, where what a library adds to its calls weighs most.",
        "",
        f"Denoised images differ from ours at three noise levels by at most {agree} of pixels in "
        "[-1, 1], so that the networks are called with the same numbers.",
        *(line for section in sections for line in table(section)),
    ]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The processor and its cores."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    differences: dict[str, float] = {}
    for name, value in agreement():
        differences[name] = max(value, differences.get(name, 0.0))
    if any(value > 1e-3 for value in differences.values()):
        raise SystemExit(f"the denoised images differ: {differences}")
    sections = []
    for make in (training, euler, heun, likelihood, exterior, frechet):
        sections.append(make())
        measure(sections[-1], given.rounds)
        print("\n".join(table(sections[-1])), flush=True)
    given.out.write_text(page(sections, differences, torch.get_num_threads()), encoding="utf-8")


if __name__ == "__main__":
    main()
