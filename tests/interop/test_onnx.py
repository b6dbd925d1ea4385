"""The graph of a field, run by onnxruntime, gives the denoiser of the field."""

import sys

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield.interop import onnx as exporting
from scorefield.interop.errors import InteropError
from scorefield.interop.traced import traced

IMAGE = (1, 8, 8)


def alive(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return module


def mlp(**settings):
    return alive(sf.MLP(2, hidden=8, depth=1, embedding=4, **settings))


FIELDS = {
    "mlp": lambda: sf.PreconditionedField(mlp(), sf.EDM(0.01, 20.0), 0.5),
    "classes": lambda: sf.PreconditionedField(mlp(classes=3), sf.VP(), 0.5),
    "table": lambda: sf.PreconditionedField(
        mlp(), sf.DiscreteVP(betas="cosine"), parametrization=sf.VPrediction(sf.TimeLabel(999))
    ),
    "flow": lambda: sf.PreconditionedField(
        mlp(), sf.RectifiedFlow(), parametrization=sf.VelocityPrediction(sf.TimeLabel(1.0))
    ),
    "clipped": lambda: sf.ClippedField(sf.PreconditionedField(mlp(), sf.Cosine(), 0.5)),
    "unet": lambda: sf.PreconditionedField(
        alive(sf.UNet(IMAGE, 8, (1, 2), attention=(4,))), sf.EDM(0.01, 20.0), 0.5
    ),
    "potential": lambda: sf.PotentialField(mlp(outputs=1, classes=3), sf.EDM(0.01, 20.0), 0.5),
    "potential_unet": lambda: sf.PotentialField(
        alive(sf.UNet(IMAGE, 8, (1, 2), attention=(4,))), sf.EDM(0.01, 20.0), 0.5
    ),
    "potential_ncsnpp": lambda: sf.PotentialField(
        alive(sf.NCSNpp(IMAGE, 8, (1, 2), blocks=1)), sf.EDM(0.01, 20.0), 0.5
    ),
    "hybrid": lambda: sf.HybridField(
        sf.PotentialField(mlp(outputs=1), sf.EDM(0.01, 20.0), 0.5),
        sf.PreconditionedField(mlp(), sf.EDM(0.01, 20.0), 0.5),
        1.0,
    ),
}


def test_a_graph_without_the_packages_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InteropError, match=r"ONNX needs onnx and onnxscript, which are not"):
        sf.export_onnx(FIELDS["mlp"](), tmp_path / "x.onnx")
    with pytest.raises(InteropError, match=r"x\.pt must end in \.onnx"):
        sf.export_onnx(FIELDS["mlp"](), tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["potential", "hybrid"])
def test_the_trace_of_a_gradient_is_plain_operations_for_batches_of_any_size(name):
    field = FIELDS[name]().eval()
    graph = traced(exporting._Denoiser(field), exporting._inputs(field, 9))
    assert not torch.compiler.is_compiling()
    assert not [node for node in graph.graph.nodes if "backward" in str(node.target)]
    for n in (1, 5):
        inputs = exporting._inputs(field, n)
        with torch.no_grad():
            torch.testing.assert_close(graph(*inputs), field.denoise(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_the_graph_gives_the_denoiser_at_batches_of_any_size(name, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    field = FIELDS[name]().eval()
    file = sf.export_onnx(field, tmp_path / "x.onnx")
    session = runtime.InferenceSession(str(file))
    names = [known.name for known in session.get_inputs()]
    assert names == ["x", "t", *(["classes"] if field.classes else [])]
    for n in (1, 5):
        x = torch.randn(n, *field.domain.shape, generator=torch.Generator().manual_seed(n))
        t = torch.linspace(field.sde.t_min, field.sde.t_max, n + 2)[1:-1]
        classes = None if field.classes is None else torch.arange(n) % field.classes
        given = dict(zip(names, (x, t, classes), strict=False))
        with torch.no_grad():
            expected = field.denoise(x, t, classes).numpy()
        (found,) = session.run(None, {key: value.numpy() for key, value in given.items()})
        assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())
    with pytest.raises(InteropError, match="exists"):
        sf.export_onnx(field, file)


@pytest.mark.slow
def test_a_graph_that_gives_other_values_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    field, graph = FIELDS["mlp"](), exporting._graph

    def another(field):
        content = graph(field)
        with torch.no_grad():
            field.backbone.last.weight += 0.1
        return content

    monkeypatch.setattr(exporting, "_graph", another)
    with pytest.raises(InteropError, match="the graph differs from the field by"):
        sf.export_onnx(field, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
