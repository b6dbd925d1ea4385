"""Models of EDM, EDM2 and guided-diffusion: the folder of any of them as a field."""

from __future__ import annotations

from pathlib import Path

from scorefield.errors import hint
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.interop import edm, edm2, guided_diffusion
from scorefield.interop.errors import InteropError
from scorefield.interop.folder import INDEX, read_configuration

_LOADERS = {
    **dict.fromkeys(edm.PRECONDITIONERS, edm.load),
    edm2.CLASS: edm2.load,
    guided_diffusion.CLASS: guided_diffusion.load,
}
"""What reads the folder of a published class."""


def is_foreign(path: Path) -> bool:
    """Whether a path is such a folder, or a pickle in place of one."""
    return (path / INDEX).is_file() or (path.is_file() and path.suffix == ".pkl")


def load(path: str | Path) -> PreconditionedField:
    """The field of a folder with ``model.json`` and the weights, in evaluation mode; what it states
    of its convention is ``field.backbone.convention``.

    Raises:
        InteropError: If the class in it is none of the known ones, or as of the ``load`` of its
            code base.
    """
    path = Path(path)
    if path.is_file():
        return edm.load(path)  # It refuses it, with the recipe.
    kind = read_configuration(path)["class"]
    if kind not in _LOADERS:
        raise InteropError(
            f"{path / INDEX}: class is {kind!r}; {hint(kind, _LOADERS, 'known ones')}"
        )
    return _LOADERS[kind](path)
