"""Truths about the scores of patches: their definition, their limits, and what changes nothing."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scorefield import (
    EDM,
    VP,
    EquivariantLocalScore,
    EquivariantScore,
    Heun,
    IdealScore,
    LocalScore,
    PatchSizes,
)
from tests.laws.cases import SDES, normal
from tests.targets import definition

SDE = VP(t_min=1e-4)


def ideal(images, sde=None, size=1, labels=None):
    return IdealScore(images, sde, labels=labels)


def equivariant(images, sde=None, size=1, labels=None):
    return EquivariantScore(images, sde, labels=labels)


MACHINES = {
    "ideal": ideal,
    "equivariant": equivariant,
    "local": LocalScore,
    "local circular": partial(LocalScore, padding="circular"),
    "equivariant local": EquivariantLocalScore,
    "equivariant local circular": partial(EquivariantLocalScore, padding="circular"),
    "equivariant local valid": partial(EquivariantLocalScore, padding="valid"),
}
BOUNDED = ("local circular", "equivariant local circular", "equivariant local valid")
"""Those whose patches are no larger than the images."""
PATCHES = [name for name in MACHINES if "local" in name]
LEVELS = torch.tensor([0.02, 0.3, 1.0, 8.0], dtype=torch.float64)


@pytest.fixture(params=MACHINES)
def kind(request):
    return request.param


def noisy(images, levels, sde=SDE):
    """Images in noise of given levels, and the times of these."""
    t = sde.time(torch.as_tensor(levels, dtype=torch.float64))
    clean = images[torch.arange(len(t)) % len(images)]
    return sde.perturb(clean, t, normal(tuple(clean.shape), "z")), t


def close(actual, expected, rtol=1e-10):
    """Relative to the largest value of each row."""
    error = (actual - expected).flatten(1).abs().amax(dim=1)
    assert (error <= rtol * expected.flatten(1).abs().amax(dim=1)).all()


def expected_score(kind, images, x, t, size, sde=SDE):
    return definition.score(kind, images, x, sde.alpha(t), sde.sigma(t), [size] * len(x))


def test_it_is_what_the_definition_says(kind):
    @settings(max_examples=15)
    @given(data=st.data())
    def check(data):
        channels, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
        height, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
        largest = min(height, width) if kind in BOUNDED else 2 * max(height, width) + 1
        size = 2 * data.draw(st.integers(0, (largest - 1) // 2)) + 1
        exponents = data.draw(st.lists(st.floats(-2, 1.5), min_size=1, max_size=3))
        sde = data.draw(st.sampled_from([SDES["EDM"], SDE, SDES["Cosine"]]))
        images = normal((n, channels, height, width), "images", data.draw(st.integers(0, 9)))
        x, t = noisy(images, [10**e for e in exponents], sde)
        field = MACHINES[kind](images, sde, size)
        close(field.score(x, t), expected_score(kind, images, x, t, size, sde), 1e-9)

    check()


@pytest.mark.parametrize("shape", [(1, 7, 6), (2, 4, 7)], ids=str)
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_pixels_are_compared_with_those_that_see_the_same_border(shape, size):
    """At sizes with a middle, with one on one axis alone, and without any."""
    images = normal((2, *shape), "images")
    x, t = noisy(images, [0.5])
    field = EquivariantLocalScore(images, SDE, size)
    close(field.score(x, t), expected_score("equivariant local", images, x, t, size))


def test_each_row_has_its_own_time(kind):
    images = normal((3, 2, 4, 5), "images")
    x, t = noisy(images, LEVELS)
    field = MACHINES[kind](images, SDE, 3)
    for value in (field.score, field.denoise):
        alone = [value(x[k : k + 1], float(t[k])) for k in range(len(x))]
        close(value(x, t), torch.cat(alone), 1e-11)


def test_denoiser_and_score_are_one(kind):
    images = normal((3, 2, 4, 5), "images")
    x, t = noisy(images, LEVELS)
    field = MACHINES[kind](images, SDE, 3)
    alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in (SDE.alpha(t), SDE.sigma(t)))
    close(field.denoise(x, t), (x + sigma**2 * field.score(x, t)) / alpha)
    close(field.predict(x, t, "noise"), -sigma * field.score(x, t))
    assert torch.equal(field(x, t), field.score(x, t))


def test_the_order_of_the_images_does_not_matter(kind):
    images = normal((6, 1, 4, 5), "images")
    x, t = noisy(images, LEVELS)
    turned = MACHINES[kind](images.flip(0), SDE, 3)
    close(turned.score(x, t), MACHINES[kind](images, SDE, 3).score(x, t))


def test_images_that_come_twice_count_twice_as_much_as_others(kind):
    images = normal((4, 1, 4, 5), "images")
    x, t = noisy(images, LEVELS)
    one = MACHINES[kind](images, SDE, 3)
    close(MACHINES[kind](images.repeat(2, 1, 1, 1), SDE, 3).score(x, t), one.score(x, t))
    heavy = torch.cat((images, images[:1]))
    close(
        MACHINES[kind](heavy, SDE, 3).score(x, t),
        expected_score(kind, heavy, x, t, 3),
    )


@pytest.mark.parametrize("kind", ["ideal", "local", "local circular"])
def test_of_a_single_image_the_posterior_is_that_image(kind):
    image = normal((1, 2, 4, 5), "image")
    x, t = noisy(image.expand(4, -1, -1, -1), LEVELS)
    field = MACHINES[kind](image, SDE, 3)
    close(field.denoise(x, t), image.expand(4, -1, -1, -1), 1e-14)
    sampled = Heun(5).sample(field, n=3, dtype=torch.float64)
    torch.testing.assert_close(sampled, image.expand(3, -1, -1, -1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [name for name in MACHINES if "valid" not in name])
def test_under_little_noise_the_nearest_patch_is_the_denoised_one(kind):
    """Every pixel is that of a training image, and of the one that the point was made of."""
    images = normal((5, 2, 4, 5), "images")
    x = images + 1e-4 * normal((5, 2, 4, 5), "z")
    denoised = MACHINES[kind](images, EDM(1e-5), 3).denoise(x, 1e-4)
    torch.testing.assert_close(denoised, images, rtol=0, atol=1e-12)


def test_under_much_noise_the_mean_of_the_candidates_is_the_denoised_pixel():
    images = normal((5, 2, 4, 6), "images")
    x, t = 1e7 * normal((1, 2, 4, 6), "z"), 1e7
    sde = EDM(sigma_max=1e8)

    def denoised(kind):
        # Equal weights but for |x| / t times the spread of the images over t.
        return MACHINES[kind](images, sde, 3).denoise(x, t)

    mean = images.mean(dim=0, keepdim=True)
    for kind in ("ideal", "local", "local circular"):
        torch.testing.assert_close(denoised(kind), mean, rtol=0, atol=1e-5)
    shifted = mean.mean(dim=(2, 3), keepdim=True).expand_as(mean)
    for kind in ("equivariant", "equivariant local circular"):
        torch.testing.assert_close(denoised(kind), shifted, rtol=0, atol=1e-5)
    by_class = mean.clone()
    for rows, columns in (
        (slice(0, 1), slice(1, 5)),
        (slice(3, 4), slice(1, 5)),
        (slice(1, 3), slice(0, 1)),
        (slice(1, 3), slice(5, 6)),
        (slice(1, 3), slice(1, 5)),
    ):
        block = by_class[..., rows, columns]
        block.copy_(block.mean(dim=(2, 3), keepdim=True).expand_as(block))
    torch.testing.assert_close(denoised("equivariant local"), by_class, rtol=0, atol=1e-5)


class TestLimits:
    IMAGES = normal((4, 2, 5, 5), "images")

    def agree(self, one, other):
        x, t = noisy(self.IMAGES, LEVELS)
        close(one.score(x, t), other.score(x, t))
        close(one.jacobian(x, t), other.jacobian(x, t), 1e-9)

    @pytest.mark.parametrize("size", [5, 7, 9, 15])
    def test_with_patches_as_large_as_the_image_every_pixel_knows_its_place(self, size):
        images = self.IMAGES
        self.agree(EquivariantLocalScore(images, SDE, size), LocalScore(images, SDE, size))

    @pytest.mark.parametrize("size", [9, 11, 21])
    def test_with_patches_that_see_all_from_everywhere_the_score_is_ideal(self, size):
        self.agree(LocalScore(self.IMAGES, SDE, size), IdealScore(self.IMAGES, SDE))

    def test_on_the_torus_a_patch_of_the_whole_image_sees_all(self):
        images, padding = self.IMAGES, "circular"
        self.agree(LocalScore(images, SDE, 5, padding=padding), IdealScore(images, SDE))
        self.agree(
            EquivariantLocalScore(images, SDE, 5, padding=padding), EquivariantScore(images, SDE)
        )

    def test_patches_of_one_pixel_do_not_know_their_place(self):
        """All three paddings of the equivariant score are one."""
        zeros, circular, valid = (
            EquivariantLocalScore(self.IMAGES, SDE, 1, padding=padding)
            for padding in ("zeros", "circular", "valid")
        )
        self.agree(zeros, circular)
        self.agree(zeros, valid)

    def test_all_shifts_of_the_images_make_the_ideal_score_equivariant(self):
        shifts = [self.IMAGES.roll((i, j), (2, 3)) for i in range(5) for j in range(5)]
        self.agree(IdealScore(torch.cat(shifts), SDE), EquivariantScore(self.IMAGES, SDE))

    def test_it_draws_every_shift_of_every_image_equally_often(self):
        images = normal((2, 2, 2, 3), "images")
        shifts = torch.cat([images.roll((i, j), (2, 3)) for i in range(2) for j in range(3)])
        drawn = EquivariantScore(images, SDE).sample(6000, 0, torch.float64)
        same = (drawn[:, None] == shifts).flatten(2).all(dim=2)
        assert bool((same.sum(dim=1) == 1).all())
        # Of a binomial number with a mean of 500, six standard deviations.
        assert bool(((same.sum(dim=0) - 500).abs() < 6 * (500 * 11 / 12) ** 0.5).all())

    def test_its_density_is_the_mean_over_all_shifts(self):
        images = normal((3, 2, 2, 5), "images")
        shifts = torch.cat([images.roll((i, j), (2, 3)) for i in range(2) for j in range(5)])
        x, t = noisy(images, LEVELS)
        shifted = EquivariantScore(images, SDE)
        assert shifted.count == len(shifts)
        expected = IdealScore(shifts, SDE).log_density(x, t)
        torch.testing.assert_close(shifted.log_density(x, t), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", ["equivariant", "equivariant local circular"])
def test_on_the_torus_a_score_moves_with_its_point(kind):
    images = normal((4, 2, 4, 5), "images")
    x, t = noisy(images, LEVELS)
    field = MACHINES[kind](images, SDE, 3)
    moved = field.score(x.roll((1, 2), (2, 3)), t)
    close(moved, field.score(x, t).roll((1, 2), (2, 3)))


class TestClasses:
    IMAGES = normal((7, 1, 4, 5), "images")
    LABELS = torch.tensor([2, 0, 1, 0, 2, 2, 1])

    def make(self, kind):
        return MACHINES[kind](self.IMAGES, SDE, 3, labels=self.LABELS)

    def of(self, kind, label):
        chosen = self.IMAGES if label == 3 else self.IMAGES[label == self.LABELS]
        return MACHINES[kind](chosen, SDE, 3)

    @pytest.mark.parametrize("label", [0, 1, 2, 3])
    def test_a_class_is_its_images_alone_and_its_number_that_of_none(self, kind, label):
        x, t = noisy(self.IMAGES, LEVELS)
        field, alone = self.make(kind), self.of(kind, label)
        close(field.score(x, t, label), alone.score(x, t))
        close(field.denoise(x, t, label), alone.denoise(x, t))
        close(field.jacobian(x, t, label), alone.jacobian(x, t))
        assert field.classes == 3

    def test_without_a_class_all_images_count(self, kind):
        x, t = noisy(self.IMAGES, LEVELS)
        close(self.make(kind).score(x, t), self.of(kind, 3).score(x, t))
        assert self.make(kind).classes == 3
        assert self.of(kind, 3).classes is None
        with pytest.raises(ValueError, match="has no classes, and was given 0"):
            self.of(kind, 3).score(x, t, 0)

    def test_each_point_may_have_a_class_of_its_own(self, kind):
        classes = torch.tensor([1, 3, 0, 2, 1])
        x, t = noisy(self.IMAGES, [0.02, 0.5, 0.5, 2.0, 8.0])
        field = self.make(kind)
        for name in ("score", "denoise", "jacobian"):
            alone = [
                getattr(self.of(kind, c), name)(x[k : k + 1], t[k : k + 1])
                for k, c in enumerate(classes.tolist())
            ]
            close(getattr(field, name)(x, t, classes), torch.cat(alone))

    def test_samples_of_a_class(self, kind):
        x = Heun(4).sample(self.make(kind), n=3, classes=1, dtype=torch.float64)
        alone = Heun(4).sample(self.of(kind, 1), n=3, dtype=torch.float64)
        torch.testing.assert_close(x, alone, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("label", [-1, 4])
    def test_a_class_out_of_range_is_an_error(self, kind, label):
        with pytest.raises(ValueError, match=f"classes must lie in 0 … 3, got {label}"):
            self.make(kind).score(self.IMAGES, 1.0, label)

    def test_a_class_without_images_is_an_error(self, kind):
        field = MACHINES[kind](self.IMAGES, SDE, 3, labels=2 * (self.LABELS == 2).long())
        for classes in (1, torch.tensor([0, 2, 1])):
            with pytest.raises(ValueError, match="of class 1"):
                field.score(self.IMAGES[:3], 1.0, classes)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (torch.zeros(6, dtype=torch.int64), "7 .*6"),
            (torch.zeros(7, 1, dtype=torch.int64), "7"),
            (torch.full((7,), -1), "-1"),
        ],
        ids=["too few", "a table", "negative"],
    )
    def test_labels_are_a_class_an_image(self, kind, labels, message, unchecked):
        with pytest.raises(ValueError, match=message):
            MACHINES[kind](self.IMAGES, SDE, 3, labels=labels)


class TestSizes:
    SIZES = PatchSizes([0.05, 0.5, 5.0], [3, 5, 7])

    def test_it_is_that_of_the_nearest_noise_level(self):
        """On the scale of the logarithm; beyond the ends that of the end."""
        levels = torch.tensor([1e-9, 0.05, 0.158, 0.159, 0.5, 1.58, 1.59, 5.0, 1e9])
        assert self.SIZES.at(levels).tolist() == [3, 3, 3, 5, 5, 5, 7, 7, 7]
        assert self.SIZES.at(levels.double().reshape(3, 3)).tolist()[1] == [5, 5, 5]
        assert self.SIZES.at(levels).dtype == torch.int64
        assert self.SIZES.at(torch.tensor(0.4)).shape == ()

    @pytest.mark.parametrize("kind", PATCHES)
    @pytest.mark.parametrize("sde", [SDE, EDM()], ids=["vp", "edm"])
    def test_each_row_has_the_size_of_its_noise_level(self, kind, sde):
        images = normal((4, 2, 7, 8), "images")
        x, t = noisy(images, [0.03, 9.0, 0.4, 0.04, 0.6], sde)
        field = MACHINES[kind](images, sde, self.SIZES)
        sizes = [3, 7, 5, 3, 5]
        for name in ("score", "denoise", "jacobian"):
            alone = [
                getattr(MACHINES[kind](images, sde, size), name)(x[k : k + 1], t[k : k + 1])
                for k, size in enumerate(sizes)
            ]
            close(getattr(field, name)(x, t), torch.cat(alone))

    @pytest.mark.parametrize("kind", PATCHES)
    def test_rows_of_several_sizes_keep_their_classes(self, kind):
        images, labels = normal((6, 1, 7, 7), "images"), torch.tensor([0, 1, 2, 0, 1, 2])
        classes = torch.tensor([2, 0, 3, 1])
        x, t = noisy(images, [0.03, 9.0, 0.4, 0.04])
        field = MACHINES[kind](images, SDE, self.SIZES, labels=labels)
        alone = [field.score(x[k : k + 1], t[k : k + 1], c) for k, c in enumerate(classes.tolist())]
        close(field.score(x, t, classes), torch.cat(alone))

    @pytest.mark.parametrize(
        ("sigmas", "sizes", "message"),
        [
            ([], [], "0 for 0"),
            ([0.1, 0.2], [3], "1 for 2"),
            ([0.1, -0.2], [3, 5], "positive"),
            ([0.1, float("nan")], [3, 5], "positive"),
            ([0.1, 0.2], [3, 4], "odd"),
            ([0.1, 0.2], [3, -1], "positive|odd"),
            ([0.1, 0.1], [3, 5], "ascending"),
            ([0.2, 0.1], [3, 5], "ascending"),
        ],
    )
    def test_impossible_sizes_are_an_error(self, sigmas, sizes, message):
        with pytest.raises(ValueError, match=message):
            PatchSizes(sigmas, sizes)


class TestRefusals:
    IMAGES = normal((3, 1, 4, 5), "images")

    @pytest.mark.parametrize("kind", PATCHES)
    @pytest.mark.parametrize("size", [0, -1, -3, 2, 4])
    def test_patches_have_a_centre(self, kind, size):
        with pytest.raises(ValueError, match=f"odd.* {size}"):
            MACHINES[kind](self.IMAGES, SDE, size)

    @pytest.mark.parametrize("kind", BOUNDED)
    def test_patches_on_the_torus_are_no_larger_than_the_image(self, kind):
        for size in (5, PatchSizes([0.1, 1.0], [3, 5])):
            with pytest.raises(ValueError, match=r"5.* 4|4.* 5"):
                MACHINES[kind](self.IMAGES, SDE, size)

    def test_there_is_no_score_without_noise(self, kind):
        field = MACHINES[kind](self.IMAGES, EDM(), 3)
        for evaluate in (field.score, field.denoise, field.jacobian):
            for t in (0.0, torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)):
                with pytest.raises(ValueError, match="has times above 0"):
                    evaluate(self.IMAGES, t)

    @pytest.mark.parametrize("shape", [(3, 1, 5, 4), (3, 2, 4, 5), (3, 20), (3, 1, 4, 5, 1)])
    def test_points_are_images_of_the_same_shape(self, kind, shape):
        field = MACHINES[kind](self.IMAGES, SDE, 3)
        for evaluate in (field.score, field.denoise, field.jacobian):
            with pytest.raises(ValueError, match=r"points of shape \(1, 4, 5\)"):
                evaluate(torch.zeros(shape, dtype=torch.float64), 0.5)

    def test_times_are_one_or_as_many_as_the_points(self, kind):
        field = MACHINES[kind](self.IMAGES, SDE, 3)
        with pytest.raises(ValueError, match="3 points need one time"):
            field.score(self.IMAGES, torch.tensor([0.5, 0.5]))

    @pytest.mark.parametrize("kind", [name for name in MACHINES if name != "ideal"])
    @pytest.mark.parametrize(
        "shape", [(3, 20), (4, 5), (3, 1, 1, 4, 5), (0, 1, 4, 5), (3, 0, 4, 5)]
    )
    def test_training_images_are_some_images(self, kind, shape, unchecked):
        with pytest.raises(ValueError, match="images"):
            MACHINES[kind](torch.zeros(shape), SDE, 3)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_training_images_are_finite(self, kind, value):
        images = self.IMAGES.clone()
        images[1, 0, 2, 3] = value
        with pytest.raises(ValueError, match="finite"):
            MACHINES[kind](images, SDE, 3)

    def test_the_padding_is_one_that_there_is(self, unchecked):
        for make in (LocalScore, EquivariantLocalScore):
            with pytest.raises(ValueError, match="reflect"):
                make(self.IMAGES, SDE, 3, padding="reflect")
        with pytest.raises(ValueError, match="valid"):
            LocalScore(self.IMAGES, SDE, 3, padding="valid")


class TestModules:
    IMAGES = normal((5, 1, 4, 5), "images")
    LABELS = torch.tensor([0, 1, 0, 1, 1])

    def make(self, kind, images=IMAGES, sde=SDE):
        return MACHINES[kind](images, sde, 3, labels=self.LABELS)

    def test_another_process_shares_the_images_and_leaves_the_first_alone(self, kind):
        field = self.make(kind)
        twin = field.under(EDM())
        assert (twin.sde, field.sde) == (EDM(), SDE)
        assert type(twin) is type(field)
        for a, b in zip(twin.buffers(), field.buffers(), strict=True):
            assert a.data_ptr() == b.data_ptr()
        x, t = noisy(self.IMAGES, LEVELS, EDM())
        close(twin.score(x, t), self.make(kind, sde=EDM()).score(x, t), 1e-14)
        of_one = field.of_class(1).under(EDM())
        close(of_one.score(x, t), twin.score(x, t, 1), 1e-14)

    def test_a_process_is_only_a_scale_and_a_clock(self, kind):
        field = self.make(kind)
        x, t = noisy(self.IMAGES, LEVELS)
        alpha = SDE.alpha(t).reshape(-1, 1, 1, 1)
        scaled = field.under(EDM()).score(x / alpha, SDE.noise_level(t)) / alpha
        close(field.score(x, t), scaled)

    def test_a_copy_is_the_same_field(self, kind):
        x, t = noisy(self.IMAGES, LEVELS)
        field = self.make(kind)
        for original in (field, field.of_class(0)):
            assert torch.equal(copy.deepcopy(original).score(x, t), original.score(x, t))

    def test_a_state_makes_another_field_the_same(self, kind):
        x, t = noisy(self.IMAGES, LEVELS)
        field, other = self.make(kind), self.make(kind, self.IMAGES.flip(0) + 1)
        other.load_state_dict(field.state_dict())
        assert torch.equal(other.score(x, t), field.score(x, t))
        assert not list(field.parameters())

    def test_the_state_of_bright_images_in_place_of_dark_ones(self, kind):
        """What is known of the images in advance is known of those that were loaded."""
        bright, dark = (self.make(kind, c * self.IMAGES.float()) for c in (30.0, 1e-3))
        dark.load_state_dict(bright.state_dict())
        x = torch.zeros(5, 1, 4, 5)
        for level in (0.5, 2.0, 8.0):
            t = SDE.time(torch.tensor(level))
            found = dark.score(x, t)
            assert found.isfinite().all()
            close(found, bright.score(x, t), 1e-6)

    @pytest.mark.parametrize("stored", [torch.float32, torch.float64])
    @pytest.mark.parametrize("asked", [torch.float32, torch.float64])
    def test_results_have_the_dtype_of_the_points(self, kind, stored, asked):
        x, t = noisy(self.IMAGES, LEVELS)
        exact = self.make(kind).score(x, t)
        field = self.make(kind, self.IMAGES.to(stored))
        for moved in (field, self.make(kind).to(stored)):
            for name in ("score", "denoise", "jacobian"):
                assert getattr(moved, name)(x.to(asked), t.to(asked)).dtype == asked
            close(moved.score(x.to(asked), t.to(asked)).double(), exact, 1e-4)

    def test_everything_moves_with_the_field(self, kind):
        """Images and classes are buffers, and no tensor is left behind."""
        for field in (self.make(kind), self.make(kind).of_class(1)):
            assert all(buffer.is_meta for buffer in field.to("meta").buffers())
            kept = [value for module in field.modules() for value in vars(module).values()]
            assert not any(isinstance(value, torch.Tensor) for value in kept)

    def test_a_batch_may_be_empty(self, kind):
        x = torch.zeros(0, 1, 4, 5)
        field = self.make(kind)
        assert field.score(x, 0.5).shape == x.shape
        assert field.denoise(x, 0.5).shape == x.shape
        assert field.jacobian(x, 0.5).shape == (0, 20, 20)

    def test_points_and_images_stay_as_they_are(self, kind):
        images = self.IMAGES.clone()
        x, t = noisy(images, LEVELS)
        before = x.clone()
        field = self.make(kind, images)
        field.score(x, t)
        field.jacobian(x, t)
        assert torch.equal(x, before)
        assert torch.equal(images, self.IMAGES)
