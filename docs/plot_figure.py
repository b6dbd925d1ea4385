"""Draw `docs/plot.png`, the picture of the page on pictures: `python docs/plot_figure.py`, a minute
on one thread.
"""

from pathlib import Path

import scorefield as sf
from scorefield.files import write_file
from scorefield.plotting import png

PLACE = Path(__file__).with_name("plot.png")


def main() -> None:
    truth = sf.GaussianMixture.ring(modes=8, radius=4.0, std=0.35, sde=sf.EDM(sigma_max=40.0))
    free = sf.PreconditionedField(sf.MLP(dim=2), truth.sde, sigma_data=truth.std)
    gradient = sf.PotentialField(sf.MLP(dim=2, outputs=1), truth.sde, sigma_data=truth.std)
    for field in (free, gradient):
        sf.fit(field, truth, steps=2000, quiet=True)
    figure = sf.plot.compare({"M0": free, "M2": gradient}, sigma=0.5, data=truth)
    write_file(PLACE, png(figure))


if __name__ == "__main__":
    main()
