"""Nearest patches against brute force, spectra of single waves."""

import math

import pytest
import torch

from scorefield import nearest_patches, radial_power_spectrum


def windows(images, size):
    """All windows (n, rows, columns, pixels) of images."""
    views = images.unfold(2, size, 1).unfold(3, size, 1)
    return views.permute(0, 2, 3, 1, 4, 5).flatten(3)


@pytest.mark.parametrize("size", [1, 3, 5, 6])
@pytest.mark.parametrize("place", ["any", "same"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_patches_by_brute_force(size, place, dtype):
    torch.manual_seed(size)
    samples, train = torch.rand(3, 2, 6, 8, dtype=dtype), torch.rand(9, 2, 6, 8, dtype=dtype)
    own, theirs = windows(samples, size).double(), windows(train, size).double()
    n, rows, columns, _ = own.shape
    every = torch.cdist(own.flatten(0, 2), theirs.flatten(0, 2))
    every = every.reshape(n, rows * columns, 9, rows * columns)
    if place == "same":
        expected = every.diagonal(dim1=1, dim2=3).amin(dim=1)
    else:
        expected = every.amin(dim=(2, 3))
    found = nearest_patches(samples, train, size, place)
    assert found.distance.dtype == torch.float64
    torch.testing.assert_close(
        found.distance, expected.reshape(n, rows, columns), rtol=1e-6, atol=1e-7
    )
    named = theirs[found.image, found.row, found.column]
    torch.testing.assert_close((named - own).norm(dim=3), found.distance)


def test_a_copied_patch_has_no_distance_and_is_found_where_it_was():
    torch.manual_seed(0)
    train = 1e4 + torch.rand(20, 1, 9, 9)
    samples = torch.rand(2, 1, 9, 9)
    samples[1, :, 2:6, 3:7] = train[17, :, 4:8, 1:5]
    found = nearest_patches(samples, train, 4)
    assert found.distance[1, 2, 3] == 0
    assert [v[1, 2, 3].item() for v in found[1:]] == [17, 4, 1]
    assert (found.distance > 0).sum() == found.distance.numel() - 1
    assert nearest_patches(train[:3], train, 4, "same").distance.max() == 0


def test_blocks_do_not_matter(monkeypatch):
    torch.manual_seed(0)
    samples, train = torch.rand(5, 1, 7, 7), torch.rand(11, 1, 7, 7)
    module = "scorefield.metrics.patch_statistics"
    for place in ("any", "same"):
        whole = nearest_patches(samples, train, 3, place)
        with monkeypatch.context() as patched:
            for name, value in (("_ENTRIES", 700), ("_KEYS", 60), ("_PRODUCTS", 333)):
                patched.setattr(f"{module}.{name}", value)
            parts = nearest_patches(samples, train, 3, place)
        for a, b in zip(whole, parts, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("unchecked")
def test_mistakes_about_patches():
    images = torch.rand(2, 1, 5, 6)
    with pytest.raises(ValueError, match="side 6 does not fit into images of 5x6"):
        nearest_patches(images, images, 6)
    with pytest.raises(ValueError, match="one shape"):
        nearest_patches(images, torch.rand(2, 1, 5, 5), 3)
    with pytest.raises(ValueError, match="not 'here'"):
        nearest_patches(images, images, 3, "here")
    with pytest.raises(ValueError, match="not finite"):
        nearest_patches(images, images / 0, 3)
    with pytest.raises(ValueError, match="shape"):
        radial_power_spectrum(images[:0])


@pytest.mark.parametrize("shape", [(8, 8), (9, 12)])
def test_parseval(shape):
    images = torch.randn(4, 3, *shape, generator=torch.Generator().manual_seed(1))
    found = radial_power_spectrum(images)
    energy = images.double().square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(3 * (found.modes * found.power).sum(dim=1), energy)
    assert int(found.modes.sum()) == shape[0] * shape[1]
    assert bool((found.frequency.diff() > 0).all())


def test_a_plane_wave_lies_on_its_ring():
    line = torch.arange(12, dtype=torch.float64)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    phase = 2 * math.pi * (3 * rows + 4 * columns) / 12
    found = radial_power_spectrum(2.5 * torch.cos(phase)[None, None])
    # Two modes at ±(3, 4), each of power A² H W / 4, among those of ring 5.
    expected = torch.zeros_like(found.power)
    expected[0, 5] = 2 * 2.5**2 * 144 / 4 / int(found.modes[5])
    torch.testing.assert_close(found.power, expected, atol=1e-9, rtol=1e-12)
    assert 4.5 / 12 <= found.frequency[5] <= 5.5 / 12


def test_white_noise_has_a_flat_spectrum_within_its_errors():
    noise = torch.randn(400, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    for estimate in radial_power_spectrum(noise).estimates():
        assert abs(estimate.value - 1) < 5.5 * estimate.standard_error
