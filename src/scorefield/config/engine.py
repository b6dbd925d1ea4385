"""What a run is computed on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scorefield.config.base import Positive, Section


class EngineSection(Section):
    """:class:`~.Engine`: the device and its precision, compilation, memory layout, place of
    the data, CUDA graphs, patience with other processes, weights in shards.

    It is no part of what a run is: a run that was started on one engine resumes on another.
    """

    builds = "scorefield.engine:Engine"
    internal = ()
    device: str
    precision: Literal["float32", "tf32", "bfloat16", "float16"]
    compile: bool
    channels_last: bool
    recompute: bool
    deterministic: bool
    data_on_device: Annotated[int, Field(ge=0)]
    graphs: bool
    timeout: Positive
    sharded: bool
