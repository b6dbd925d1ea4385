"""Fields as ONNX: the denoiser of a field as a graph that runs without this package."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scorefield.engine import device_of
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.gradient import differentiable
from scorefield.fields.potential import PotentialField
from scorefield.files import write_file
from scorefield.interop.errors import InteropError
from scorefield.interop.traced import traced

_TOLERANCE = 1e-4
_TRACED, _CHECKED = 2, 3
"""Sizes of a batch; of the graph it is free."""


def export_onnx(field: ScoreField, path: str | Path, *, overwrite: bool = False) -> Path:
    r"""Write the denoiser of a field as an ONNX graph.

    Its inputs are ``x`` of shape ``(batch, *event)`` and ``t`` of shape ``(batch,)``, the times of
    the process, in the dtype of the field's weights, and of a class-conditional field ``classes``,
    int64; its output is ``denoised``, :math:`\mathbb{E}[x_0 \mid x_t]`. The size of a batch is
    free. Where onnxruntime is installed, the graph is run and compared with the field first.

    Arguments:
        field: The field.
        path: The file, ending in ``.onnx``.
        overwrite: Whether to replace a file that is there.

    Raises:
        InteropError: If onnx and onnxscript are not installed; the field has operations that ONNX
            has not; or the graph gives other values.
        UserError: If the file exists, or the field does not know its event shape.
    """
    check_field(field)
    path = Path(path)
    if path.suffix != ".onnx":
        raise InteropError(f"{path} must end in .onnx")
    if path.exists() and not overwrite:
        raise InteropError(f"{path} exists: overwrite it, or give another name")
    content = _graph(field)
    _check(field, content, path)
    write_file(path, content)
    return path


class _Denoiser(nn.Module):
    """A field as a function of tensors."""

    def __init__(self, field: ScoreField) -> None:
        super().__init__()
        self.field = field
        self.training = field.training

    def forward(self, x: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.field.denoise(x, t, classes)


def _graph(field: ScoreField) -> bytes:
    inputs = _inputs(field, _TRACED)
    names = ("x", "t", "classes")[: len(inputs)]
    batch = torch.export.Dim("batch", min=1)
    try:
        with evaluation_mode(field), torch.no_grad(), differentiable(), _silent():
            denoiser: nn.Module = _Denoiser(field)
            if any(isinstance(part, PotentialField) for part in field.modules()):
                denoiser = traced(denoiser, _inputs(field, 1 + max(field.domain.shape)))
            program = torch.onnx.export(
                denoiser,
                inputs,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=("denoised",),
                dynamic_shapes=tuple({0: batch} for _ in names),
            )
    except ImportError as error:
        raise InteropError(
            "ONNX needs onnx and onnxscript, which are not installed: "
            'pip install "scorefield[onnx]"'
        ) from error
    except (torch.onnx.OnnxExporterError, NotImplementedError) as error:
        cause = error.__cause__ or error
        words = " ".join(str(cause).split())[:200]
        raise InteropError(f"{type(field).__name__} has no ONNX graph: {words}") from error
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _silent() -> Iterator[None]:
    """Without the exporter's notes on other packages and on its own code."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _inputs(field: ScoreField, n: int) -> tuple[Tensor, ...]:
    """Points, times over the whole process and classes, the same in every call."""
    dtype = next((p.dtype for p in field.parameters()), torch.float32)
    device, sde = device_of(field), field.sde
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, *field.domain.shape, generator=generator)
    t = torch.linspace(sde.t_min + 0.1 * (sde.t_max - sde.t_min), sde.t_max, n)
    given = (x.to(device, dtype), t.to(device, dtype))
    if field.classes is None:
        return given
    return (*given, torch.arange(n, device=device) % field.classes)


def _check(field: ScoreField, content: bytes, path: Path) -> None:
    """Raises ``InteropError`` if the graph, where it can be run, gives other values."""
    try:
        import onnxruntime
    except ImportError:
        return
    inputs = _inputs(field, _CHECKED)
    with evaluation_mode(field), torch.no_grad():
        expected = field.denoise(*inputs).cpu().double().numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = {
        name.name: x.cpu().numpy() for name, x in zip(session.get_inputs(), inputs, strict=True)
    }
    (found,) = session.run(None, given)
    error = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    if not error < _TOLERANCE:
        raise InteropError(f"{path}: the graph differs from the field by {error:.2g}")
