r"""Updates of the weights, of which those that are not finite are skipped on their device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from scorefield.errors import UserError
from scorefield.training.settings import Optim
from scorefield.training.sharding import joined, own, shard_of
from scorefield.world import ALONE, World

_KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
# Those of torch's GradScaler.
_SCALE, _PATIENCE = 2.0**16, 2000


class Descent:
    r"""Adam on one vector that the gradients of all parameters are parts of.

    A step whose loss or gradient is not finite changes nothing: neither weights nor moments. After
    so many of them in a row no step is taken any more: the weights, and :attr:`last`, stay those
    before the first of them until the host looks. Nothing here waits for the device, and
    what changes from step to step is in tensors that stay where they are.

    With a loss scale :math:`c`, for gradients in float16, losses are multiplied by :math:`c` and
    the gradient is divided by it: :math:`c` begins at :math:`2^{16}`, is halved by a step that is
    skipped and doubled by 2,000 in a row that are not.

    Arguments:
        parameters: What is trained.
        optim: The optimiser.
        most: The number of skipped steps in a row after which no step is taken.
        scaled: Whether there is a loss scale.
        world: The processes that have shards of the parameters, if they are in shards.

    Attributes:
        gradient: The vector, of the shards of this process.
        last: The last step, counted from 1, that was not skipped; int64, on the device.
        scale: The loss scale, on the device; ``None`` without one.

    Raises:
        ValueError: If the parameters differ in dtype or device.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        optim: Optim,
        most: int,
        scaled: bool = False,
        world: World = ALONE,
    ) -> None:
        self._parameters, self._world = parameters, world
        shards = [own(parameter) for parameter in parameters]
        self.gradient = joint_gradient(shards)
        for parameter, shard in zip(parameters, shards, strict=True):
            assert shard.grad is not None
            parameter.grad = joined(shard.grad, parameter)
        device = self.gradient.device
        # The fused step reads a rate on the host as float64, on a device as float32.
        near = device.type == "cpu"
        dtype = torch.float64 if near else torch.float32
        self._rate = torch.zeros((), dtype=dtype, device=device)
        self._kept = {"lr": self._rate, "capturable": not near}
        self.optimizer = _KINDS[optim.kind](
            shards,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            fused=True,
            **self._kept,
        )
        self.last = torch.zeros((), dtype=torch.int64, device=device)
        self._step = torch.zeros_like(self.last)
        self._clip, self._most = optim.clip, most
        self.scale: Tensor | None = None
        if scaled:
            self.scale = torch.full((), _SCALE, device=device)
            self._steady = torch.zeros_like(self.last)

    def clear(self) -> None:
        """Sets the gradient to zero."""
        self.gradient.zero_()

    def add(self, loss: Tensor, share: float = 1.0) -> None:
        """Adds the gradient of a share of a loss."""
        if share == 1 and self.scale is None:
            loss.backward()
            return
        factor = torch.full_like(loss, share)
        loss.backward(factor if self.scale is None else factor * self.scale)

    def norm(self) -> Tensor:
        """The norm of the gradient."""
        norm = torch.linalg.vector_norm(self.gradient)
        if self._world.size == 1:
            return norm
        (squared,) = self._world.total([norm.to(torch.float64) ** 2])
        return squared.sqrt().to(norm.dtype)

    def begin(self, step: int, lr: float) -> None:
        """Sets the number, from 1, and the learning rate of the step to come."""
        self._step.fill_(step)
        self._rate.fill_(lr)

    @torch.no_grad()
    def step(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Takes or skips the step that was begun, of a loss, detached.

        Returns:
            The norm of the gradient before it is clipped; and 1 where the step is taken, 0 where
            not, a scalar of the dtype of the weights.
        """
        norm, factor = self.norm(), None
        if self.scale is not None:
            factor = 1 / self.scale
            norm = norm * factor
        if self._clip is not None:
            short = (self._clip / norm).clamp(max=1.0)
            factor = short if factor is None else factor * short
        if factor is not None:
            self.gradient.mul_(factor)
        # What is finite is zero times zero.
        wrong, ended = (loss + norm) * 0 != 0, self.last + self._most < self._step
        skipped = wrong | ended
        torch.where(skipped, self.last, self._step, out=self.last)
        if self.scale is not None:
            self._rescale(self.scale, wrong & ~ended)
        # Fused Adam looks for this attribute, and changes nothing where it is 1.
        self.optimizer.found_inf = skipped.to(torch.float32)
        self.optimizer.step()
        return norm, (~skipped).to(norm.dtype)

    def state_dict(self) -> dict[str, Any]:
        """What a step depends on beside the weights, on the CPU."""
        optimizer = self.optimizer.state_dict()
        for group in optimizer["param_groups"]:
            group["lr"] = float(self._rate)
        optimizer["state"] = self._each(optimizer["state"], joined)
        state = {"optimizer": optimizer, "last": self.last}
        if self.scale is not None:
            state |= {"scale": self.scale, "steady": self._steady}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave; one without a loss scale leaves that as it is.

        Raises:
            ValueError, LookupError, TypeError: If it is that of other parameters.
        """
        taken = state["optimizer"]
        taken = {**taken, "state": self._each(taken["state"], shard_of)}
        self.optimizer.load_state_dict(taken)
        for group in self.optimizer.param_groups:
            group.update(self._kept)
        for parameter, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if name != "step":
                    # In the order in memory of the weights, on which the fused step relies.
                    moments[name] = torch.empty_like(parameter).copy_(moment)
        self.last.fill_(int(state["last"]))
        if self.scale is not None and "scale" in state:
            self.scale.copy_(state["scale"])
            self._steady.copy_(state["steady"])

    def _each(self, state: Mapping[int, Any], made: Callable[..., Tensor]) -> dict[int, Any]:
        """The moments of each parameter by its number, made from them and the parameter."""
        return {
            k: {
                name: moment if name == "step" else made(moment, self._parameters[k])
                for name, moment in moments.items()
            }
            for k, moments in state.items()
        }

    def _rescale(self, scale: Tensor, skipped: Tensor) -> None:
        self._steady.add_(1).mul_(~skipped)
        grown = self._steady == _PATIENCE
        scale.mul_(torch.where(skipped, 0.5, 1.0 + grown))
        self._steady.mul_(~grown)


def joint_gradient(parameters: Sequence[Tensor]) -> Tensor:
    """One vector that the gradients of all parameters are parts of.

    Clearing, measuring and clipping it are one operation each, where separate gradients, made
    anew at each step, cost a tenth of a small network's step.

    Raises:
        ValueError: If the parameters differ in dtype or device.
    """
    kinds = {(p.dtype, p.device) for p in parameters}
    if len(kinds) > 1:
        raise UserError("a field is trained in one dtype and on one device, not in several")
    for parameter in parameters:
        if parameter.stride() != torch.empty_like(parameter, device="meta").stride():
            # The fused step goes through memory without gaps.
            parameter.data = parameter.detach().contiguous()
    joint = parameters[0].new_zeros(sum(p.numel() for p in parameters))
    parts = joint.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        # In the order in memory of the weights, which of images may be channels last.
        strides = parameter.stride()
        parameter.grad = part.as_strided(parameter.shape, strides, part.storage_offset())
    return joint
