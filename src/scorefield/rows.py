"""Layers that receive numbers of each row of a batch in training, beside their input: the keys of
its dropout, the labels of its augmentation. Whoever calls a network with some rows only hands on
those of these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn


class RowLayer(nn.Module):
    """A layer with numbers of each row: ``None`` until :func:`set_rows` sets them."""

    _rows: Tensor | None = None


def set_rows(layer: RowLayer, numbers: Tensor | None) -> None:
    """Sets the numbers of a layer for all calls that follow, those in a backward pass too."""
    layer._rows = numbers


@contextmanager
def of_rows(module: nn.Module, rows: Int[Tensor, " some"]) -> Iterator[None]:
    """A part of a field is called with some rows of a batch only."""
    now = _numbers(module)
    with _having([(layer, None if found is None else found[rows]) for layer, found in now]):
        yield


def keyed(module: nn.Module) -> Callable[..., Any]:
    """A module that is called with the numbers that its layers have now, whenever it is called."""
    now = _numbers(module)

    def call(*inputs: Any) -> Any:
        with _having(now):
            return module(*inputs)

    return call


def _numbers(module: nn.Module) -> list[tuple[RowLayer, Tensor | None]]:
    # A walk through a network takes as long as some of its layers.
    parts = module.modules() if module.training else ()
    layers = [part for part in parts if isinstance(part, RowLayer) and part.training]
    return [(layer, layer._rows) for layer in layers]


@contextmanager
def _having(numbers: Sequence[tuple[RowLayer, Tensor | None]]) -> Iterator[None]:
    before = [(layer, layer._rows) for layer, _ in numbers]
    try:
        for layer, own in numbers:
            layer._rows = own
        yield
    finally:
        for layer, own in before:
            layer._rows = own
