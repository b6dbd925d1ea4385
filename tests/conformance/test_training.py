"""A recorded training of the score_sde code, step by step."""

import torch
from torch.nn.utils import clip_grad_norm_

from scorefield import DenoisingScoreMatching, UniformTime
from scorefield.objectives.denoising import Batch
from scorefield.training.ema import EMA
from tests.conformance import reference
from tests.conformance.linear import Linear, continuous


def close(actual, expected):
    torch.testing.assert_close(
        actual.detach(), reference.tensor(expected, torch.float64), rtol=1e-8, atol=1e-8
    )


def test_a_training_goes_as_recorded():
    """Theirs begins with a step of rate 0, and divides by the norm of the gradient + 1e-6."""
    meta, arrays = reference.meta("train_steps_vp"), reference.load("train_steps_vp")
    a, *b, d = reference.tensor(arrays["params"][0])
    net = Linear(a, torch.stack(b), d)
    field = continuous(net, "vp")
    sde = field.sde
    objective = DenoisingScoreMatching("score", UniformTime(), reduction="mean")
    optimizer = torch.optim.Adam(net.parameters())
    ema = EMA(field, meta["ema_decay"])
    x = reference.tensor(arrays["batch"])

    def loss(u, z):
        t = UniformTime().quantile(sde, reference.tensor(u), *sde.level_range)
        return objective(field, Batch(x, t, reference.tensor(z))).mean()

    for step, lr in enumerate(arrays["lr"].tolist()):
        assert abs(lr - meta["lr"] * min(step / meta["warmup"], 1)) < 1e-15
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        value = loss(arrays["u"][step], arrays["z"][step])
        value.backward()
        clip_grad_norm_(net.parameters(), meta["grad_clip"])
        optimizer.step()
        ema.update()
        close(value, arrays["loss"][step])
        close(net.flat(), arrays["params"][step + 1])
        average = ema.state_dict()
        parts = (average[f"backbone.{name}"].reshape(-1) for name in "abd")
        close(torch.cat(list(parts)), arrays["ema"][step + 1])
    assert ema.updates == int(arrays["ema_num_updates"])
    ema.copy_to(field)
    with torch.no_grad():
        close(loss(arrays["eval_u"], arrays["eval_z"]), arrays["eval_loss"])
