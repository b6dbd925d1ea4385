"""Denoisers of EDM, EDM2 and guided-diffusion against recorded values of the published code."""

import pytest
import torch

from tests.conformance import reference
from tests.interop import originals
from tests.interop.foreign import denoised, field_of


def recorded(case):
    arrays = reference.load("denoisers", "state_dicts")
    return (reference.tensor(arrays[f"{case}/{name}"]) for name in ("sigma", "denoised"))


@pytest.mark.parametrize("case", originals.CASES)
def test_the_denoiser_is_the_recorded_one(case):
    sigma, expected = recorded(case)
    found = denoised(field_of(case), case, sigma)
    assert found.shape == expected.shape
    error = (found - expected).abs().flatten(1).amax(1) / expected.abs().flatten(1).amax(1)
    assert float(error.amax()) < 1e-10


def test_single_precision_is_that_of_the_published_code():
    case = "edm_ddpmpp"
    sigma, expected = recorded(case)
    found = denoised(field_of(case, torch.float32), case, sigma)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
