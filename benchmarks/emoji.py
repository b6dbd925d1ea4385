"""Models of emoji: what they learn in minutes of one core, and what a gradient changes.

Reads trainings of ``emoji/m0_small`` and its siblings, evaluated by ``scorefield eval``, and the
npm package that the images are from, whose ``emoji.json`` has the category of each. A classifier of
the categories is trained on the training images, and samples are compared with these by its
features. Differences are those of the model of the same seed that is no gradient, M0. Run as

    python benchmarks/emoji.py runs/emoji package

It writes ``docs/results/emoji/measured.json``, and from it the page ``docs/results/emoji.md`` and
its picture; with ``--page`` the page alone is written again.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from emoji_numbers import CALLS, LEVELS, SAMPLES, measured
from pages import RESULTS, table

import scorefield as sf
from scorefield.comparison.timing import STEP_TIMES
from scorefield.estimate import Estimate, format_interval

FILE = RESULTS / "emoji" / "measured.json"
KINDS = {
    "m0": "no gradient",
    "m1": "a penalty on the asymmetry of the Jacobian",
    "m2": "the gradient of a potential",
    "m3": "penalties on circulation around loops and cycles",
    "m4": "a gradient at noise levels below 1, none above",
}
DIFFERENCES = {
    "denoising": "denoising loss",
    "frechet": "Fréchet distance",
    "kid": "kernel distance (KID)",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "memorisation": "memorisation",
}
RATIOS = {
    "relative_asymmetry": "relative asymmetry",
    "fokker_planck": "Fokker–Planck residual",
    "consistency": "inconsistency of noise levels",
}


def number(row: Mapping[str, Any], key: str) -> Estimate:
    value, error, n, *_ = row["numbers"][key]
    return Estimate(value, error, n)


def change(row: Mapping[str, Any], plain: Mapping[str, Any], key: str) -> Estimate:
    """The difference from the plain model of the same seed, or the ratio to it."""
    if key == "denoising":
        return number(row, "denoising_difference")
    a, b = number(row, key), number(plain, key)
    if key in RATIOS:
        ratio = a.value / b.value
        spread = math.hypot(a.standard_error / a.value, b.standard_error / b.value)
        return Estimate(ratio, ratio * spread, min(a.n, b.n))
    error = math.hypot(a.standard_error, b.standard_error)
    return Estimate(a.value - b.value, error, min(a.n, b.n))


WORDS = ("lower", "higher", "not distinguishable")
Pairs = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


def change_word(pairs: Pairs, key: str, at: float) -> str:
    """How a quantity changes, where the intervals of all seeds agree."""
    ends = [change(row, plain, key).interval() for row, plain in pairs]
    if all(high < at for _, high in ends):
        return WORDS[0]
    return WORDS[1] if all(low > at for low, _ in ends) else WORDS[2]


def page_of(folder: Path) -> str:
    """The page, of the numbers that the folder has."""
    found = json.loads((folder / "emoji" / "measured.json").read_text())
    real, *rows = found["rows"]
    seeds = sorted({row["seed"] for row in rows})
    models = sorted({row["model"] for row in rows})
    of = {(row["model"], row["seed"]): row for row in rows}
    first = of["m0", seeds[0]]
    minutes = sum(row["wall_seconds"] for row in rows) / 60
    names = " ".join(f"emoji/{m}_small" for m in models)
    listed = ",".join(map(str, seeds))
    lines = [
        "# Models of emoji: colour without an account",
        "",
        "The [five models](five_models.md) on coloured pictures: Google's emoji, from an npm "
        f"package, composited on white, 32 × 32 pixels; {real['training']:,} to train on, "
        f"{real['n']} held out.",
        "",
        "![Real emoji above, samples of each model below](emoji.png)",
        "",
        "*From above: training images, held-out images, and samples of "
        f"{', '.join(m.upper() for m in models)} at {CALLS} network calls from the same noise, "
        f"seed {seeds[0]}.*",
        "",
        "```console",
        f"$ curl -O https://registry.npmjs.org/emoji-datasource-google/-/{found['package']}.tgz",
        f"$ tar xf {found['package']}.tgz",
        "$ scorefield data pack package/img/google/64 --dataset emoji --out packed/emoji",
        f"$ scorefield sweep {names} \\",
        f"    data.path=packed/emoji --seeds {listed} --eval",
        "$ python benchmarks/emoji.py runs/emoji package",
        "```",
        "",
        f"Each training sees {first['images']:,} images in {first['steps']} steps; M0 has "
        f"{first['parameters']:,} parameters. All {len(rows)} trainings took {minutes:.0f} minutes "
        "of one core that other work shared, so that times are upper bounds. These are models in "
        "the first minutes of a training, compared with each other after as many images; after "
        "as much time, a model whose step takes longer has seen fewer. "
        f"{found['date']}, {found['versions']}.",
        "",
        "## In plain words",
        "",
    ]
    for model in [m for m in models if m != "m0"]:
        there = [seed for seed in seeds if (model, seed) in of]
        pairs = [(of[model, seed], of["m0", seed]) for seed in there]
        said = {
            **{title: change_word(pairs, key, 0.0) for key, title in DIFFERENCES.items()},
            **{title: change_word(pairs, key, 1.0) for key, title in RATIOS.items()},
        }
        groups = [
            f"*{word}*: {', '.join(title for title, one in said.items() if one == word)}"
            for word in WORDS
            if word in said.values()
        ]
        cost = pairs[0][0]["multiply_adds_per_step"] / pairs[0][1]["multiply_adds_per_step"]
        value, error, n = found["step_ratios"][model]
        lines.append(
            f"* **{model.upper()}**, {KINDS[model]}, against M0 of the same seed: "
            f"{'; '.join(groups)}. A step takes {cost:.2f} times the multiply-adds, and "
            f"{format_interval(Estimate(value, error, n))} times as long, timed in turns beside "
            "other work."
        )
    lines += [
        "",
        "*Lower* and *higher* stand where the 95 % interval, of every seed, is on that side of "
        "no change.",
        "",
        "## Differences from M0",
        "",
        "Model − M0 of the same seed, or their ratio, with 95 % intervals over images"
        f"{', one for each seed' if len(seeds) > 1 else ''}: they hold for these trainings, and "
        "do not contain what varies between trainings. Denoising losses are paired by image and "
        f"noise, and averaged over noise levels from {LEVELS[0]:g} to {LEVELS[-1]:g}; ratios are "
        "of root mean squares over noise levels.",
        "",
    ]
    cells = []
    for key, title in {**DIFFERENCES, **RATIOS}.items():
        own = [format_interval(number(of["m0", seed], key)) for seed in seeds]
        changes = [
            "; ".join(
                format_interval(change(of[model, seed], of["m0", seed], key))
                for seed in seeds
                if (model, seed) in of
            )
            for model in models[1:]
        ]
        known = format_interval(number(real, key)) if key in real["numbers"] else ""
        suffix = ", ratio" if key in RATIOS else ""
        cells.append([f"{title}{suffix}", known, "; ".join(own), *changes])
    lines += [
        table(["", "held-out images", "M0", *(f"{m.upper()} − M0" for m in models[1:])], cells),
        "",
        f"Distances, precision, recall, coverage and memorisation compare {SAMPLES:,} samples with "
        "the training images, by the 32 features of a classifier of the package's categories, "
        "trained on the training images, which puts "
        f"{format_interval(number(real, 'accuracy'))} of the held-out ones into their own; none is "
        "FID. Held-out images are fewer than samples, which makes their Fréchet distance larger "
        "and their coverage smaller. Memorisation is the probability that a sample is nearer to "
        "the training set than a held-out image is.",
        "",
        "## Limitations",
        "",
        f"One data set, {len(seeds)} training{'s' if len(seeds) > 1 else ''} of each model, small "
        "networks early in their training, untuned weights of the penalties, intervals that "
        "are not corrected for the number of comparisons. Many emoji differ in the colour of the "
        "skin alone, so that held-out images have near neighbours in the training set.",
    ]
    return "\n".join(lines) + "\n"


def step_ratios(runs: Path) -> dict[str, list[float]]:
    """The times of a step as multiples of M0's, which the sweep timed in turns: value, standard
    error, number of rounds."""
    stored = json.loads((runs / STEP_TIMES).read_text())["ratios"]
    return {
        name.partition("_")[0]: [e["value"], e["standard_error"], e["n"]]
        for name, e in stored.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="?", help="the folder of the runs")
    parser.add_argument("package", type=Path, nargs="?", help="the folder of the npm package")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    given = parser.parse_args()
    if not given.page:
        about = json.loads((given.package / "package.json").read_text())
        found = {
            "date": datetime.now(UTC).date().isoformat(),
            "versions": f"scorefield {sf.__version__}, torch {torch.__version__}",
            "package": f"{about['name']}-{about['version']}",
            "step_ratios": step_ratios(given.runs),
            "rows": list(measured(given.runs, given.package)),
        }
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "emoji.md").write_text(page_of(RESULTS))


if __name__ == "__main__":
    main()
