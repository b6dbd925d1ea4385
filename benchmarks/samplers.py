"""Which sampler: every method on a law whose score is known, at equal numbers of network calls.

The law is a ring of eight normal modes in the plane, under EDM, VE and VP. A method that draws no
noise is compared, sample by sample, with the end points of the exact flow from the same starting
noise; every method by its law. Field, prior and methods turn with the ring, so that each mode gets
an eighth of the samples on average, whatever the method: samples are turned onto the first mode,
and the sliced Wasserstein distance to real samples, turned alike, is told as a multiple of that
between two real sets. All are compared with the same real set.

Writes ``samplers.csv`` and ``samplers.png`` into a folder, and prints the tables of the page. Takes
about two minutes on one thread. Run as

    python benchmarks/samplers.py --out docs/results
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pages import options, panels, table, write_csv
from torch import Tensor

from scorefield import (
    DDIM,
    EDM,
    SDE,
    VE,
    VP,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPlusPlus2M,
    Euler,
    EulerMaruyama,
    GaussianMixture,
    Heun,
    Langevin,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    Sampler,
    noise_floor,
    sliced_wasserstein,
)
from scorefield.estimate import Estimate
from scorefield.metrics.sets import NoiseFloor
from scorefield.samplers.correctors import Corrector
from scorefield.samplers.predictors import Predictor
from scorefield.samplers.step import SamplerState

MODES, STD = 8, 0.35
PROCESSES: dict[str, SDE] = {"EDM": EDM(), "VE": VE(0.01, 50.0), "VP": VP()}
BUDGETS = (8, 16, 32, 64, 128, 1000)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
EXACT = ProbabilityFlow(1e-10, 1e-10)
N, REAL, PAIRS = 2048, 8192, 20
FLOW = "ProbabilityFlow"
SNR = 0.16


def corrected(
    predictor: Predictor, corrector: Corrector | None = None, spacing: str = "karras"
) -> Callable[[int], Sampler]:
    settings: dict[str, Any] = {"predictor": predictor, "corrector": corrector, "spacing": spacing}
    return partial(PredictorCorrector.for_nfe, **settings)


METHODS: dict[str, Callable[[int], Sampler]] = {
    "Euler": Euler.for_nfe,
    "Heun": Heun.for_nfe,
    "DDIM": DDIM.for_nfe,
    "DPM-Solver++(2M)": DPMSolverPlusPlus2M.for_nfe,
    "reverse diffusion, flow": corrected(ReverseDiffusion(probability_flow=True)),
    "DDIM, η = 1": partial(DDIM.for_nfe, eta=1.0),
    "Euler-Maruyama": corrected(EulerMaruyama()),
    "Euler-Maruyama + Langevin": corrected(EulerMaruyama(), Langevin(SNR)),
    "reverse diffusion": corrected(ReverseDiffusion()),
    "reverse diffusion + Langevin": corrected(ReverseDiffusion(), Langevin(SNR)),
    "reverse diffusion + Langevin, batch": corrected(ReverseDiffusion(), Langevin(SNR, 1, "batch")),
    "reverse diffusion + annealed": corrected(ReverseDiffusion(), AnnealedLangevin(SNR)),
    "reverse diffusion, even times": corrected(ReverseDiffusion(), spacing="time"),
    "ancestral": corrected(Ancestral()),
    "ancestral + Langevin": corrected(Ancestral(), Langevin(SNR)),
}


@dataclass(frozen=True)
class Row:
    """A method at a number of calls: ``rms`` to the exact end points, in units of the data, for
    methods that draw no noise; ``floors``, the distance between laws in noise floors; and the
    ``width`` of a mode in units of the true one."""

    process: str
    method: str
    order: int
    stochastic: bool
    calls_a_step: int | None
    tolerance: float | None
    budget: int | None
    calls: float
    rms: float | None
    distance: float
    floors: float
    floors_error: float
    width: float


def folded(x: Tensor) -> Tensor:
    """Points turned by the symmetry of the ring until they are nearest the first mode."""
    step = math.tau / MODES
    angle = torch.atan2(x[:, 1], x[:, 0])
    angle = angle - step * (angle / step).round()
    radius = torch.linalg.vector_norm(x, dim=1)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1)


def distance(x: Tensor, y: Tensor) -> Estimate:
    return sliced_wasserstein(folded(x), folded(y), order=1, projections=16)


def along_flow(field: GaussianMixture, sampler: ProbabilityFlow) -> tuple[Tensor, float]:
    """Samples along the flow, and the mean of their numbers of calls."""
    calls: list[float] = []

    def keep(state: SamplerState) -> None:
        assert state.solution is not None
        calls.append(float(state.solution.calls.double().mean()))

    x = sampler.sample(field, N, dtype=torch.float64, callback=keep)
    return x, calls[-1]


class Table:
    """The rows of one process."""

    def __init__(self, process: str, floor: NoiseFloor) -> None:
        self.process, self.floor = process, floor
        self.field = GaussianMixture.ring(MODES, std=STD, sde=PROCESSES[process])
        self.real = self.field.sample(REAL, seed=1, dtype=torch.float64)
        self.exact, calls = along_flow(self.field, EXACT)
        self.rows = [self.row(FLOW, EXACT, self.exact, calls)]
        for tolerance in TOLERANCES:
            sampler = ProbabilityFlow(tolerance, tolerance)
            self.rows.append(self.row(FLOW, sampler, *along_flow(self.field, sampler)))
        for name, make in METHODS.items():
            for budget in BUDGETS:
                method = make(budget)
                x = method.sample(self.field, N, dtype=torch.float64)
                assert method.nfe is not None
                self.rows.append(self.row(name, method, x, method.nfe, budget))

    def row(
        self, name: str, sampler: Sampler, x: Tensor, calls: float, budget: int | None = None
    ) -> Row:
        found = distance(x, self.real)
        centre = folded(self.field.means[:1])
        width = float((folded(x) - centre).square().mean().sqrt()) / STD
        rms = float((x - self.exact).square().sum(dim=1).mean().sqrt())
        steps = getattr(sampler, "steps", None)
        return Row(
            self.process, name, sampler.order, sampler.stochastic,
            None if steps is None else round(calls / steps),
            getattr(sampler, "rtol", None), budget, calls,
            None if sampler.stochastic else rms, found.value, self.floor.ratio(found),
            found.standard_error / self.floor.mean.value, width,
        )  # fmt: skip


def slope(rows: Sequence[Row]) -> float:
    """The order that shows in the two largest budgets."""
    one, two = sorted(rows, key=lambda r: r.calls)[-2:]
    assert one.rms is not None
    assert two.rms is not None
    return math.log(one.rms / two.rms) / math.log(two.calls / one.calls)


def tell(rows: Sequence[Row]) -> None:
    """Prints the tables of the page: each cell has a number for each process."""

    def cell(own: Sequence[Row], show: Callable[[Row], str]) -> str:
        return " / ".join(show(r) for r in own)

    def rms(row: Row) -> str:
        return f"{row.rms:.2g}"

    def floors(row: Row) -> str:
        return f"{row.floors:.{1 if row.floors < 10 else 0}f}"

    at = {(r.method, r.budget, r.process): r for r in rows}
    budgets = list(map(str, BUDGETS))
    laws, errors, widths = [], [], []
    for name in METHODS:
        across = [[at[name, b, p] for p in PROCESSES] for b in BUDGETS]
        one = across[0][0]
        about = [name, str(one.order), str(one.calls_a_step), "yes" if one.stochastic else "no"]
        laws.append([*about, *(cell(own, floors) for own in across)])
        widths.append([name, *(cell(own, lambda r: f"{r.width:.2f}") for own in across)])
        if not one.stochastic:
            each = [[at[name, b, p] for b in BUDGETS] for p in PROCESSES]
            found = " / ".join(f"{slope(own):.2f}" for own in each)
            errors.append([name, str(one.order), *(cell(own, rms) for own in across), found])
    about = ["method", "order", "calls per step", "stochastic"]
    tables = [
        table([*about, *budgets], laws),
        table(["method", "order", *budgets, "slope"], errors),
        table(["width of a mode", *budgets], widths),
    ]
    flows = []
    for tolerance in (*TOLERANCES, EXACT.rtol):
        own = [r for r in rows if r.tolerance == tolerance]
        calls = cell(own, lambda r: f"{r.calls:.0f}")
        flows.append([f"{tolerance:g}", calls, cell(own, rms), cell(own, floors)])
    tables.append(table([f"{FLOW}, tolerance", "calls", "rms", "floors"], flows))
    print("\n" + "\n\n".join(tables))


STYLES = {
    "Euler": ("#999999", "o", "-"),
    "Heun": ("#0072B2", "s", "-"),
    "DPM-Solver++(2M)": ("#009E73", "D", "-"),
    "reverse diffusion, flow": ("#E69F00", "^", "-"),
    FLOW: ("#D55E00", "*", "-"),
    "DDIM, η = 1": ("#999999", "o", "-"),
    "Euler-Maruyama": ("#0072B2", "s", "-"),
    "reverse diffusion": ("#E69F00", "^", "-"),
    "ancestral": ("#009E73", "D", "-"),
    "reverse diffusion + Langevin": ("#CC79A7", "v", ":"),
    "reverse diffusion + Langevin, batch": ("#CC79A7", "v", "-"),
    "reverse diffusion + annealed": ("#E69F00", "^", ":"),
}


def draw(rows: Sequence[Row], floor: NoiseFloor, path: Path) -> None:
    figure, grid = panels(3, len(PROCESSES), 15, 10.5, sharex=True, sharey="row")
    shown = [(False, "rms"), (False, "floors"), (True, "floors")]
    for panel, (stochastic, what) in zip(grid, shown, strict=True):
        for axes, process in zip(panel, PROCESSES, strict=True):
            for name, (colour, marker, line) in STYLES.items():
                own = [
                    r
                    for r in rows
                    if (r.process, r.method, r.stochastic) == (process, name, stochastic)
                    and r.tolerance != EXACT.rtol
                ]
                if not own:
                    continue
                label = "Euler = DDIM" if name == "Euler" else name
                axes.plot(
                    [r.calls for r in own], [getattr(r, what) for r in own], color=colour,
                    marker=marker, linestyle=line, markersize=8 if marker == "*" else 4.5,
                    markerfacecolor="white" if line == ":" else colour, linewidth=1.4, label=label,
                )  # fmt: skip
            if what == "floors":
                low, high = (floor.ratio(floor.quantile(q)) for q in (0.05, 0.95))
                axes.axhspan(low, high, color="#000000", alpha=0.1, linewidth=0)
                axes.set(yscale="log", ylim=(0.5, 2e3))
            else:
                axes.set(yscale="log", ylim=(1e-7, 30))
            axes.set(xscale="log", xlim=(6, 1300))
            axes.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
            axes.minorticks_off()
            axes.grid(alpha=0.25)
            axes.tick_params(labelbottom=True)
    for axes, process in zip(grid[0], PROCESSES, strict=True):
        axes.set_title(process)
    grid[0][0].set_ylabel("rms distance to the exact\nend points [units of the data]")
    grid[1][0].set_ylabel("distance between laws / noise floor\n(no noise drawn)")
    grid[2][0].set_ylabel("distance between laws / noise floor\n(noise drawn)")
    for axes in grid[-1]:
        axes.set_xlabel("network calls")
    for panel in grid[::2]:
        panel[-1].legend(fontsize=9, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    ring = GaussianMixture.ring(MODES, std=STD)
    floor = noise_floor(distance, ring, N, PAIRS, seed=2, m=REAL)
    sd = floor.sd / floor.mean.value
    print(f"noise floor: {floor.mean} (1 ± {sd:.2f}), {N} samples against {REAL}", flush=True)
    rows = [row for process in PROCESSES for row in Table(process, floor).rows]
    tell(rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv([asdict(row) for row in rows], arguments.out / "samplers.csv")
    draw(rows, floor, arguments.out / "samplers.png")
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
