r"""Folders with a configuration and a state dict, in place of files that hold code.

The models of some code bases are published as pickles of whole modules, with their source code.
None of it is executed here: where the code is trusted, a few lines write what is read instead,

* ``model.json``: the class, as the key ``class``, and the arguments of its constructor;
* ``model.safetensors`` or ``model.pt``: the state dict.

Names of arguments and weights are those of the authors. A network is built from the arguments, and
every weight must be there, with the shape that it has in this network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from inspect import Parameter, signature
from pathlib import Path
from reprlib import repr as shortened
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from scorefield.errors import UserError, hint
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.files import DOCUMENT, read_file, reason
from scorefield.interop.errors import InteropError, compare
from scorefield.interop.unpickling import read_state
from scorefield.networks.checks import image_shape

INDEX = "model.json"
"""The file that makes a folder one of these."""

WEIGHTS = ("model.safetensors", "model.pt")
"""The files of the state dict, of which there is one."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_LARGEST, _MOST_BLOCKS = 10**6, 100
"""Of a configuration: the largest whole number, and the blocks of a level. It is not trusted."""

_WORDS = {
    bool: "true or false",
    int: f"a whole number up to {_LARGEST}",
    float: "a number",
    str: "a text",
    NoneType: "null",
}


class Backbone(nn.Module):
    """A network of another code base, called as ``network(x, label, classes)``.

    Arguments:
        shape: The shape (channels, height, width) of a point.
        levels: The number of resolutions.
        blocks: The number of blocks of each.
        classes: The number of classes; ``None`` without any.
        unlabelled: Whether it was trained on points of no class too.

    Raises:
        ValueError: If the image cannot be halved so often, or there are too many blocks.

    Attributes:
        latents: Whether points are latents of images.
        unused: The shapes of weights that a state dict may have and that are without effect.
        convention: A sentence on what it predicts and how it is called.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        blocks: int,
        classes: int | None,
        unlabelled: bool = False,
    ) -> None:
        super().__init__()
        self.event_shape = image_shape(shape, levels, "the image")
        if blocks > _MOST_BLOCKS:
            raise InteropError(f"{blocks} blocks of a level are more than {_MOST_BLOCKS}")
        self.classes, self.unlabelled = classes, unlabelled or classes is None
        self.latents, self.convention = False, ""
        self.unused: dict[str, tuple[int, ...]] = {}

    def one_hot(
        self, classes: Int[Tensor, " batch"] | None, like: Float[Tensor, "batch *rest"]
    ) -> Float[Tensor, "batch classes"]:
        """A row for each point, with 1 at the place of its class; zeros for no class."""
        count = self.classes or 0
        if classes is None:
            return like.new_zeros(len(like), count)
        places = torch.arange(count, device=classes.device)
        return (classes[:, None] == places).to(like.dtype)

    def words(self) -> str:
        """The kind of points and the classes, as a part of :attr:`convention`."""
        shape = "×".join(map(str, self.event_shape))
        points = f"points are {'latents' if self.latents else 'images in [-1, 1]'}, {shape}"
        none = ", or none" if self.unlabelled else ""
        return f"{points}; {'no' if self.classes is None else self.classes} classes" + (
            none if self.classes else ""
        )


N = TypeVar("N", bound=Backbone)


def loaded(
    folder: Path,
    recipe: str,
    field_of: Callable[[Mapping[str, Any], Mapping[str, Tensor]], PreconditionedField],
) -> PreconditionedField:
    """The field of a folder; nothing in it is executed.

    Arguments:
        folder: The folder.
        recipe: A clause on how to write one, which ends the sentence about a file with code.
        field_of: Makes the field of a configuration and a state dict.

    Raises:
        InteropError: If it is no such folder, a file in it cannot be read, or the two do not fit.
    """
    if folder.is_file():
        raise InteropError(f"{folder} is a file, which was neither read nor run; {recipe}")
    config, state = read_configuration(folder), _read_weights(folder, recipe)
    try:
        return field_of(config, state)
    except UserError as error:
        raise InteropError(f"{folder}: {error}") from error


def read_configuration(folder: Path) -> dict[str, Any]:
    """The configuration of a folder, with the class of the network under ``class``.

    Raises:
        InteropError: If there is none.
    """
    file = folder / INDEX
    try:
        config = json.loads(read_file(file, DOCUMENT))
    except OSError as error:
        raise InteropError(f"{file} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InteropError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("class"), str):
        raise InteropError(
            f"{file} must have the arguments of a network by their names, and its class as 'class'"
        )
    return config


def _read_weights(folder: Path, recipe: str) -> dict[str, Tensor]:
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if len(found) != 1:
        raise InteropError(
            f"{folder} must have the weights as {' or '.join(WEIGHTS)}, and has {len(found)} of "
            "these files"
        )
    (file,) = found
    if file.suffix == ".pt":
        return read_state(file, recipe)
    try:
        return load_tensors(read_file(file))
    except OSError as error:
        raise InteropError(f"{file} cannot be read: {reason(error)}") from error
    except SafetensorError as error:
        raise InteropError(f"{file} is truncated or not a safetensors file") from error


def split_class(config: Mapping[str, Any], known: Collection[str]) -> tuple[str, dict[str, Any]]:
    """The name of the class in a configuration, and its arguments.

    Raises:
        InteropError: If it is none of the known ones.
    """
    given = dict(config)
    name = given.pop("class", None)
    if not isinstance(name, str) or name not in known:
        either = "one of " if len(known) > 1 else ""
        raise InteropError(f"class is {name!r}, it must be {either}{', '.join(known)}")
    return name, given


def arguments(
    name: str, kind: type, given: Mapping[str, Any], own: Mapping[str, Any] = _NOTHING
) -> dict[str, Any]:
    """The arguments of a class: those of a configuration, checked against the signature, and
    others.

    Arguments:
        name: The name of the published class.
        kind: The class.
        given: The arguments of the configuration.
        own: Those that a configuration does not have.

    Raises:
        InteropError: If one is unknown, missing, or of another type.
    """
    known, kinds = signature(kind).parameters, get_type_hints(kind.__init__)  # type: ignore[misc]
    names = [key for key in known if key not in own]
    for key, value in given.items():
        if key not in names:
            raise InteropError(f"{name} has no argument {key!r}; {hint(key, names, 'there')}")
        if not _fits(value, kinds[key]):
            raise InteropError(
                f"{name}: {key} is {shortened(value)}, it must be {_words(kinds[key])}"
            )
    needed = [key for key in names if known[key].default is Parameter.empty]
    if missing := [key for key in needed if key not in given]:
        raise InteropError(f"the configuration of {name} lacks {', '.join(missing)}")
    return {**given, **own}


def filled(make: Callable[[], N], state: Mapping[str, Tensor]) -> N:
    """A network with the weights of a state dict, in float32, or their dtype where that is more
    precise.

    Arguments:
        make: Makes the network.
        state: The weights.

    Raises:
        InteropError: If there is no such network, or a weight is missing, surplus, of another
            shape, or not of real numbers.
    """
    try:
        # The weights are those of the state dict: no others are made.
        with torch.device("meta"):
            network = make()
    except UserError as error:
        raise InteropError(str(error)) from error
    except (ValueError, ArithmeticError, RuntimeError, LookupError) as error:
        raise InteropError(f"there is no network of this configuration: {error}") from error
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    compare(shapes, network.unused, state)
    for name, weight in state.items():
        if not weight.is_floating_point():
            raise InteropError(f"the weights of {name} are {weight.dtype}, not real numbers")
    dtype = reduce(torch.promote_types, (w.dtype for w in state.values()), torch.float32)
    weights = {name: state[name].to(dtype, copy=True) for name in shapes}
    network.load_state_dict(weights, assign=True)
    return network


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is Sequence:
        (part,) = get_args(kind)
        return isinstance(value, list | tuple) and all(_fits(v, part) for v in value)
    if origin is UnionType:
        return any(_fits(value, part) for part in get_args(kind))
    return type(value) is kind and (kind is not int or abs(value) <= _LARGEST)


def _words(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _WORDS:
        return _WORDS[kind]
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin is Sequence:
        return f"a list of which each is {_words(parts[0])}"
    # A number may be a whole one.
    return " or ".join(_words(part) for part in parts if not (part is int and float in parts))
