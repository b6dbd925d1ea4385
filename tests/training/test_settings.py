import pytest

from scorefield import Optim
from scorefield.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "sgd"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("betas", (1.0, 0.9)),
        ("eps", 0.0),
        ("weight_decay", -1.0),
        ("warmup", -1),
        ("decay", "steps"),
        ("clip", 0.0),
    ],
)
def test_an_optimiser_says_what_is_wrong(unchecked, name, value):
    with pytest.raises(ValueError, match=str(value).strip("()").split(",", maxsplit=1)[0]):
        Optim(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("checkpoint_every", 0),
        ("log_every", -1),
        ("ema_decay", 1.0),
        ("keep", 0),
    ],
)
def test_a_training_says_what_is_wrong(name, value):
    with pytest.raises(ValueError, match=f"{name} .*{value}"):
        TrainSettings(**{name: value})
