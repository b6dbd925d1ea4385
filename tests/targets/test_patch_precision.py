"""What rounding, streaming and memory do to the scores of patches: nothing that is seen."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scorefield import EDM, VP
from scorefield.targets import attention, empirical, patches
from tests.laws.cases import normal
from tests.targets import definition
from tests.targets.test_patches import LEVELS, MACHINES, SDE, close, noisy

LITTLE = [1e-3, 1e-2, 0.1, 2.0]
SHAPE = (1, 5, 6)


@pytest.fixture(params=MACHINES)
def kind(request):
    return request.param


def apart(level):
    """Images that have nothing to do with each other."""
    return normal((6, *SHAPE), "images")


def nearly_equal(level):
    """Images that differ by less than the noise, so that all of them have a weight."""
    return normal((1, *SHAPE), "images") + 0.3 * level * normal((6, *SHAPE), "differences")


def constant(level):
    """Images of one colour each, with many patches that are equal, and colours nearly so."""
    colours = 0.5 + 0.3 * level * normal((6, 1, 1, 1), "colours")
    return colours.expand(6, *SHAPE).contiguous()


def black_and_white(level):
    """Images of two colours, as drawings have."""
    return (normal((6, *SHAPE), "images") > 0).double()


@pytest.mark.parametrize("level", LITTLE)
@pytest.mark.parametrize("make", [apart, nearly_equal, constant, black_and_white])
def test_float32_is_near_to_float64_at_any_noise(kind, make, level):
    images, sde = make(level).float(), VP(t_min=1e-8)
    x, t = noisy(images.double(), [level] * 6, sde)
    x, t = x.float(), t.float()
    single, double = (MACHINES[kind](y, sde, 3) for y in (images, images.double()))
    close(single.score(x, t).double(), double.score(x.double(), t.double()), 1e-4)


@pytest.mark.parametrize("level", LITTLE[:2])
@pytest.mark.parametrize("make", [apart, nearly_equal, constant, black_and_white])
def test_float64_is_the_definition_at_any_noise(kind, make, level):
    images, sde = make(level)[:2, :, :4, :5], EDM(1e-4)
    x, t = noisy(images, [level] * 2, sde)
    expected = definition.score(kind, images, x, sde.alpha(t), sde.sigma(t), [3, 3])
    close(MACHINES[kind](images, sde, 3).score(x, t), expected, 1e-8)


@pytest.mark.parametrize("level", LITTLE)
def test_points_far_from_all_images_have_a_score(kind, level):
    """Where every weight on its own is zero."""
    images = normal((6, *SHAPE), "images")
    x, sde = images + 30.0, EDM(1e-4)
    double = MACHINES[kind](images, sde, 3).score(x, level)
    assert double.isfinite().all()
    single = MACHINES[kind](images.float(), sde, 3).score(x.float(), level)
    close(single.double(), double, 1e-4)


def test_an_offset_of_the_data_is_harmless(kind):
    """Beside their differences, images may have a large mean: bytes, say."""
    images = normal((6, *SHAPE), "images")
    x, t = noisy(images, [0.3] * 6, EDM(1e-4))
    near, far = (
        MACHINES[kind](images + offset, EDM(1e-4), 3).score(x + offset, t) for offset in (0.0, 1e3)
    )
    close(far, near, 1e-6)


def test_images_count_the_same_wherever_they_are_in_the_stream(kind):
    """The nearest image first, last or in the middle of others that are far."""
    images = normal((40, *SHAPE), "images")
    x, t = noisy(images[:1], [0.1])
    expected = MACHINES[kind](images, SDE, 3).score(x, t)
    for place in (1, 20, 39):
        turned = images.roll(place, 0)
        close(MACHINES[kind](turned, SDE, 3).score(x, t), expected)
        single = MACHINES[kind](turned.float(), SDE, 3).score(x.float(), t.float())
        close(single.double(), expected, 1e-4)


@pytest.mark.parametrize("level", [0.1, 3.0])
def test_images_may_grow_brighter_along_the_stream(kind, level, monkeypatch):
    """Logits of any size come after logits of another, and the first may be the largest."""
    images = normal((24, *SHAPE), "images") * torch.logspace(-2, 1.5, 24)[:, None, None, None]
    x, t = noisy(images[[0, 11, 17, 23]], [level] * 4)
    expected = MACHINES[kind](images, SDE, 3).score(x, t)
    monkeypatch.setattr(patches, "_BYTES", 1 << 14)
    monkeypatch.setattr(attention, "_TILE", 1 << 10)
    for turned in (images, images.flip(0), images.roll(12, 0)):
        close(MACHINES[kind](turned, SDE, 3).score(x, t), expected)
        single = MACHINES[kind](turned.float(), SDE, 3).score(x.float(), t.float())
        close(single.double(), expected, 1e-4)


def evaluations(kind, images, x, t):
    field = MACHINES[kind](images, SDE, 3)
    return [f(x, t) for f in (field.score, field.denoise, field.jacobian)]


@pytest.mark.parametrize(("bytes_at_once", "entries"), [(1, 17), (1 << 14, 1000)])
def test_blocks_change_nothing(kind, bytes_at_once, entries, monkeypatch):
    """From one image, one pixel and one patch at a time to several of each."""
    images = normal((7, 2, 4, 5), "images")
    x, t = noisy(images, LEVELS)
    whole = evaluations(kind, images, x, t)
    single = MACHINES[kind](images.float(), SDE, 3).score(x.float(), t.float())
    monkeypatch.setattr(patches, "_BYTES", bytes_at_once)
    monkeypatch.setattr(attention, "_TILE", entries)
    monkeypatch.setattr(attention, "_QUERIES", max(1, entries // 10))
    monkeypatch.setattr(empirical, "WORKSPACE", entries)
    for found, expected in zip(evaluations(kind, images, x, t), whole, strict=True):
        close(found, expected)
    again = MACHINES[kind](images.float(), SDE, 3).score(x.float(), t.float())
    close(again.double(), single.double(), 1e-4)


def test_a_point_has_the_same_value_in_any_batch(kind):
    images = normal((7, *SHAPE), "images")
    x, t = noisy(images, LEVELS.repeat(5))
    field = MACHINES[kind](images, SDE, 3)
    together = field.score(x, t)
    for rows in ([4], [8, 2], [19, 3, 11, 0]):
        close(field.score(x[rows], t[rows]), together[rows], 1e-11)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operation made."""

    def __init__(self, known):
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage.data_ptr() not in self.known:
                    self.bytes = max(self.bytes, storage.nbytes())
        return out


def test_memory_does_not_grow_with_the_number_of_images(kind, monkeypatch):
    """No temporary is larger than the workspace, which is a fraction of the images."""
    monkeypatch.setattr(patches, "_BYTES", 1 << 14)
    monkeypatch.setattr(attention, "_TILE", 1 << 10)
    monkeypatch.setattr(empirical, "WORKSPACE", 1 << 10)
    images = normal((200, 1, 5, 5), "images")
    x, t = noisy(images, LEVELS[1:3])
    field = MACHINES[kind](images, SDE, 3)
    for evaluate in (field.score, field.jacobian):
        with Largest(field.buffers()) as watched:
            evaluate(x, t)
        assert 0 < watched.bytes <= 1 << 14
