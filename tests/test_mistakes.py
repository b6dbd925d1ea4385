"""Mistakes in the three lines of the first page, each answered with one sentence."""

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield.errors import UserError

POINTS = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))


def field(dim=3):
    return sf.PreconditionedField(sf.MLP(dim, hidden=4, depth=1), sf.EDM(), sigma_data=0.5)


def fit(points, dim=3, **settings):
    return sf.fit(field(dim), points, quiet=True, **{"steps": 1, "batch_size": 4, **settings})


def wrap(net=None, **settings):
    net = torch.nn.Identity() if net is None else net
    given = {"shape": (3,), "predicts": "noise", "time": "index:100", "betas": "linear"}
    return sf.wrap(net, **{**given, **settings})


PROTOCOL = sf.Protocol([1.0], n=4)
ENTRIES = {
    "source_of": sf.source_of,
    "fit": fit,
    "check": lambda points: sf.check(field(), points, budget=0.1),
    "denoising_loss": lambda points: sf.denoising_loss(field(), points, PROTOCOL),
    "relative_asymmetry": lambda points: sf.relative_asymmetry(field(), points, PROTOCOL),
    "sliced_wasserstein": lambda points: sf.sliced_wasserstein(POINTS, points),
    "distance_to_ideal": lambda points: sf.distance_to_ideal(field(), points, PROTOCOL),
    "log_prob": lambda points: sf.log_prob(field(), points, rtol=0.1, atol=0.1),
    "ArraySource": lambda points: sf.ArraySource(points, points, "mine"),
    "Empirical": sf.Empirical,
}
ARRAYS = list(ENTRIES)[:6]
"""What takes arrays and lists too."""
DATA = {
    "integers": (POINTS.long(), "floating-point numbers.*, got torch.int64"),
    "nan": (POINTS.where(POINTS < 1, torch.nan), r"4 of 16 points .* nan at index \(4, 1\)"),
    "infinite": (POINTS.where(POINTS < 1, torch.inf), r"4 of 16 points .* inf at index \(4, 1\)"),
    "none": (POINTS[:0], r"at least one point .*shape \(0, 3\)"),
    "no coordinates": (torch.zeros(16, 0), r"at least one point .*shape \(16, 0\)"),
    "a number": (torch.tensor(1.0), r"at least one point .*shape \(\)"),
    "sparse": (
        POINTS.to_sparse(),
        "a number for each coordinate, got a tensor of torch.sparse_coo",
    ),
    "meta": (POINTS.to("meta"), "a number for each coordinate, got a tensor on the device meta"),
    "text": ("points", "a str"),
}


@pytest.mark.usefixtures("unchecked")
def test_a_field_has_no_values_at_sparse_points():
    with pytest.raises(UserError, match=DATA["sparse"][1]):
        field().score(DATA["sparse"][0], 1.0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("entry", ENTRIES)
def test_data_that_cannot_be_used_are_one_sentence_wherever_they_come_in(entry):
    use = ENTRIES[entry]
    for points, match in DATA.values():
        with pytest.raises(UserError, match=match) as error:
            use(points)
        assert "\n" not in str(error.value)
    for points in (POINTS.numpy(), POINTS.tolist()):
        if entry in ARRAYS:
            use(points)
        else:
            with pytest.raises(UserError, match=r"make a tensor of it, as by torch\.as_tensor"):
                use(points)
    wrong = np.full((4, 3), np.nan)
    with pytest.raises(UserError, match="finite" if entry in ARRAYS else "make a tensor of it"):
        use(wrong)


MISTAKES = {
    "width": (lambda: fit(POINTS, 4), r"points of shape \(4,\), the data of shape \(3,\)"),
    "constant": (
        lambda: sf.PreconditionedField(
            sf.MLP(3), sf.EDM(), sigma_data=sf.source_of(0 * POINTS).std
        ),
        "sigma_data must be positive, got 0",
    ),
    "one number each": (
        lambda: fit(POINTS[:, 0], sf.source_of(POINTS[:, 0]).dim),
        r"shape \(1,\), the data of shape \(\); a point is a row of the data",
    ),
    "size": (lambda: sf.MLP(10**13), "dim must be at most 1,000,000,000, got 10,000,000,000,000"),
    "memory": (lambda: sf.MLP(10**9, hidden=10**6), "memory does not suffice for a MLP of these"),
    "overflow": (lambda: sf.UNet((1, 8, 8), 10**18), "memory does not suffice for a UNet of these"),
    "wrap a tensor": (lambda: wrap(POINTS), r"a module or a function, got torch.float32 of shape"),
    "wrap shape": (lambda: wrap(shape=POINTS), r"as in \(3, 32, 32\), got torch.float32 of shape"),
    "wrap prediction": (lambda: wrap(predicts=POINTS), "predicts is torch.float32 of shape"),
    "wrap steps": (lambda: wrap(time="index:" + "9" * 20), "time is .* from 2 to 1,000,000 steps"),
    "wrap flag": (lambda: wrap(learned_variance=POINTS), "learned_variance must be True or False"),
    "wrap signature": (lambda: wrap(torch.nn.Linear(3, 3)), "Linear fails on points of shape"),
    "steps": (lambda: fit(POINTS, steps=0), "steps must be a positive integer, got 0"),
    "no folder": (lambda: sf.images("nowhere", size=8), "nowhere: there is no such file or folder"),
    "empty folder": (lambda: sf.images("empty", size=8).std, "there are no images .* it is empty"),
    "other files": (
        lambda: sf.images("texts", size=8).std,
        "there are no images .* ending in .txt",
    ),
    "shape": (
        lambda: sf.check(field(4), POINTS),
        r"the field has points of shape \(4,\), the data of shape",
    ),
    "few": (lambda: sf.check(field(), POINTS[:2]), "a check needs at least 4 points"),
    "model": (lambda: sf.load("nowhere"), "there is no model 'nowhere': nothing is there; a model"),
    "file": (lambda: sf.save(field(), "texts/a.txt"), r"cannot write texts/a\.txt: file exists"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    work, match = MISTAKES[name]
    with pytest.raises(UserError, match=match) as error:
        work()
    assert "\n" not in str(error.value)
