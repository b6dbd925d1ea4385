"""The minimal networks, their process and exterior derivatives against recorded values."""

from dataclasses import replace

import pytest
import torch

from scorefield import DDIM, jacobian
from scorefield.calculus.asymmetry import exact_asymmetry
from scorefield.interop import convolutional
from tests.conformance import reference

NETWORKS = {
    "net_resnet_zeros": "zeros",
    "net_resnet_circular_cond": "circular",
    "net_unet_zeros": "zeros",
}
PLAIN = ["net_resnet_zeros", "net_unet_zeros"]
DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=["32", "64"]
)


def recorded(name, dtype=torch.float64):
    """The arrays of a file, and the state dict among them."""
    arrays = {k: reference.tensor(v, dtype) for k, v in reference.load(name, "els").items()}
    state = {k.removeprefix("sd::"): v for k, v in arrays.items() if k.startswith("sd::")}
    return arrays, state


def made(name, dtype=torch.float64):
    """The arrays of a file, and the field of its network."""
    arrays, state = recorded(name, dtype)
    return arrays, convolutional.field_of(convolutional.build(state, NETWORKS[name], 8)).eval()


def close(found, expected, tolerance=1e-10):
    """Equal, relative to the largest value."""
    found, expected = found.detach().double(), expected.double()
    assert found.shape == expected.shape
    assert float((found - expected).abs().amax() / expected.abs().amax()) <= tolerance


@DTYPES
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_embeddings_are_the_recorded_ones(name, dtype, tolerance):
    exact, _ = recorded(name)
    arrays, field = made(name, dtype)
    network, classes = field.backbone, arrays.get("label")
    output = network(arrays["x"], arrays["t"], classes)
    assert output.dtype == dtype
    close(output, exact["out"], tolerance)
    close(network.label(arrays["t"], classes), exact["emb"], tolerance)
    # At the first time, 0, there is no noise to be divided by.
    rows = slice(1, None)
    told = None if classes is None else classes[rows]
    noise = field.predict(arrays["x"][rows], arrays["t"][rows], "noise", told)
    close(noise, exact["out"][rows], tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_go_there_and_back(name):
    _, state = recorded(name)
    back = convolutional.state_of(made(name)[1].backbone)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


@DTYPES
@pytest.mark.parametrize("name", PLAIN)
def test_samples_in_steps_of_time(name, dtype, tolerance):
    exact, _ = recorded(name)
    arrays, field = made(name, dtype)
    field.sde = replace(field.sde, t_min=1 / 6)
    found = DDIM(6, spacing="time").sample(field, start=arrays["ddim_seed"], dtype=dtype)
    close(found, exact["ddim_out_nsteps6"], tolerance)


@pytest.mark.parametrize("quantity", ["eps", "score"])
@pytest.mark.parametrize("name", PLAIN)
def test_exterior_derivatives(name, quantity):
    arrays, field = made(name)
    t = arrays["ed_t"].expand(2).contiguous()
    form = "noise" if quantity == "eps" else "score"
    j = jacobian(lambda x, t: field.predict(x, t, form), arrays["x"][:2], t)
    close(j, arrays[f"jac_{quantity}"])
    close(j - j.mT, arrays[f"ed_{quantity}"])
    close(exact_asymmetry(j)[0].sqrt(), arrays[f"edmag_{quantity}"])


def test_the_noise_of_their_schedule():
    process = convolutional.PROCESS
    arrays, _ = recorded("scores_1x12x12")
    for name in PLAIN:
        found, _ = recorded(name)
        close(process.sigma(found["ed_t"]) ** 2, found["ed_beta"], 1e-14)
    close(process.sigma(arrays["t"]) ** 2, arrays["beta"], 1e-14)
    close(process.alpha(arrays["t"]) ** 2, 1 - arrays["beta"], 1e-14)


def test_a_perceptron():
    a, _ = recorded("ed_mlp")
    t = torch.ones(len(a["x"]), dtype=torch.float64)
    j = jacobian(lambda x, t: torch.tanh(x @ a["W1"].T + a["b1"]) @ a["W2"].T + a["b2"], a["x"], t)
    close(j, a["jac"])
    close(j - j.mT, a["ed"])
    close(exact_asymmetry(j)[0].sqrt(), a["edmag"])


def test_a_linear_map():
    a, _ = recorded("ed_linear")
    t = torch.ones(len(a["x"]), dtype=torch.float64)
    j = jacobian(lambda x, t: x @ a["A"].T, a["x"], t)
    close(j - j.mT, a["ed"])
    close(exact_asymmetry(j)[0].sqrt(), a["edmag"])
