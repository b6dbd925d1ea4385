"""The verb that writes a model in a form that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scorefield.cli.options import ROOT, Model, Overwrite, Root, TrustCode, Weights
from scorefield.cli.results import Results, ending_in_results


@ending_in_results
def export(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder, or the ONNX file.")],
    to: Annotated[
        Literal["folder", "onnx", "diffusers"],
        typer.Option(help="A folder with a model card, the denoiser as ONNX, or a pipeline."),
    ] = "folder",
    weights: Weights = "ema",
    root: Root = ROOT,
    overwrite: Overwrite = False,
    trust_code: TrustCode = False,
) -> Results:
    """Write a model as a folder with a model card, for a hub, or in a form that others read."""
    from scorefield.interop.onnx import export_onnx
    from scorefield.interop.pipeline import save_pipeline
    from scorefield.runs.find import find_run
    from scorefield.runs.saved import save
    from scorefield.runs.subject import open_model

    opened = open_model(find_run(model, root), weights, trust_code=trust_code)
    if to == "onnx":
        file = export_onnx(opened.field, out, overwrite=overwrite)
    elif to == "diffusers":
        file = save_pipeline(opened.field, out, overwrite=overwrite)
    else:
        data = {} if opened.source is None else {"data": opened.source.name}
        file = save(opened.field, out, about={**opened.about, **data}, overwrite=overwrite)
    return Results(files=[file])
