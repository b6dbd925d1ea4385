"""Mistakes in the three lines of the first page, each answered with one sentence."""

import pytest
import torch

import scorefield as sf
from scorefield.errors import UserError

POINTS = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))


def field(dim=3):
    return sf.PreconditionedField(sf.MLP(dim, hidden=4, depth=1), sf.EDM(), sigma_data=0.5)


def fit(points, dim=3, **settings):
    return sf.fit(field(dim), points, quiet=True, **{"steps": 1, "batch_size": 4, **settings})


MISTAKES = {
    "nan": (lambda: fit(POINTS.where(POINTS < 1, torch.nan)), r"points: train is nan at index"),
    "infinite": (lambda: fit(POINTS / 0), "points: train is -?inf at index"),
    "integers": (lambda: fit(POINTS.long()), "floating-point numbers or bytes, got torch.int64"),
    "width": (lambda: fit(POINTS, 4), r"the event shape \(4,\), the data points on \(3,\)"),
    "one": (lambda: fit(POINTS[0]), r"the event shape \(3,\), the data points on \(\)"),
    "none": (lambda: fit(POINTS[:0]), "data have at least one point"),
    "constant": (
        lambda: sf.PreconditionedField(sf.MLP(3), sf.EDM(), sigma_data=float((0 * POINTS).std())),
        "sigma_data must be positive, got 0",
    ),
    "steps": (lambda: fit(POINTS, steps=0), "steps must be a positive integer, got 0"),
    "no folder": (lambda: sf.images("nowhere", size=8), "nowhere: there is no such file or folder"),
    "empty folder": (lambda: sf.images("empty", size=8).std, "there are no images .* it is empty"),
    "other files": (
        lambda: sf.images("texts", size=8).std,
        "there are no images .* ending in .txt",
    ),
    "shape": (lambda: sf.check(field(4), POINTS), r"points of shape \(4,\), the data of shape"),
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
