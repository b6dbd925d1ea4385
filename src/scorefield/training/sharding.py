r"""Weights in shards: of several processes, each has a part of every weight, along its first
dimension, and the corresponding parts of gradient, moments and averages.

PyTorch's ``fully_shard`` gathers the weights of a block of the network when it is computed, forward
and backward, and gives each process its shard of the sum of the gradients. Optimiser and averages
work on the shards as on any tensors; what is written to a file is gathered, so that checkpoints are
those of a training without shards.

References:
    ZeRO: memory optimizations toward training trillion parameter models (Rajbhandari, Rasley,
    Ruwase and He, 2020), section 5, the third stage.

    PyTorch FSDP: experiences on scaling fully sharded data parallel (Zhao et al., 2023).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor, nn
from torch.nn import Parameter

from scorefield.engine import Engine
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.objectives.objective import Objective

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def check_sharded(field: ScoreField, objective: Objective) -> None:
    """Checks that a training can be sharded.

    Raises:
        UserError: If it needs more than one first derivative of one network, or the network has
            weights that cannot be divided.
    """
    fault = _fault(field, objective)
    if fault:
        raise UserError(
            f"engine: sharded=true is for denoising score matching with one network, and {fault}"
        )


def _fault(field: ScoreField, objective: Objective) -> str | None:
    name = type(field).__name__
    if not isinstance(field, PreconditionedField) or field.has_potential:
        return f"the field is a {name}"
    for regularizer in objective.due(0):
        return f"the objective has the regulariser {regularizer!r}"
    named = dict(field.named_parameters(remove_duplicate=False))
    if len(named) > len(set(named.values())):
        return f"two layers of {name} share their weights"
    for key, parameter in named.items():
        if not key.startswith("backbone."):
            return f"{key} of {name} is outside of its network"
        if not parameter.dim():
            return f"{key} has no dimension along which it could be divided"
    return None


def placed(field: ScoreField, engine: Engine) -> ScoreField:
    """A field where it is trained: itself on the device of an engine; or a copy with its weights
    in shards, if these are wanted and there are several processes, and itself stays where it is.
    """
    if not engine.sharded or engine.world.size == 1:
        return engine.place(field)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    made = copy.deepcopy(field)
    assert isinstance(made, PreconditionedField)
    for parameter in made.parameters():
        parameter.data = parameter.detach().contiguous()
    mesh = init_device_mesh(engine.torch_device.type, (engine.world.size,))
    for part in (*_blocks(made.backbone), made.backbone):
        unit = fully_shard(part, mesh=mesh)
        # The losses of the processes are summands of that of the batch.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
        unit.set_reduce_scatter_unused_params(True, recurse=False)
    return made


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The members of lists of layers, without lists of their own: what is gathered at a time."""
    for part in network.modules():
        for member in part if isinstance(part, nn.ModuleList) else ():
            lists = (isinstance(inner, nn.ModuleList) for inner in member.modules())
            if not any(lists) and any(True for _ in member.parameters()):
                yield member


def own(tensor: Tensor) -> Tensor:
    """The shard that this process has of a tensor, in the same memory; a whole tensor itself."""
    if _in_shards(tensor):
        shard = tensor.to_local().detach()
        return Parameter(shard, tensor.requires_grad) if isinstance(tensor, Parameter) else shard
    return tensor


def _in_shards(tensor: Tensor) -> TypeGuard[DTensor]:
    # Its class takes most of a second to import, which a training without shards does without.
    return hasattr(tensor, "placements")


def shard_of(tensor: Tensor, other: Tensor) -> Tensor:
    """The shard of a whole tensor that this process has of another one; of a whole one, all."""
    if not _in_shards(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    tensor, mesh = tensor.to(other.device), other.device_mesh
    return distribute_tensor(tensor, mesh, other.placements, src_data_rank=None).to_local()


def joined(shard: Tensor, other: Tensor) -> Tensor:
    """The tensor whose shards are what the processes have, as those of another one."""
    if not _in_shards(other):
        return shard
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        shard, other.device_mesh, other.placements, shape=other.shape, stride=other.stride()
    )


def whole(tensor: Tensor) -> Tensor:
    """A tensor without shards; all processes must call this."""
    return tensor.full_tensor() if _in_shards(tensor) else tensor


def gathered(value: Any, kept: bool = True) -> Any:
    """Nested containers with whole tensors in place of those in shards, on the CPU; a process that
    keeps nothing has ``None`` in their places.
    """
    if isinstance(value, Tensor) and _in_shards(value):
        found = whole(value)
        return found.cpu() if kept else None
    if isinstance(value, Mapping):
        return {key: gathered(part, kept) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered(part, kept) for part in value)
    return value


def not_finite(module: nn.Module) -> str:
    """The first weights of a module of which this process has any that are not finite; empty if
    there are none.
    """
    named = module.named_parameters()
    return next((name for name, p in named if not bool(own(p).isfinite().all())), "")


def copy_state(source: nn.Module, to: nn.Module) -> None:
    """Gives a module, of which :func:`placed` may have made shards, the state of another one."""
    if to is not source:
        state = source.state_dict()
        for name, tensor in to.state_dict().items():
            own(tensor).copy_(shard_of(state[name], tensor))
