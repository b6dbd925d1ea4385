"""Truths about randomness with an address."""

import hashlib
import math
import os

import pytest
import torch
from scipy import stats

from scorefield.noise import Noise
from scorefield.philox import normals, philox
from tests import processes

# Two-sided false-alarm probability of a standard normal statistic beyond this: 3.8e-8.
LIMIT = 5.5

KINDS = {
    "normal": lambda noise, *a, **k: noise.normal("p", *a, **k),
    "uniform": lambda noise, *a, **k: noise.uniform("p", *a, **k),
    "signs": lambda noise, *a, **k: noise.signs("p", *a, **k),
    "integers": lambda noise, *a, **k: noise.integers("p", 1000, *a, **k),
}


@pytest.fixture(params=KINDS)
def draw(request):
    return KINDS[request.param]


# ------------------------------------------------------------------------------ the generator


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    """Known-answer vectors of philox4x32-10 in the Random123 distribution."""
    words = [[int(w, 16) for w in text.split()] for text in (counter, key, expected)]
    out = philox(torch.tensor(words[0]).reshape(4, 1), (words[1][0], words[1][1]))
    assert out.reshape(-1).tolist() == words[2]


def by_hand(radius_word, angle_word):
    """Two normals of two words, in Python's numbers, whose operations are rounded correctly."""
    u = (radius_word + 0.5) * 2.0**-32
    mantissa, exponent = math.frexp(u)
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = mantissa * 2, exponent - 1
    z = (mantissa - 1) / (mantissa + 1)

    def series(coefficients, x):
        value = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            value = value * x + c
        return value

    log = series([2.0 / (2 * k + 1) for k in range(11)], z * z) * z + exponent * math.log(2.0)
    radius = math.sqrt(-2 * log)
    angle = (((angle_word & 0x3FFFFFFF) + 0.5) * 2.0**-30 - 0.5) * (math.pi / 2)
    terms = [(-1.0) ** (k // 2) / math.factorial(k) for k in range(17)]
    sine = series(terms[1:16:2], angle * angle) * angle
    cosine = series(terms[0::2], angle * angle)
    sign = -radius if angle_word >> 31 else radius
    pair = (-sine, cosine) if angle_word >> 30 & 1 else (cosine, sine)
    return [each * sign for each in pair]


def test_normals_are_those_of_correctly_rounded_operations():
    """The vector libraries of processors round square roots differently."""
    words = torch.tensor([hash((k, 1)) % 2**32 for k in range(4000)]).view(4, -1, 1)
    found = normals(words, torch.float64)[:, :, 0].T.tolist()
    for row, (a, b, c, d) in zip(found, words[:, :, 0].T.tolist(), strict=True):
        assert row == [*by_hand(a, b), *by_hand(c, d)]


def test_philox_is_elementwise():
    counter = torch.arange(4 * 6 * 5).reshape(4, 6, 5) * 7919
    out = philox(counter, (1, 2))
    for i in range(6):
        for j in range(5):
            assert torch.equal(out[:, i, j], philox(counter[:, i, j], (1, 2)))


def test_draws_follow_the_documented_construction():
    seed, purpose, index, step = 2**70 - 3, "data", (1 << 40) + 17, 12345
    digest = hashlib.blake2b(f"{seed}\0{purpose}".encode(), digest_size=8).digest()
    key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in (0, 4))
    counter = torch.tensor([[0, 1], [step] * 2, [index % 2**32] * 2, [index // 2**32] * 2])
    words = philox(counter, key).T.tolist()
    at = torch.tensor([index])

    uniform = Noise(seed).uniform(purpose, (4,), at, step, torch.float64)[0].tolist()
    for block in (0, 1):
        for i in (0, 1):
            high, low = words[block][2 * i] >> 5, words[block][2 * i + 1] >> 6
            assert uniform[2 * block + i] == (high * 2**26 + low + 0.5) / 2**53

    normal = Noise(seed).normal(purpose, (8,), at, step, torch.float64)[0].tolist()
    for block in (0, 1):
        for i in (0, 1):
            a, b = normal[4 * block + 2 * i : 4 * block + 2 * i + 2]
            radius = -2 * math.log((words[block][2 * i] + 0.5) / 2**32)
            assert a * a + b * b == pytest.approx(radius, rel=1e-14)


# ------------------------------------------------------------------------------ the laws


@pytest.mark.parametrize("axis", ["index", "step", "component"])
def test_normals_are_normal(axis):
    n = 200_000
    x = _stream(Noise(3).normal, axis, n)
    assert stats.kstest(x, "norm").pvalue > 1e-7
    assert abs(x.mean()) * math.sqrt(n) < LIMIT
    assert abs((x**2).mean() - 1) * math.sqrt(n / 2) < LIMIT
    assert abs((x**4).mean() - 3) * math.sqrt(n / 96) < LIMIT


@pytest.mark.parametrize("axis", ["index", "step", "component"])
def test_uniforms_are_uniform(axis):
    u = _stream(Noise(4).uniform, axis, 200_000)
    assert stats.kstest(u, "uniform").pvalue > 1e-7
    assert u.min() > 0
    assert u.max() < 1


def test_components_of_a_block_are_jointly_normal():
    x = Noise(5).normal("p", (4,), torch.arange(100_000), dtype=torch.float64)
    for i in range(4):
        for j in range(i):
            square = x[:, i] ** 2 + x[:, j] ** 2
            angle = torch.atan2(x[:, i], x[:, j])
            assert stats.kstest(square, "chi2", args=(2,)).pvalue > 1e-8
            assert stats.kstest(angle, "uniform", args=(-math.pi, math.tau)).pvalue > 1e-8


def test_signs_are_fair_and_integers_cover_their_range_evenly():
    signs = Noise(6).signs("p", (256,), torch.arange(1000), dtype=torch.float64)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean(dim=0).abs().max() * math.sqrt(1000) < LIMIT + 1
    assert abs(float(signs.mean())) * math.sqrt(signs.numel()) < LIMIT
    counts = torch.bincount(Noise(6).integers("p", 10, (), torch.arange(100_000)), minlength=10)
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > 1e-7


def test_permutations_are_permutations_and_equally_likely():
    numbers = torch.arange(1797, device="cpu")
    assert torch.equal(Noise(7).permutation("p", 1797).sort().values, numbers)
    codes = [int("".join(map(str, Noise(7).permutation("p", 3, s).tolist()))) for s in range(1200)]
    counts = torch.tensor(codes).unique(return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-7


# ------------------------------------------------------------------------------ independence


NEIGHBOURS = {
    "index": lambda i: Noise(1).normal("p", (), i + 1, 0, torch.float64),
    "index + 2^32": lambda i: Noise(1).normal("p", (), i + 2**32, 0, torch.float64),
    "step": lambda i: Noise(1).normal("p", (), i, 1, torch.float64),
    "purpose": lambda i: Noise(1).normal("q", (), i, 0, torch.float64),
    "seed": lambda i: Noise(2).normal("p", (), i, 0, torch.float64),
    "seed + 2^32": lambda i: Noise(1 + 2**32).normal("p", (), i, 0, torch.float64),
    "seed + 2^64": lambda i: Noise(1 + 2**64).normal("p", (), i, 0, torch.float64),
    "-seed": lambda i: Noise(-1).normal("p", (), i, 0, torch.float64),
    "component": lambda i: Noise(1).normal("p", (5,), i, 0, torch.float64)[:, 1],
    "block": lambda i: Noise(1).normal("p", (5,), i, 0, torch.float64)[:, 4],
}


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_neighbouring_addresses_are_uncorrelated(neighbour):
    n = 100_000
    index = torch.arange(n)
    a = Noise(1).normal("p", (), index, 0, torch.float64)
    b = NEIGHBOURS[neighbour](index)
    for f in (lambda x: x, torch.abs, torch.square):
        correlation = float(torch.corrcoef(torch.stack((f(a), f(b))))[0, 1])
        assert abs(correlation) * math.sqrt(n) < LIMIT


def test_a_million_addresses_give_a_million_blocks():
    """Two float64 uniforms show 106 of a block's 128 bits: a chance collision among 10^6 has
    probability 6e-21."""
    index = torch.cat((torch.arange(50), torch.arange(50) + 2**32, torch.arange(50) * 2**33))
    step = torch.tensor([0, 1, 2, 3, 2**16, 2**31, 2**32 - 1]).reshape(-1, 1)
    rows = [
        Noise(seed).uniform(purpose, (2,), index.unique(), step, torch.float64).reshape(-1, 2)
        for seed in (*range(40), 2**32, 2**32 + 1, 2**64, -1, -2)
        for purpose in (*"abcdefghijklmnopqr", "data", "prior", "1", "\0")
    ]
    blocks = torch.cat(rows)
    assert len(blocks) > 1_000_000
    # equal blocks would be neighbours after sorting by the first number
    order = blocks[:, 0].argsort()
    equal = (blocks[order][1:] == blocks[order][:-1]).all(dim=1)
    assert not equal.any()


def test_seeds_beyond_32_bits_differ_in_effect():
    index = torch.arange(8)
    draws = [Noise(s).normal("p", (3,), index) for s in (1, 1 + 2**32, 1 + 2**64, -1, 1 - 2**32)]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert not torch.isclose(a, b).any()


# ------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 4)])
def test_a_draw_is_bit_equal_in_any_batch(draw, shape):
    noise = Noise(11)
    everything = draw(noise, shape, torch.arange(1000), 3)
    for n in (*range(1, 71), 1000):
        assert torch.equal(draw(noise, shape, torch.arange(n), 3), everything[:n])
    for index in (
        torch.arange(1, 1000, 7),
        torch.arange(1000).flip(0),
        torch.arange(999)[::3],
        torch.arange(1000).reshape(40, 25).T,
        torch.tensor([17, 17, 5]),
        torch.tensor(17),
        torch.arange(0),
    ):
        assert torch.equal(draw(noise, shape, index, 3), everything[index])


def test_many_steps_at_once_are_the_single_steps(draw):
    noise, index = Noise(12), torch.arange(33)
    together = draw(noise, (2, 3), index, torch.arange(7).reshape(7, 1))
    assert together.shape == (7, 33, 2, 3)
    for k in range(7):
        assert torch.equal(together[k], draw(noise, (2, 3), index, k))


def test_a_smaller_event_is_a_prefix(draw):
    noise, index = Noise(13), torch.arange(9)
    large = draw(noise, (200,), index)
    for n in (1, 3, 4, 5, 127, 128, 129):
        assert torch.equal(draw(noise, (n,), index), large[:, :n])
    assert draw(noise, (0,), index).shape == (9, 0)


@pytest.mark.parametrize("kind", ["normal", "uniform", "signs"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_dtype_only_rounds(kind, dtype):
    index = torch.arange(5000)
    exact = KINDS[kind](Noise(14), (3,), index, dtype=torch.float64)
    rounded = KINDS[kind](Noise(14), (3,), index, dtype=dtype)
    assert rounded.dtype == dtype
    if kind == "uniform":
        below_one = 1 - torch.finfo(dtype).eps / 2
        assert torch.equal(rounded, exact.to(dtype).clamp(max=below_one))
        assert rounded.max() < 1
    else:
        assert torch.equal(rounded, exact.to(dtype))


def test_two_other_processes_draw_the_same_bits():
    script = """
import hashlib, torch
from scorefield.noise import Noise
torch.set_num_threads({threads})
digest = hashlib.sha256()
for index in torch.arange(600).split({batch}):
    x = Noise(5).normal("prior", (3, 5), index, 2)
    u = Noise(5).uniform("time", (), index, 2)
    digest.update(torch.cat((x.flatten(1), u[:, None]), dim=1).numpy().tobytes())
print(digest.hexdigest())
"""
    index = torch.arange(600)
    x = Noise(5).normal("prior", (3, 5), index, 2)
    u = Noise(5).uniform("time", (), index, 2)
    here = hashlib.sha256(torch.cat((x.flatten(1), u[:, None]), dim=1).numpy().tobytes())
    for threads, batch in ((1, 600), (2, 37)):
        environment = {**os.environ, "PYTHONHASHSEED": str(batch)}
        there = processes.python(script.format(threads=threads, batch=batch), env=environment)
        assert there.strip() == here.hexdigest()


def test_global_random_state_is_neither_read_nor_written():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a = Noise(0).normal("p", (3,), torch.arange(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(Noise(0).normal("p", (3,), torch.arange(5)), a)


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("seed", [1.0, "1", True, None])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(TypeError):
        Noise(seed)


@pytest.mark.parametrize(("index", "step"), [(-1, 0), (0, -1), (0, 2**32)])
def test_an_address_out_of_range_is_an_error(draw, index, step):
    # Numbers on a GPU are not waited for.
    address, steps = (torch.tensor([number], device="cpu") for number in (index, step))
    with pytest.raises(ValueError, match="step"):
        draw(Noise(0), (2,), address, step)
    with pytest.raises(ValueError, match="step"):
        draw(Noise(0), (2,), address, steps)


def test_integers_need_a_positive_bound():
    with pytest.raises(ValueError, match="high must be a positive integer, got 0"):
        Noise(0).integers("p", 0, (), torch.arange(3))


def _stream(draw, axis, n):
    """n draws along one axis of the address."""
    if axis == "index":
        x = draw("p", (), torch.arange(n), 0, torch.float64)
    elif axis == "step":
        x = draw("p", (), torch.zeros(n, dtype=torch.int64), torch.arange(n), torch.float64)
    else:
        x = draw("p", (n,), torch.tensor(0), 0, torch.float64)
    return x.numpy()
