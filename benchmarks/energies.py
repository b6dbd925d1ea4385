"""Models of particles against their exact energies: importance weights and effective samples.

Trains presets of the families ``dw4`` and ``lj13`` with several seeds, as ``scorefield train``
does, and weights samples of their probability flows by the exact energies. Reported are the share
of effective samples, the constant of the energy, the divergence of the model at held-out points,
and how far the energies and distances of its samples are from those of Markov chains; of the
chains, their mixing and the law of the virial.

Writes the page ``particles.md`` and the figure ``particles.png`` into a folder. Runs and results
that are in the folder of runs are taken as they are. Run as

    python benchmarks/energies.py --out docs/results
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from energies_numbers import SYSTEMS, Result, gap, last_draws, measured, result, source_of
from pages import options, table

import scorefield as sf
from scorefield.config.build import build_field, build_source
from scorefield.estimate import format_interval, mean, paired_difference, pool
from scorefield.plotting.palette import EXACT, MODELS
from scorefield.samplers.mixing import autocorrelation_time, split_r_hat

PRESETS, SEEDS = "dw4/m0,dw4/m2,lj13/m0", "0,1,2"
# Heads of the tables.
CHAINS = (
    *("", "draws for training + held out", "held-out draws of a chain, of chains", "R-hat"),
    *("R-hat expected", "time, moves", "degrees of freedom", "virial"),
)
WEIGHED = ("", "trainings", "share", "divergence", "log Z", "energies", "distances", "mean energy")
SEEDS_APART = ("", "seed", "share", "solver", "log Z", "solver", "calls", "training")
Rows = list[list[str]]


def bare(found: sf.Estimate) -> sf.Estimate:
    """A number without its numerical error, which the table has beside it."""
    return replace(found, unit="", numerical_error=0.0)


def over(found: Sequence[sf.Estimate]) -> str:
    """The mean over seeds with its interval, or the one number with its own; its unit is said
    below the table."""
    return format_interval(replace(found[0] if len(found) == 1 else pool(found), unit=""))


def chains_row(family: str, source: sf.ChainSource) -> list[str]:
    """What is known of the held-out Markov chains of a system, by what rotations and permutations
    leave as it is."""
    energy, x = source.energy, source.stored("test")
    invariant = torch.cat(
        (energy.energy(x).unsqueeze(1), energy.distances(x).sort(dim=1).values), dim=1
    ).unflatten(0, (source.draws, -1))
    times, errors = autocorrelation_time(invariant)
    longest = int(times.argmax())
    length = sf.Estimate(float(times[longest]), float(errors[longest]), invariant.shape[1])
    ratios, scatter = split_r_hat(invariant)
    apart = int(ratios.argmax())
    r_hat = sf.Estimate(float(ratios[apart]), float(scatter[apart]), invariant.shape[1])
    virial = -(x * energy.score(x, 0.0)).sum(dim=(1, 2)).unflatten(0, (source.draws, -1))
    return [
        SYSTEMS[family].title,
        f"{source.count('train'):,} + {source.count('test'):,}",
        f"{source.draws} of {invariant.shape[1]}",
        format_interval(r_hat),
        f"{math.sqrt(1 + 2 * (float(times[longest]) - 1) / source.draws):.2f}",
        format_interval(length.scaled(source.every)),
        str(energy.domain.dim),
        format_interval(mean(virial.mean(dim=0).numpy())),
    ]


def model_rows(results: dict[str, list[Result]], sources: dict[str, sf.ChainSource]) -> Rows:
    """The rows of the table of models, and one of the chains themselves for each system."""
    rows = []
    for family, source in sources.items():
        system, energy = SYSTEMS[family], source.energy
        held = last_draws(source, "test")
        u, d = energy.energy(held), energy.distances(held)
        for preset, runs in results.items():
            if not preset.startswith(family):
                continue
            n = len(runs[0].found.x)
            columns = [
                [run.found.share for run in runs],
                [run.divergence for run in runs],
                [run.found.log_constant for run in runs],
                [gap(run.energies, u) for run in runs],
                [gap(run.distances[:n, :1], d[:, :1]) for run in runs],
                [run.found.mean(run.energies) for run in runs],
            ]
            rows.append([f"`{preset}`", str(len(runs)), *map(over, columns)])
        fresh = last_draws(source, "train")[: system.samples]
        per_chain = energy.energy(source.stored("test")).reshape(source.draws, -1).mean(dim=0)
        least = [gap(energy.energy(fresh), u), gap(energy.distances(fresh)[:, :1], d[:, :1])]
        known = [over([e]) for e in (*least, mean(per_chain.numpy()))]
        rows.append([f"chains, {system.title}", "", "1", "0", "", *known])
    return rows


def seed_rows(results: dict[str, list[Result]]) -> Rows:
    rows = []
    for preset, runs in results.items():
        for run in runs:
            share, constant = run.found.share, run.found.log_constant
            rows.append(
                [
                    *(f"`{preset}`", str(run.seed)),
                    *(format_interval(bare(share)), f"{share.numerical_error:.1e}"),
                    *(format_interval(bare(constant)), f"{constant.numerical_error:.1e}"),
                    *(f"{run.calls:.0f}", f"{run.seconds:.0f} s"),
                ]
            )
    return rows


def draw(results: dict[str, list[Result]], sources: dict[str, sf.ChainSource], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    size = (5 + 2 * len(sources), 7)
    figure, panels = plt.subplots(
        2, len(sources), figsize=size, layout="constrained", squeeze=False
    )
    for (top, bottom), (family, source) in zip(panels.T, sources.items(), strict=True):
        held = source.stored("test")
        exact = source.energy.distances(held), source.energy.energy(held)
        for panel, values, label in zip(
            (top, bottom), exact, ("distance of two particles", "energy [kT]"), strict=True
        ):
            low, high = np.quantile(values.numpy(), [0.0005, 0.9995])
            wide = 0.15 * (high - low)
            edges = np.linspace(low - wide, high + (3 if panel is bottom else 1) * wide, 61)
            panel.hist(
                values.flatten(),
                edges,
                density=True,
                color=EXACT.colour,
                alpha=0.35,
                label="chains",
            )
            models = [name for name in results if name.startswith(family)]
            for name, look in zip(models, MODELS, strict=False):
                runs = results[name]
                parts = [r.distances if panel is top else r.energies for r in runs]
                found = torch.cat([part.flatten() for part in parts])
                panel.hist(
                    found.clamp(*edges[[0, -1]]), edges, density=True, histtype="step",
                    color=look.colour, linewidth=1.4, label=name,
                )  # fmt: skip
                if panel is bottom:
                    weights = torch.cat([run.found.weights for run in runs])
                    panel.hist(
                        found.clamp(*edges[[0, -1]]), edges, density=True, histtype="step",
                        weights=weights, color=look.colour, linewidth=1.0, linestyle=":",
                        label=f"{name}, weighted",
                    )  # fmt: skip
            panel.set(xlabel=label, yticks=[], ylabel="density")
            panel.legend(frameon=False, fontsize=8)
        top.set_title(SYSTEMS[family].title)
    figure.savefig(path, dpi=110)


def page(results: dict[str, list[Result]], sources: dict[str, sf.ChainSource], asked: str) -> str:
    sizes = "\n".join(map(sizes_of, sources))
    fewest = min(len(runs) for runs in results.values())
    covering = "Intervals are Student's over seeds, and cover trainings, not other data."
    if fewest < 2:
        covering = "There is one training of each: intervals are over samples, not over trainings."
    absent = [
        f"`{family}/{member}`"
        for family in SYSTEMS
        for member in ("m0", "m2")
        if f"{family}/{member}" not in results
    ]
    missing = ""
    if absent:
        missing = (
            f"* **Not trained here: {', '.join(absent)}.** The same script trains and weights it,\n"
            "  by `--presets`; no number on this page is about it.\n"
        )
    lines = [
        "# Particles against their energies",
        "",
        "How many of a model's samples count under the exact energy?",
        "",
        f"```console\n$ {asked}\n```",
        r"""
The systems DW-4 and LJ-13 are those of *Equivariant flows* (Köhler, Klein and Noé, 2020), in units
of $kT$ and with every pair counted once:

$$
u_{DW} = \sum_{i < j} b\,(d_{ij} - d_0)^2 + c\,(d_{ij} - d_0)^4, \qquad
b = -4, \quad c = 0.9, \quad d_0 = 4,
$$

$$
u_{LJ} = \sum_{i < j} \big( d_{ij}^{-12} - 2\,d_{ij}^{-6} \big)
+ \frac12 \sum_i |x_i - \bar x|^2 ,
$$

of four particles in the plane and of thirteen in space. (Where pairs are summed in both orders
without a half, the pair energies are twice these.) Positions have no centre of mass
({py:mod}`scorefield.relative`), and the network is equivariant under rotations, reflections and
permutations ({py:class}`~scorefield.networks.egnn.EGNN`). `m0` is a field, `m2` the gradient of
an invariant potential.

## The data

Draws of Hamiltonian Monte Carlo with exact acceptance; every fourth chain is held out. R-hat and
the autocorrelation time are the largest of the energy and the sorted distances. The virial
$\mathrm{E}[x \cdot \nabla u]$ is the number of degrees of freedom for every confining energy.
Intervals are of 95 %.
""",
        table(CHAINS, [chains_row(family, source) for family, source in sources.items()]),
        rf"""
Chains of $N$ draws that agree have an R-hat of about $(1 + 2 (\tau - 1) / N)^{{1/2}}$ for a time
$\tau$ in draws, which is the one expected. Draws of different chains are independent, those of one
chain are not.

## The models

{sizes}

With weights $w = e^{{-u}} / q$:

* *share*: of effective samples, $(\sum w)^2 / (n \sum w^2)$, 1 for the exact density;
* *divergence*: $\mathrm{{KL}}(p \,\|\, q)$ in nats by held-out points, which sees what the model
  leaves out;
* $\log Z$: one number for all models that leave nothing out;
* *energies*, *distances*: Wasserstein's distance of order 1 of the samples from the last draw
  of each held-out chain, in $kT$ and units of length; that of as many training chains, in the rows
  of chains, is the least to be expected;
* *mean energy*: by weighted samples; in the rows of chains over held-out chains.

{covering}
""",
        table(WEIGHED, model_rows(results, sources)),
        """
![Distances and energies of the chains and of the models](particles.png)

Dotted lines are weighted samples; what is beyond an edge is in the last bin.

Of each training, with its own interval over samples, and separately what the solver may have added,
which is in the intervals above too:
""",
        table(SEEDS_APART, seed_rows(results)),
        """
Times are of the processor, on a busy machine, and with the checkpoints.

## What it says
""",
        *(said(name, runs) for name, runs in results.items()),
        compared(results)
        + missing
        + """* Weights see what samples have, not what they lack; the divergence at
  held-out points sees both.
* The sizes were chosen for a short time, and not tuned: small networks and short trainings are no
  comparison with published numbers of larger ones.
""",
    ]
    return "\n".join(lines)


def said(name: str, runs: list[Result]) -> str:
    share, apart = over([r.found.share for r in runs]), over([r.divergence for r in runs])
    unsolved = max(r.found.log_constant.numerical_error for r in runs)
    if unsolved > 1:
        return (
            f"* **`{name}`: the weights say that it is far from the energy, and no more.** One\n"
            "  sample has nearly all the weight, particles of some overlap, and there the solver\n"
            f"  may have added up to {unsolved:.0f} nats at its tolerance."
        )
    return (
        f"* **`{name}`: a share of {share}** of the samples is effective, at a divergence of\n"
        f"  {apart} nats."
    )


def sizes_of(family: str) -> str:
    """The sizes of the networks, trainings and measurements of a family, in one line."""
    system, config = SYSTEMS[family], sf.load_config(f"{family}/m0")
    parameters = sum(p.numel() for p in build_field(config, build_source(config)).parameters())
    return (
        f"* **{system.title}**: {parameters:,} parameters, {config.train.steps:,} steps of\n"
        f"  {config.train.batch_size} points; {system.samples} samples of the flow of each\n"
        f"  training, and its log-density at {system.held_out} held-out points."
    )


def compared(results: dict[str, list[Result]]) -> str:
    """The difference of the potential from the field of a family, in one line a family."""
    lines = []
    for family, system in SYSTEMS.items():
        one, other = (results.get(f"{family}/{member}", []) for member in ("m0", "m2"))
        n = min(len(one), len(other))
        if n < 2:
            continue
        potential, field = ([run.found.share.value for run in runs[:n]] for runs in (other, one))
        found = paired_difference(potential, field)
        low, high = found.interval()
        verdict = "not distinguishable from that of the field"
        if low > 0 or high < 0:
            verdict = "larger" if low > 0 else "smaller"
        lines.append(
            f"* **On {system.title}, after as many steps, the share of the potential is {verdict}**"
            f":\n  the difference is {format_interval(found)}, paired over {n} seeds. A step of a\n"
            "  potential takes longer.\n"
        )
    return "".join(lines)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--presets", default=PRESETS, help="the presets, by commas")
    parser.add_argument("--seeds", default=SEEDS, help="the seeds, by commas")
    given = parser.parse_args()
    torch.set_num_threads(1)
    presets, seeds = given.presets.split(","), list(map(int, given.seeds.split(",")))
    families = dict.fromkeys(preset.partition("/")[0] for preset in presets)
    sources = {family: source_of(family) for family in families}
    results: dict[str, list[Result]] = {preset: [] for preset in presets}
    for seed in seeds:
        for preset in presets:
            source = sources[preset.partition("/")[0]]
            numbers = measured(preset, seed, source, given.root)
            results[preset].append(result(seed, numbers, source))
    given.out.mkdir(parents=True, exist_ok=True)
    draw(results, sources, given.out / "particles.png")
    options_given = (("presets", given.presets, PRESETS), ("seeds", given.seeds, SEEDS))
    chosen = "".join(f" --{name} {value}" for name, value, usual in options_given if value != usual)
    text = page(results, sources, f"python benchmarks/energies.py --out docs/results{chosen}")
    (given.out / "particles.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
