"""Trainings by one process, two and four, started by torchrun: whole trajectories compared.

Exactly equal are the points, times, normals, keys and masks of dropout of every step. Weights are
equal to rounding. A gradient is a sum over processes, whose last digits depend on their number.
Adam divides it by the root of its second moment plus 1e-8, so that a weight whose gradient is
rounding alone moves as far as any other, unless that is small beside 1e-8; and a step begins where
the one before it has ended. In float64, whose unit of rounding is 1e-16, such weights stay, and the
bound is 1e-11 of the way that all weights have gone. In float32, 6e-8, they do not, and the bound
is 1e-3 of it, and of the losses 2e-3.

    python -m tests.hostile.ranks
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch._dynamo  # the first optimiser imports it

from scorefield.config.build import build_training
from scorefield.config.resolve import load_config
from scorefield.dropout import dropouts, dropped
from scorefield.engine import Engine
from scorefield.runs.run import Run
from scorefield.training.trainer import Trainer
from tests.several import port

STEPS, SIZES = 200, (2, 4)
CASES = {
    **{f"{data}/m{k}": [] for data in ("toy", "digits") for k in range(5)},
    "digits/ncsnpp_ve": ["field.network.dropout=0.1"],
}
# Of the way of the weights, and of the losses and norms of gradients.
BOUNDS = {torch.float64: (1e-11, 1e-11), torch.float32: (1e-3, 2e-3)}
COLUMNS = ("seconds_per_step", "step", "images", "lr", "ema_decay")


def digest(tensors):
    found = hashlib.blake2b()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def trained(preset, steps, dtype, world):
    """The draws of all steps, the rows of the metrics, and the weights before and after."""
    run = Run(None, load_config(preset, CASES[preset]))
    optim, settings = build_training(run.config)
    # An average without a memory is the weights.
    kept = {"log_every": 1, "checkpoint_every": steps, "ema_decay": 0.0}
    settings = replace(settings, steps=steps, **kept)
    field = run.untrained().to(dtype)
    n, draws, masks = settings.batch_size, [], []
    trainer = Trainer(
        field, run.source(), run.objective(), optim, settings, run.config.seed,
        quiet=True, engine=Engine("cpu", world=world),
    )  # fmt: skip
    drawn = trainer.stepper._batch

    def batch(step):
        found = drawn(step)
        draws.append(digest(world.gather(part, n) for part in found if part is not None))
        return found

    def masked(layer, inputs, output):
        if layer.training:
            mask = dropped(inputs[0], layer._rows, layer.p)
            masks.append(digest([world.gather(mask.to(torch.uint8), n)]))

    trainer.stepper._batch = batch
    for layer in dropouts(field):
        layer.register_forward_hook(masked)
    first = flat(field)
    fit = trainer.run()
    rows = [{k: v for k, v in row.items() if k not in COLUMNS} for row in fit.history]
    return {"draws": draws, "masks": masks, "rows": rows, "first": first, "last": flat(fit.field)}


def flat(field):
    return torch.cat([p.detach().flatten().double() for p in field.parameters()])


def by_torchrun(size, presets, steps, root):
    """The trainings of so many processes, by preset and dtype."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    command += ["--master-port", str(port()), "-m", "tests.hostile.ranks"]
    command += ["--steps", str(steps), "--presets", ",".join(presets), "--to", root / f"{size}.pt"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return torch.load(root / f"{size}.pt")


def compare(presets, steps=STEPS, sizes=SIZES, report=print):
    """What differs between the trainings of one process and those of several."""
    wrong = []
    with tempfile.TemporaryDirectory() as root:
        one, *others = (by_torchrun(n, presets, steps, Path(root)) for n in (1, *sizes))
    for size, found in zip(sizes, others, strict=True):
        for (preset, dtype), whole in one.items():
            away, losses, exact = difference(found[preset, dtype], whole)
            words = f"{preset}, {dtype}, {size} processes: draws {'equal' if exact else 'differ'}, "
            words += f"weights {away:.1e} of their way, losses {losses:.1e}"
            report(words)
            if not exact or away > BOUNDS[dtype][0] or losses > BOUNDS[dtype][1]:
                wrong.append(words)
    return wrong


def difference(found, whole):
    """That of the weights, relative to the way from the first to the last; the largest relative one
    of numbers in the metrics; and whether all that is drawn is equal.
    """
    exact = all(found[k] == whole[k] for k in ("draws", "masks")) and whole["draws"] != []
    away = (found["last"] - whole["last"]).norm() / (whole["last"] - whole["first"]).norm()
    exact = exact and [r.keys() for r in found["rows"]] == [r.keys() for r in whole["rows"]]
    pairs = zip(found["rows"], whole["rows"], strict=True)
    losses = max(abs(a[k] - b[k]) / max(abs(b[k]), 1e-3) for a, b in pairs for k in b if k in a)
    return float(away), losses, exact


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--presets", default=",".join(CASES))
    parser.add_argument("--to", type=Path)
    given = parser.parse_args()
    presets = given.presets.split(",")
    if given.to is None:
        wrong = compare(presets, given.steps)
        print(f"{len(wrong)} wrong", *wrong, sep="\n")
        return int(bool(wrong))
    torch.set_num_threads(1)
    with Engine("cpu").joined() as engine:
        found = {
            (preset, dtype): trained(preset, given.steps, dtype, engine.world)
            for preset in presets
            for dtype in BOUNDS
        }
        if engine.world.first:
            torch.save(found, given.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
