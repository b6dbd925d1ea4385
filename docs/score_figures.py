"""Draw the figures of `docs/score.md`: `python docs/score_figures.py`, a minute on one thread."""

from pathlib import Path

import torch

import scorefield as sf
from scorefield.fields.planted import Matched, PredictedNoise, Turned, Waves, right_angle
from scorefield.files import write_file
from scorefield.plotting import png

FOLDER = Path(__file__).with_name("score")
LEVELS = [0.3, 1.0, 3.0]


def main() -> None:
    truth = sf.GaussianMixture.ring(modes=8, radius=4.0, std=0.35, sde=sf.EDM(0.01, 40.0))
    free = sf.PreconditionedField(sf.MLP(dim=2), truth.sde, sigma_data=truth.std)
    gradient = sf.PotentialField(sf.MLP(dim=2, outputs=1), truth.sde, sigma_data=truth.std)
    for field in (free, gradient):
        sf.fit(field, truth, steps=2000, quiet=True)

    points = truth.sample(1024, seed=0, dtype=torch.float64)
    turned, waves = Turned(PredictedNoise(), right_angle(2)), Waves(2, 4.0, seed=0)
    planted = {
        "exact score + curl alone": Matched(turned, truth, points),
        "exact score + gradient error": Matched(waves, truth, points),
    }
    harmed = {name: sf.PlantedField(truth, error, dose=0.3) for name, error in planted.items()}
    figures = {
        "exact": sf.plot.field(truth, sigma=LEVELS),
        "curl": sf.plot.field({"network": free, "potential": gradient}, sigma=LEVELS, data=truth),
        "harm": sf.plot.compare(harmed, sigma=0.5, data=truth),
    }
    FOLDER.mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_file(FOLDER / f"{name}.png", png(figure))


if __name__ == "__main__":
    main()
