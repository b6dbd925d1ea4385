"""The verb that writes a model in a form that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scorefield.cli.arguments import MODEL


def export(
    model: Annotated[str, MODEL],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder, or the ONNX file.")],
    to: Annotated[
        Literal["folder", "onnx", "diffusers"],
        typer.Option(help="A folder with a model card, the denoiser as ONNX, or a pipeline."),
    ] = "folder",
    weights: Annotated[
        Literal["ema", "raw"],
        typer.Option(help="Averaged weights (ema) or those of the last step (raw)."),
    ] = "ema",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Import custom classes that the run names.")
    ] = False,
) -> None:
    """Write a model as a folder with a model card, for a hub, or in a form that others read."""
    from scorefield.interop.onnx import export_onnx
    from scorefield.interop.pipeline import save_pipeline
    from scorefield.runs.saved import save
    from scorefield.runs.subject import open_model

    opened = open_model(model, weights, trust_code=trust_code)
    if to == "onnx":
        print(export_onnx(opened.field, out, overwrite=overwrite))
    elif to == "diffusers":
        print(save_pipeline(opened.field, out, overwrite=overwrite))
    else:
        data = {} if opened.source is None else {"data": opened.source.name}
        print(save(opened.field, out, about={**opened.about, **data}, overwrite=overwrite))
