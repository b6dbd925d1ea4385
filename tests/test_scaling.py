import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent.parent / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # where a dataclass looks for it
    spec.loader.exec_module(module)
    return module


def test_a_ring_sends_every_byte_twice_but_for_a_share(scaling):
    """Of a vector in W parts, each process sends W - 1 parts for the sum, and W - 1 of the sum."""
    training = scaling.Training("", weights=600, forward=1.0, batch=8, steps=1)
    for width in (1, 2, 3, 8):
        part = 4 * 600 / width
        assert training.sent(width) == pytest.approx(2 * (width - 1) * part)


def test_at_balance_a_step_sends_as_long_as_it_computes(scaling):
    machine = scaling.Machine(rate=1e3, inside=1e9, between=1e4)
    training = scaling.Training("", weights=100, forward=10.0, batch=1024, steps=1)
    width = training.balance(machine, machine.between)
    computed = 3 * 10.0 * 1024 / 1e3 / width
    assert computed == pytest.approx(training.sent(width) / machine.between)


def test_the_published_network_has_its_published_size(scaling):
    """The published network has 62.8 million weights; the operations are two a product."""
    training = scaling.counted("cifar10/ncsnpp_continuous_ve")
    assert training.weights == 62_758_915
    assert (training.batch, training.steps) == (128, 1_300_000)
    assert 20e9 < training.forward < 24e9
