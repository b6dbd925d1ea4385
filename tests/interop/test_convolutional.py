"""Weights of the minimal convolutional networks: what is read of them, and what is refused."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scorefield import Cosine, MinimalResNet, MinimalUNet, NoisePrediction, TimeLabel
from scorefield.interop import convolutional
from scorefield.interop.errors import InteropError

NETWORKS = {
    "resnet": lambda p: MinimalResNet((2, 5, 6), 16, 2, p),
    "resnet-options": lambda p: MinimalResNet((1, 7, 7), 24, 1, p, "group", 5, 3, False, 3, False),
    "unet": lambda p: MinimalUNet((1, 4, 6), (4, 6), p, embedding=8),
    "unet-options": lambda p: MinimalUNet(
        (3, 8, 8), (8, 64, 96), p, "group", 12, 5, 3, True, 2, False
    ),
}


def randomize(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return network.double()


def inputs(network):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, *network.event_shape, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    classes = None if network.classes is None else torch.tensor([1, 0, network.classes - 1])
    return x, t, classes


def under(state, prefix):
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


class Theirs:
    """The networks of a state dict, written down from the names of its weights.

    Batch normalisations act as in evaluation mode, group normalisations on up to 32 groups.
    """

    def __init__(self, state, padding):
        self.state, self.padding = state, padding

    def linear(self, name, v):
        return F.linear(v, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def convolution(self, name, h):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        half = weight.shape[-1] // 2
        mode = "constant" if self.padding == "zeros" else "circular"
        return F.conv2d(F.pad(h, (half,) * 4, mode=mode), weight, bias)

    def norm(self, name, h, groups=None):
        if f"{name}.weight" not in self.state:
            return h
        s = under(self.state, f"{name}.")
        if "running_mean" in s:
            return F.batch_norm(h, s["running_mean"], s["running_var"], s["weight"], s["bias"])
        return F.group_norm(h, groups or min(32, h.shape[1]), s["weight"], s["bias"])

    def embedding(self, t, classes, features):
        half = features // 2
        phase = t[:, None] * 10_000.0 ** (-torch.arange(half).double() / (half - 1))
        vector = torch.cat((phase.sin(), phase.cos()), dim=1)
        if classes is not None:
            vector = vector + self.state["embedding.class_embeddings.weight"][classes]
        return vector

    def block(self, name, h, e):
        h = h + self.linear(f"{name}.emb.1", e.relu())[:, :, None, None]
        normalized = f"{name}.model.4.weight" in self.state
        h = self.norm(f"{name}.model.1", self.convolution(f"{name}.model.0", h)).relu()
        second = 3 if normalized else 2
        h = self.convolution(f"{name}.model.{second}", h)
        return self.norm(f"{name}.model.4", h).relu()

    def unet(self, x, t, classes, levels):
        e = self.embedding(t, classes, self.state["bottleneck.emb.1.weight"].shape[1])
        skips = []
        for k in range(levels):
            skips.append(self.block(f"feature_blocks.{k}", x, e))
            x = F.max_pool2d(skips[-1], 2)
        x = self.block("bottleneck", x, e)
        for k in range(levels):
            up = under(self.state, f"upsamples.{k}.")
            up = F.conv_transpose2d(x, up["weight"], up["bias"], stride=2)
            x = self.block(f"output_blocks.{k}", torch.cat((skips.pop(), up), dim=1), e)
        x = x + self.linear("last_emb.1", e.relu())[:, :, None, None]
        return self.convolution("output_conv", self.norm("last_normalizer", x))

    def resnet(self, x, t, classes, layers):
        e = self.embedding(t, classes, len(self.state["up_projection.weight"]))

        def level(k):
            return self.norm(f"embs.{k}.1", self.linear(f"embs.{k}.0", e), 8).relu()[
                ..., None, None
            ]

        h = self.convolution("up_projection", x)
        for k in range(layers):
            inner = self.convolution(f"convs.{k}.0", h + level(k))
            h = h + self.norm(f"convs.{k}.1", inner, 8).relu()
        h = h + (level(layers) if f"embs.{layers}.0.weight" in self.state else h)
        if "down_projection.weight" in self.state:
            return self.convolution("down_projection", h)
        return self.convolution("down_projection.1", self.norm("down_projection.0", h, 8))

    def __call__(self, network, x, t, classes):
        if isinstance(network, MinimalResNet):
            return self.resnet(x, t, classes, len(network.layers))
        return self.unet(x, t, classes, len(network.down))


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_go_there_and_back(name, padding):
    network = randomize(NETWORKS[name](padding))
    x, t, classes = inputs(network)
    state = convolutional.state_of(network)
    expected = network(x, t, *() if classes is None else (classes,))
    torch.testing.assert_close(Theirs(state, padding)(network, x, t, classes), expected)
    sides = tuple(x.shape[2:])
    for prefix in ("", "backbone."):
        given = {prefix + key: value for key, value in state.items()}
        back = convolutional.build(given, padding, sides)
        assert type(back) is type(network)
        assert back.state_dict().keys() == network.state_dict().keys()
        assert torch.equal(back(x, t, *() if classes is None else (classes,)), expected)
        assert (back.classes, back.unlabelled) == (network.classes, network.unlabelled)


def test_the_vector_of_no_class_is_left_out():
    network = MinimalResNet((1, 4, 4), 16, 1, classes=3)
    vectors = convolutional.state_of(network)["embedding.class_embeddings.weight"]
    assert torch.equal(vectors, network.label.classes.vectors.weight[:3])


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("last", [True, False])
def test_batch_normalisations_become_part_of_the_convolutions(padding, last):
    network = randomize(MinimalUNet((1, 8, 8), (4, 6, 8), padding, embedding=8, last_kernel_size=3))
    plain = convolutional.state_of(network)
    state = {k.replace("model.2.", "model.3."): v for k, v in plain.items()}
    widths = {k.rpartition(".")[0]: len(v) for k, v in state.items() if ".model." in k}
    norms = {f"{k[:-1]}{int(k[-1]) + 1}": width for k, width in widths.items()}
    if last:
        norms["last_normalizer"] = 4
    generator = torch.Generator().manual_seed(2)
    for norm, width in norms.items():
        draws = torch.randn(4, width, generator=generator, dtype=torch.float64)
        state |= {f"{norm}.weight": draws[0], f"{norm}.bias": draws[1]}
        state |= {f"{norm}.running_mean": draws[2], f"{norm}.running_var": draws[3].exp()}
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    x, t, _ = inputs(network)
    expected = Theirs(state, padding)(network, x, t, None)
    found = convolutional.build(state, padding, 8)(x, t)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    if last:
        state["last_normalizer.weight"][2] = 0
        with pytest.raises(InteropError, match="a scale of last_normalizer is zero"):
            convolutional.build(state, padding, 8)
    del state["bottleneck.model.1.bias"]
    with pytest.raises(InteropError, match=r"lacks 'bottleneck.model.1.bias' beside a batch"):
        convolutional.build(state, padding, 8)


def weights(padding="zeros", **options):
    return convolutional.state_of(MinimalResNet((1, 6, 6), 16, 1, padding, **options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("convs.0.0.bias"), "the state dict lacks convs.0.0.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "has, beside what is expected, extra"),
        (
            lambda s: s.update({"embs.0.0.bias": torch.zeros(3)}),
            r"other shapes of embs.0.0.bias \(3,\) instead of \(16,\)",
        ),
        (lambda s: s.pop("up_projection.weight"), "the weights do not fit a minimal network"),
        (
            lambda s: s.update({"down_projection.weight": torch.zeros(1, 16, 2, 2)}),
            r"kernels have an odd number of pixels a side, got \[3, 2\]",
        ),
    ],
)
def test_other_weights_are_an_error(change, message):
    state = weights()
    change(state)
    with pytest.raises(InteropError, match=message):
        convolutional.build(state, "zeros", 6)


def test_weights_that_are_no_real_numbers_are_an_error():
    state = {name: weight.long() for name, weight in weights().items()}
    with pytest.raises(InteropError, match="the weights are int64, not real numbers"):
        convolutional.build(state, "zeros", 6)


def test_images_that_do_not_fit_are_an_error():
    state = convolutional.state_of(MinimalUNet((1, 4, 4), (4, 8), embedding=8))
    with pytest.raises(InteropError, match=r"multiples of 2, got 5 x 5"):
        convolutional.build(state, "zeros", 5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (MinimalUNet((1, 4, 4), (4,), embedding=8), "at least two levels"),
        (
            MinimalUNet((1, 4, 4), (4, 8), embedding=8, last_norm=True),
            "no last normalisation without",
        ),
    ],
)
def test_networks_that_their_code_does_not_have(network, message):
    with pytest.raises(InteropError, match=message):
        convolutional.state_of(network)


def test_a_file_is_a_field(tmp_path):
    path = tmp_path / "backbone_MNIST_ResNet_circular_epoch9.pt"
    state = weights("circular")
    torch.save({f"backbone.{key}": value for key, value in state.items()}, path)
    field = convolutional.load(path, size=6)
    assert not field.training
    assert field.domain.shape == (1, 6, 6)
    assert field.sde == Cosine(offset=0.0, margin=0.008, t_min=1e-3, t_max=1.0)
    assert field.parametrization == NoisePrediction(TimeLabel(1.0))
    assert field.backbone.padding == "circular"
    x, t = torch.randn(2, 1, 6, 6), torch.tensor([0.2, 0.9])
    torch.testing.assert_close(field.predict(x, t, "noise"), field.backbone(x, t))
    other = convolutional.load(path, "zeros", 6)
    assert not torch.equal(other.score(x, t), field.score(x, t))


@pytest.mark.parametrize("name", ["weights.pt", "zeros_or_circular.pt"])
def test_a_file_that_does_not_say_the_padding_needs_it(name, tmp_path):
    torch.save(weights(), tmp_path / name)
    with pytest.raises(InteropError, match="say whether the padding is zeros or circular"):
        convolutional.load(tmp_path / name, size=6)


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {"a": 1}}, {"a": torch.zeros(1)}])
def test_a_file_of_something_else_is_an_error(content, tmp_path):
    torch.save(content, tmp_path / "zeros.pt")
    with pytest.raises(InteropError, match=r"zeros.pt(:| holds a| is not a) .*(no|not a|not) "):
        convolutional.load(tmp_path / "zeros.pt")


def test_a_whole_module_is_refused_and_not_run(tmp_path, monkeypatch):
    ran = []

    class DDIM(nn.Module):
        def __setstate__(self, state):
            ran.append(True)
            super().__setstate__(state)

    module = types.ModuleType("src.models")
    DDIM.__module__, DDIM.__qualname__ = "src.models", "DDIM"
    module.DDIM = DDIM
    monkeypatch.setitem(sys.modules, "src", types.ModuleType("src"))
    monkeypatch.setitem(sys.modules, "src.models", module)
    whole, path = DDIM(), tmp_path / "backbone_MNIST_ResNet_zeros.pt"
    whole.backbone = nn.Linear(2, 2)
    torch.save(whole, path)
    with pytest.raises(InteropError, match=r"asks for src\.models\.DDIM.* nothing was run") as told:
        convolutional.load(path)
    assert not ran
    assert "\n" not in str(told.value)
    # What it says is what works where the code is.
    recipe = str(told.value).partition('python -c "')[2].removesuffix('"')
    monkeypatch.chdir(tmp_path)
    exec(recipe)
    state = convolutional.read_state(tmp_path / "backbone_MNIST_ResNet_zeros_state.pt")
    assert state.keys() == {"weight", "bias"}
    assert convolutional.padding_of(tmp_path / "backbone_MNIST_ResNet_zeros_state.pt") == "zeros"
