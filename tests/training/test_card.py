"""The card in the folder of a training."""

import pytest
import torch

import scorefield as sf
from scorefield.errors import TrainingError
from scorefield.training import card

RING = sf.GaussianMixture.ring(sde=sf.EDM())


def train(folder, steps=2):
    field = sf.PreconditionedField(sf.MLP(2, hidden=4, depth=1), sf.EDM(), 3.0)
    return sf.fit(field, RING, steps=steps, batch_size=4, folder=folder, quiet=True).field


def test_its_code_loads_the_field(tmp_path, monkeypatch):
    field = train(tmp_path / "toy" / "m0" / "seed0")
    text = (tmp_path / "toy" / "m0" / "seed0" / "README.md").read_text()
    assert "# toy/m0/seed0\n" in text
    assert f"| data | {sf.data.source.TargetSource(RING).name} |" in text
    count = sum(p.numel() for p in field.parameters())
    assert f"| parameters | {count} |" in text
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(text.partition("```python\n")[2].partition("```")[0], scope)
    x = torch.randn(3, 2)
    assert torch.equal(scope["field"].score(x, 0.5), field.score(x, 0.5))
    assert scope["x"].shape == (16, 2)


def test_a_card_of_the_users_own_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    train(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_disk_that_is_full_at_the_end_loses_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card, "write_file", full)
    with pytest.raises(TrainingError, match=r"cannot write .*README.md: no space left"):
        train(tmp_path)
    monkeypatch.undo()
    train(tmp_path)
    assert (tmp_path / "README.md").is_file()
