r"""Sampling under a linear measurement.

A measurement :math:`y = A x_0` determines the part of a sample in the row space of :math:`A`, and
leaves the rest free. With the orthogonal projection :math:`P` onto that space and the point
:math:`\hat y = A^+ y` in it, a sampler imposes the known part on its states, noised to their level,

.. math:: x \leftarrow x - P x + P\,(\alpha_t\,\hat y + \sigma_t\,n), \qquad n \sim N(0, I),

at the start and after every update, at the time of arrival, with :math:`n = 0` for a state without
noise, such as the mean of the last update. The measured part of a sample is therefore exact.

The rest is an approximation: only the remaining steps adapt the unknown part to the known one. Its
distribution is that of :math:`x_0` given :math:`y` if the two parts are independent, and otherwise
lies between that and the one without the measurement. Example: two normal coordinates of
correlation 0.8, of which one is known to be 1. The exact mean and variance of the other are 0.8 and
0.36; over all continuous processes 1,000 ancestral steps give 0.50 and 0.49 to 0.50, 18 steps of
:class:`~.Heun` 0.29 to 0.31 and 0.69 to 0.79 (300 steps 0.34 to 0.35 and 0.60), and four corrector
steps of :class:`~.AnnealedLangevin` with ratio 0.5 at each of 100 times 0.72 to 0.76 and 0.38 to
0.41.

References:
    Score-based generative modeling through stochastic differential equations (Song,
    Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, 2021), appendices I.2 and I.3.

    RePaint: inpainting using denoising diffusion probabilistic models (Lugmayr, Danelljan, Romero,
    Yu, Timofte and Van Gool, 2022), section 4.2, for the limits of replacement alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scorefield.checks import check_floating
from scorefield.errors import UserError

MeasurementT = TypeVar("MeasurementT", bound="Measurement")


class Measurement(ABC):
    r"""A linear measurement of samples, as an orthogonal projection and a point in its range.

    Arguments:
        known: The points :math:`\hat y = P \hat y`, clean and in units of the data: one for all
            samples, or one for each.
    """

    def __init__(self, known: Float[Tensor, "n *event"]) -> None:
        self.known = known

    @abstractmethod
    def project(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        r"""The part :math:`P x` of points that is measured."""

    @abstractmethod
    def rows(
        self: MeasurementT, rows: slice, dtype: torch.dtype, device: torch.device
    ) -> MeasurementT:
        """The measurements of some of the samples, for states of a dtype on a device."""

    def impose(
        self,
        x: Float[Tensor, "batch *event"],
        alpha: float | Tensor,
        sigma: float | Tensor = 0.0,
        z: Float[Tensor, "batch *event"] | None = None,
    ) -> Float[Tensor, "batch *event"]:
        r"""The points with their measured part replaced, :math:`x - P x + \alpha \hat y + \sigma P
        z`; without standard normals ``z``, the known part has no noise.
        """
        rest = x - self.project(x) + alpha * self.known
        return rest if z is None else rest + sigma * self.project(z)

    def check(self, n: int, shape: tuple[int, ...]) -> None:
        """Raises ``ValueError`` unless the measurement is one of ``n`` samples of a shape."""
        if self.known.shape[1:] != shape:
            raise UserError(
                f"a measurement of points of shape {tuple(self.known.shape[1:])} was given to a "
                f"field on event shape {shape}"
            )
        if len(self.known) not in (1, n):
            raise UserError(f"{n} samples cannot agree with {len(self.known)} measurements")


class Inpainting(Measurement):
    r"""Known coordinates: :math:`P` keeps those of the mask.

    Arguments:
        mask: Which coordinates are known, 1 or ``True`` there; broadcast against ``known``.
        known: Points of shape ``(n, *event)``, one for each sample or a single one for all; used
            only where the mask is set.

    Raises:
        ValueError: If the mask does not broadcast to ``known``, has other values than 0 and 1 or
            is empty, or ``known`` is not of floating-point numbers, finite where it is set.
    """

    def __init__(self, mask: Tensor, known: Float[Tensor, "n *event"]) -> None:
        check_floating("known", known)
        if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
            raise UserError("mask must be 1 where a coordinate is known and 0 elsewhere")
        try:
            self.mask: Bool[Tensor, "n *event"] = (mask != 0).expand(known.shape)
        except RuntimeError:
            raise UserError(
                f"mask of shape {tuple(mask.shape)} does not broadcast to known of shape "
                f"{tuple(known.shape)}"
            ) from None
        if not bool(self.mask.any()):
            raise UserError("mask is 0 everywhere: it leaves nothing known")
        # What stands at unknown places may be anything, also no number.
        super().__init__(torch.where(self.mask, known, 0))
        _check_finite("known", self.known, " where the mask is set")

    def project(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        return torch.where(self.mask, x, 0)

    def rows(self, rows: slice, dtype: torch.dtype, device: torch.device) -> Inpainting:
        part = object.__new__(Inpainting)
        part.mask = _select(self.mask, rows).to(device)
        part.known = _select(self.known, rows).to(device=device, dtype=dtype)
        return part


class Colorization(Measurement):
    r"""Known grey values of an image: :math:`P` is the projection onto the direction :math:`(1,
    \dots, 1) / \sqrt C` of the channels.

    Arguments:
        gray: Grey images, the mean of the channels: of shape ``(n, 1, *space)``, or ``(n, C,
            *space)`` with equal channels.
        channels: The number :math:`C` of channels of the samples.

    Raises:
        ValueError: If ``gray`` has another shape, unequal channels or values that are not finite
            floating-point numbers.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), appendix I.3.
    """

    def __init__(self, gray: Float[Tensor, "n c *space"], channels: int = 3) -> None:
        check_floating("gray", gray)
        if gray.dim() < 2 or gray.shape[1] not in (1, channels):
            raise UserError(f"gray has 1 or {channels} channels, got shape {tuple(gray.shape)}")
        _check_finite("gray", gray)
        if not torch.allclose(gray, gray[:, :1], rtol=1e-5, atol=1e-6):
            raise UserError("gray must have the same values in all channels")
        super().__init__(gray.mean(dim=1, keepdim=True).expand(-1, channels, *gray.shape[2:]))

    def project(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        return x.mean(dim=1, keepdim=True).expand_as(x)

    def rows(self, rows: slice, dtype: torch.dtype, device: torch.device) -> Colorization:
        part = object.__new__(Colorization)
        part.known = _select(self.known, rows).to(device=device, dtype=dtype)
        return part


class LinearMeasurement(Measurement):
    r"""Any linear measurement :math:`y = A x_0`.

    With the singular value decomposition :math:`A = U S V^T`, cut off where singular values are
    rounding errors, :math:`P = V V^T` and :math:`\hat y = V S^{-1} U^T y`. The rows of :math:`A`
    may be linearly dependent.

    Arguments:
        matrix: The matrix :math:`A`, of shape ``(m, *event)``: each row is shaped like a sample.
        y: The data, of shape ``(n, m)``: one row for each sample, or a single one for all.
        least_squares: Whether to replace inconsistent data, which no :math:`x_0` has, by the
            nearest consistent data.

    Raises:
        ValueError: If a shape does not fit, a value is not a finite floating-point number, the
            matrix is zero, or ``y`` is inconsistent by more than :math:`10^{-5}` of its size.
    """

    def __init__(
        self,
        matrix: Float[Tensor, "m *event"],
        y: Float[Tensor, "n m2"],
        least_squares: bool = False,
    ) -> None:
        check_floating("y", y)
        check_floating("matrix", matrix)
        if y.dim() != 2 or matrix.dim() < 1:
            raise UserError(
                "matrix has the shape (m, *event) and y the shape (n, m), got "
                f"{tuple(matrix.shape)} and {tuple(y.shape)}"
            )
        if y.shape[1] != len(matrix):
            raise UserError(f"y has {y.shape[1]} values a sample, and matrix {len(matrix)} rows")
        _check_finite("matrix", matrix)
        _check_finite("y", y)
        a = matrix.reshape(len(matrix), -1).to(torch.float64)
        data = y.to(torch.float64)
        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        kept = s > max(a.shape) * torch.finfo(torch.float64).eps * s[0]
        if not bool(kept.any()):
            raise UserError("matrix is zero: it measures nothing")
        u, s, self._axes = u[:, kept], s[kept], vh[kept]
        along = data @ u
        missed = torch.linalg.vector_norm(data - along @ u.T, dim=1)
        size = torch.linalg.vector_norm(data, dim=1)
        if not least_squares and bool((missed > 1e-5 * size).any()):
            worst = int((missed / size.clamp(min=torch.finfo(size.dtype).tiny)).argmax())
            raise UserError(
                f"y contradicts itself: no point has the measurements of row {worst}, the nearest "
                f"are {float(missed[worst]):.3g} away; least_squares=True takes those"
            )
        super().__init__(((along / s) @ self._axes).reshape(-1, *matrix.shape[1:]))

    def project(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        return ((x.reshape(len(x), -1) @ self._axes.T) @ self._axes).reshape(x.shape)

    def rows(self, rows: slice, dtype: torch.dtype, device: torch.device) -> LinearMeasurement:
        part = object.__new__(LinearMeasurement)
        part._axes = self._axes.to(device=device, dtype=dtype)
        part.known = _select(self.known, rows).to(device=device, dtype=dtype)
        return part


def _select(value: Tensor, rows: slice) -> Tensor:
    """The rows of some samples; a single row is of all."""
    return value if len(value) == 1 else value[rows]


def _check_finite(name: str, value: Tensor, where: str = "") -> None:
    if not bool(value.isfinite().all()):
        raise UserError(f"{name} must be finite{where}")
