import math

import pytest

from scorefield.training.settings import multiplier

STEPS, WARMUP = 1000, 100


@pytest.mark.parametrize("decay", ["constant", "cosine", "linear", "inverse_sqrt"])
def test_rises_linearly_and_never_again(decay):
    rates = [multiplier(k, STEPS, WARMUP, decay) for k in range(STEPS)]
    assert rates[:WARMUP] == pytest.approx([(k + 1) / WARMUP for k in range(WARMUP)])
    assert all(a >= b for a, b in zip(rates[WARMUP - 1 :], rates[WARMUP:], strict=False))
    assert min(rates) > 0


@pytest.mark.parametrize("decay", ["constant", "cosine", "linear", "inverse_sqrt"])
def test_begins_at_the_base_rate_without_warmup(decay):
    assert multiplier(0, STEPS, 0, decay) == 1


def test_closed_forms():
    half = WARMUP + (STEPS - WARMUP) // 2
    assert multiplier(half, STEPS, WARMUP, "constant") == 1
    assert multiplier(half, STEPS, WARMUP, "cosine") == pytest.approx(0.5)
    assert multiplier(half, STEPS, WARMUP, "linear") == pytest.approx(0.5)
    assert multiplier(399, STEPS, WARMUP, "inverse_sqrt") == pytest.approx(0.5)


def test_cosine_sums_to_half():
    # The mean of cosine decay over whole steps is 1/2 + 1/(2 N).
    mean = sum(multiplier(k, STEPS, 0, "cosine") for k in range(STEPS)) / STEPS
    assert math.isclose(mean, 0.5 + 0.5 / STEPS, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("step", "told"), [(-1, "step must be an integer"), (STEPS, r"a step lies in \[0, steps\)")]
)
def test_has_no_rate_outside_the_training(step, told):
    with pytest.raises(ValueError, match=told):
        multiplier(step, STEPS)


def test_says_what_decays_there_are(unchecked):
    with pytest.raises(ValueError, match="constant, cosine, linear, inverse_sqrt, not 'step'"):
        multiplier(0, STEPS, decay="step")
