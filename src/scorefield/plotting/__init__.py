"""Figures of fields, noise-level profiles, samples and trajectories, in one palette.

Every function draws on matplotlib axes that the caller has made; :func:`new_figure` makes them
without a display, and :func:`png` and :func:`webp` turn a figure into the bytes of a file.
Matplotlib is imported when something is drawn.
"""

from scorefield.plotting.axes import (
    MOST_IMAGES,
    contours,
    curl_map,
    image_grid,
    label_axes,
    legend,
    noise_profile,
    quiver,
    samples_figure,
    scatter,
    show_image,
    trajectories,
)
from scorefield.plotting.palette import EXACT, Look, looks
from scorefield.plotting.png import new_figure, png, webp
from scorefield.plotting.score_line import ScoreLine, draw_score_line, score_line, training_figures

__all__ = [
    "Look",
    "looks",
    "EXACT",
    "new_figure",
    "png",
    "webp",
    "quiver",
    "curl_map",
    "contours",
    "noise_profile",
    "label_axes",
    "legend",
    "image_grid",
    "show_image",
    "scatter",
    "trajectories",
    "samples_figure",
    "MOST_IMAGES",
    "ScoreLine",
    "score_line",
    "draw_score_line",
    "training_figures",
]
