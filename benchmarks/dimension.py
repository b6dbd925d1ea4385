"""The intrinsic dimension of a circle in eight dimensions, with a potential and without.

A plain network and the gradient of a potential are trained on its points, from several seeds.
Reported at each noise level, as means over seeds with 95 % intervals, are

* the trace of the Jacobian of the denoiser, ``intrinsic_dimension``, and its exact value at the
  same points;
* the number of singular values of that Jacobian above one half, and of its symmetric part;
* the place of the largest gap between the singular values of the scores at noised copies of a
  point: the number of directions normal to the data (Stanczuk et al.);
* the divergence and the square of the score at clean points, D + sigma^2 (div s + |s|^2) (Kamkari
  et al.);
* the relative asymmetry of the Jacobian.

The exact field is measured too, by itself and with a rotation of its own size added. Writes
``dimension.csv``, ``dimension.png`` and the page ``dimension.md`` into a folder. What was measured
is kept in another, ``--store``, and is not measured again; with ``--page`` the page alone is
written, of the numbers of the first. Run as

    python benchmarks/dimension.py --out docs/results
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from circle import (
    BATCH,
    CENTRES,
    COPIES,
    DIMENSION,
    HIDDEN,
    SIGMAS,
    STEPS,
    TEST,
    TRAIN,
    measured,
)
from pages import Row, chosen, kept, options, panels, read_csv, table, write_csv

from scorefield.estimate import Estimate, format_interval, mean, paired_difference

LEVEL = 0.05
"""The noise level of the table."""
NAMES = {
    "exact": "exact field",
    "turned": "exact, with a rotation",
    "m0": "plain network",
    "m2": "potential",
}
Records = list[Row]


def over_seeds(records: Records, key: str, **keys: object) -> Estimate:
    return mean([r[key] for r in chosen(records, **keys)])


def cell(records: Records, key: str, **keys: object) -> str:
    e = over_seeds(records, key, **keys)
    if key == "asymmetry" and e.value < 1e-5:
        return "rounding"
    return f"{e.value:.5g}" if e.standard_error < 1e-9 else format_interval(e)


def difference(one: Records, other: Records, key: str) -> str:
    e = paired_difference([r[key] for r in one], [r[key] for r in other])
    return format_interval(e)


COLUMNS = {
    "trace": "trace",
    "exact": "exact trace at these points",
    "loss": "denoising loss times D",
    "at_clean": "divergence and square at clean points",
    "above_half": "singular values above ½",
    "above_half_symmetric": "of the symmetric part",
    "gap": "by the gap",
    "gap_right": "share of points where the gap is right",
    "asymmetry": "relative asymmetry",
}


def table_of(records: Records) -> str:
    rows = (
        [name, *(cell(records, key, model=m, sigma=LEVEL) for m in NAMES)]
        for key, name in COLUMNS.items()
    )
    return table(["", *NAMES.values()], rows)


def draw(records: Records, path: Path) -> None:
    figure, axes = panels(1, 2, 10, 4.2, sharey=True)
    colours = {
        "exact": "black",
        "turned": "#999999",
        "m0": "#0072B2",
        "m2": "#D55E00",
    }
    titles = {"trace": "by the trace of the Jacobian", "gap": "by the gap of singular values"}
    for panel, (key, title) in zip(axes, titles.items(), strict=True):
        panel.axhline(DIMENSION, color="black", linewidth=0.8, linestyle=":")
        for shift, (model, colour) in enumerate(colours.items()):
            found = [over_seeds(records, key, model=model, sigma=s) for s in SIGMAS]
            low, high = zip(*(e.interval() for e in found), strict=True)
            values = np.array([e.value for e in found])
            sizes = np.array([values - low, high - values])
            panel.errorbar(
                np.array(SIGMAS) * (1 + 0.04 * (shift - 1.5)),
                values,
                sizes,
                color=colour,
                label=NAMES[model],
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=1,
            )
        panel.set(xscale="log", title=title, xlabel="noise level", ylabel="dimensions")
        panel.set(ylim=(0, None))
        panel.set_xticks(SIGMAS, [f"{s:g}" for s in SIGMAS])
        panel.minorticks_off()
    axes[0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


PAGE = """\
# Intrinsic dimension with a potential and without

At little noise a denoiser keeps the directions along the data and removes those across. Two
estimators count them: the trace of its Jacobian
({{func}}`~scorefield.diagnostics.dimension.intrinsic_dimension`), and the largest gap between the
singular values of the scores at noised copies of a point (Stanczuk et al., 2024, arXiv
2212.12611). Horvat and Pfister (2024, arXiv 2402.03845) argue that for such local information it
is desirable that the field is conservative. Does it matter?

## Method

A circle of radius 1 in a random plane of eight dimensions, whose field is known at every noise
level. {train:,} of its points train a plain network and the gradient of a potential, with
{steps:,} steps of {batch} points: `sf.MLP` of three layers of {hidden}, EDM from 0.01 to 10,
noise levels uniform in their logarithm, {seeds} seeds of each.

```console
$ python benchmarks/dimension.py --out docs/results
```

writes this page, the figure and [`dimension.csv`](dimension.csv), with all noise levels. The
trainings took {seconds:.0f} s of processor time, in one process on a busy machine.

At each noise level, over {points} noised points that no network has seen:

* the **trace** of the Jacobian of the denoiser; its exact value at the same points; and D times
  the denoising loss, which of the exact field has the same mean;
* the **divergence and square at clean points**, D + σ²(∇·s + |s|²) (Kamkari et al., 2024, arXiv
  2406.03537);
* the number of **singular values above ½** of the Jacobian, and of its symmetric part, in which
  there is no curl;
* the estimate **by the gap**, at {centres} points with {copies} noised copies of each, and the
  share of points where it is right;
* the **relative asymmetry**, 0 for a gradient and 1 for a rotation.

The exact field is measured with a rotation added too, whose size is that of the field itself: a
score s + Rs with a skew matrix R. All intervals are 95 % ones over seeds.

## At the noise level {level}

{table}

![Both estimators by noise level](dimension.png)

Bars are 95 % intervals over seeds; dotted is the dimension of the data.

## What it says

{findings}

## What the numbers do not cover

* **Equal numbers of steps, and not equal cost**: one of the potential's took {cost:.1f} times the
  processor time, and a longer training of the plain network was not made.
* One curve in eight dimensions, without noise of its own; small networks and short trainings;
  {seeds} seeds of each.
* The gap is that of Stanczuk et al. with four times as many copies as dimensions, at the
  noise level of the table.
"""


def findings(records: Records) -> str:
    """What the numbers of the table are evidence of."""

    def at(model: str, key: str) -> str:
        return cell(records, key, model=model, sigma=LEVEL)

    def rows(model: str) -> Records:
        return chosen(records, model=model, sigma=LEVEL)

    plain = chosen(records, model="m0")
    curled = mean([r["above_half"] - r["above_half_symmetric"] for r in plain])
    lines = [
        f"**After as many steps the potential is nearer to the dimension**: its trace is "
        f"{at('m2', 'trace')}, that of the plain network {at('m0', 'trace')}; the difference, "
        f"paired by seed, is {difference(rows('m2'), rows('m0'), 'trace')}. By the gap the "
        f"potential is right at a share of {at('m2', 'gap_right')} of the points, the plain "
        f"network at {at('m0', 'gap_right')}.",
        f"**Curl is not the reason.** The trace is that of the symmetric part, in which there is "
        f"none. The number of singular values above ½ changes by {format_interval(curled)} when "
        f"the curl of the plain network is taken out of its Jacobian (mean over seeds and "
        f"noise levels). And the exact field with a rotation of its own size keeps its trace, "
        f"{at('turned', 'trace')}; the gap is right at {at('turned', 'gap_right')} of the points, "
        f"as a rotation of the scores keeps their rank.",
        f"**Curl does spoil the singular values of the Jacobian**: of that field "
        f"{at('turned', 'above_half')} of eight are above ½, and "
        f"{at('turned', 'above_half_symmetric')} of its symmetric part. Take the symmetric part, "
        f"or the trace.",
        f"**The denoising loss goes the same way**: times D it is {at('exact', 'loss')} for the "
        f"exact field, {at('m2', 'loss')} for the potential and {at('m0', 'loss')} for the plain "
        f"network, which has not learned how thin the data are. The difference of the two "
        f"networks, paired by seed, is {difference(rows('m2'), rows('m0'), 'loss')}.",
        f"**At clean points the estimate has an error of its own**, that of the square of the "
        f"score: {at('m2', 'at_clean')} for the potential, whose trace is {at('m2', 'trace')}.",
    ]
    return "\n".join(f"* {line}" for line in lines)


def page_of(folder: Path) -> str:
    """The page, of the numbers that the folder has."""
    records = read_csv(folder / "dimension.csv")
    seconds = {
        m: sum(r["seconds"] for r in chosen(records, model=m, sigma=LEVEL)) for m in ("m0", "m2")
    }
    return PAGE.format(
        cost=seconds["m2"] / seconds["m0"],
        train=TRAIN,
        steps=STEPS,
        batch=BATCH,
        hidden=HIDDEN,
        seeds=len({r["seed"] for r in records}),
        seconds=sum(seconds.values()),
        points=TEST // 2,
        centres=CENTRES,
        copies=COPIES,
        level=LEVEL,
        table=table_of(records),
        findings=findings(records),
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--store", type=Path, default=Path("runs/dimension_measured"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.page:
        torch.set_num_threads(1)
        records: Records = []
        for seed in range(given.seeds):
            for model in NAMES:
                file = given.store / f"{model}_{seed}.json"
                records += kept(file, partial(measured, model, seed))
        write_csv(records, given.out / "dimension.csv", 5)
        draw(records, given.out / "dimension.png")
    (given.out / "dimension.md").write_text(page_of(given.out), encoding="utf-8")


if __name__ == "__main__":
    main()
