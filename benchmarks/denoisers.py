"""Training and sampling steps of one network in several libraries, for ``peers.py``.

The network is that of the preset ``digits/m0``, in EDM's preconditioning; each library calls it by
an adapter of a line, and makes the same of the same noisy images.
"""

import copy
import math
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from turns import OURS, Row, Section, rows_of, version_of

import scorefield as sf
from scorefield.comparison.timing import short_training
from scorefield.config.resolve import load_config

SIGMA_MIN, SIGMA_MAX, SIGMA_DATA = 0.002, 40.0, 0.5
BATCH, SHAPE = 64, (1, 8, 8)
EULER, HEUN = 32, 18


def model() -> sf.PreconditionedField:
    """The network of all, in EDM's preconditioning."""
    torch.manual_seed(0)
    network = sf.UNet(SHAPE, channels=16, multipliers=(1, 2), blocks=1)
    sde = sf.EDM(SIGMA_MIN, SIGMA_MAX)
    return sf.PreconditionedField(network, sde, sigma_data=SIGMA_DATA)


class Levels(nn.Module):
    """The network with the noise level as its label, as k-diffusion calls it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.network(x, sigma.log() / 4)


class InUnits(nn.Module):
    """The network as azula calls it: for images in units of their standard deviation, with the
    logarithm of the noise level in those units, one for all images or one for each.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        return self.network(x, ((log_sigma + math.log(SIGMA_DATA)) / 4).expand(len(x)))


class Conditioned(nn.Module):
    """The network with what denoising-diffusion-pytorch looks for in one."""

    random_or_learned_sinusoidal_cond, self_condition = True, False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, label: Tensor, _: None = None) -> Tensor:
        return self.network(x, label)


def azula(network: nn.Module) -> Any:
    """azula's denoiser, which is written for data of unit variance."""
    levels = (SIGMA_MIN / SIGMA_DATA, SIGMA_MAX / SIGMA_DATA)
    schedule = import_module("azula.noise").VESchedule(*levels)
    return import_module("azula.denoise").KarrasDenoiser(InUnits(network), schedule)


def azula_time(sigma: Tensor) -> Tensor:
    """The time of azula's schedule at which the noise level is sigma."""
    return (sigma / SIGMA_MIN).log() / math.log(SIGMA_MAX / SIGMA_MIN)


def k_diffusion(network: nn.Module) -> Any:
    return import_module("k_diffusion.layers").Denoiser(Levels(network), sigma_data=SIGMA_DATA)


def diffusers() -> Any:
    return import_module("diffusers").EDMEulerScheduler(
        sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=SIGMA_DATA
    )


def elucidated(network: nn.Module) -> Any:
    made = import_module("denoising_diffusion_pytorch").ElucidatedDiffusion(
        Conditioned(network), image_size=SHAPE[1], channels=1, sigma_min=SIGMA_MIN,
        sigma_max=SIGMA_MAX, sigma_data=SIGMA_DATA, P_mean=-0.8, S_churn=0,
        num_sample_steps=HEUN,
    )  # fmt: skip
    module: Any = import_module("denoising_diffusion_pytorch.elucidated_diffusion")
    module.tqdm = lambda x, **_: x
    return made


def agreement() -> Iterator[tuple[str, float]]:
    """The largest difference of what each library makes of the same noisy images from ours."""
    ours = model()
    network = ours.backbone
    z = torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(1))
    for sigma in (0.05, 1.0, 20.0):
        x, level = sigma * z, torch.full((BATCH,), sigma)
        with torch.no_grad():
            wanted = ours.predict(x, ours.sde.time(level), "denoiser")
            found = {}
            if version_of("azula"):
                mean = azula(network)(x / SIGMA_DATA, azula_time(level)).mean
                found["azula"] = mean * SIGMA_DATA
            if version_of("k-diffusion"):
                found["k-diffusion"] = k_diffusion(network)(x, level)
            if version_of("diffusers"):
                s = diffusers()
                out = network(s.precondition_inputs(x, sigma), s.precondition_noise(level))
                found["diffusers"] = s.precondition_outputs(x, out, sigma)
            if version_of("denoising-diffusion-pytorch"):
                made = elucidated(network).preconditioned_network_forward(x, level)
                found["denoising-diffusion-pytorch"] = made
        for name, value in found.items():
            yield name, float((value - wanted).abs().amax())


# ----------------------------------------------------------------------------- training step


def images() -> Tensor:
    return sf.digits().stored("train")


def by_hand(
    loss: Callable[[Tensor], Tensor],
    module: nn.Module,
    average: Callable[[], object],
    fused: bool | None = None,
) -> Callable[[], object]:
    """A step as the examples of the libraries write it: rows, loss, gradient, clipping, Adam, and
    the average of the weights.
    """
    data = images()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        loss(data[torch.randint(len(data), (BATCH,))]).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        average()

    return step


def levels() -> Tensor:
    return (-0.8 + 1.2 * torch.randn(BATCH)).exp()


def averaged(module: nn.Module) -> Callable[[], object]:
    """PyTorch's own average, for libraries that have none."""
    swa = torch.optim.swa_utils
    kept = swa.AveragedModel(module, multi_avg_fn=swa.get_ema_multi_avg_fn(0.999))
    return lambda: kept.update_parameters(module)


def training() -> Section:
    def ours() -> Row:
        take = short_training(load_config("digits/m0"), 100_000).stepper.take
        number = iter(range(100_000))
        return Row(OURS, lambda: take(next(number)))

    def pytorch(words: str, fused: bool | None) -> Row:
        net = model().backbone

        def loss(x: Tensor) -> Tensor:
            sigma = levels()[:, None, None, None]
            scale = (sigma**2 + SIGMA_DATA**2).sqrt()
            noisy = x + sigma * torch.randn_like(x)
            target = (x * scale - SIGMA_DATA**2 * noisy / scale) / (sigma * SIGMA_DATA)
            out = net(noisy / scale, sigma.flatten().log() / 4)
            return (out - target).square().mean()

        return Row("torch", by_hand(loss, net, averaged(net), fused), words)

    def of_azula() -> Row:
        made = azula(model().backbone)

        def loss(x: Tensor) -> Tensor:
            return made.loss(x / SIGMA_DATA, azula_time(levels()))

        return Row("azula", by_hand(loss, made, averaged(made)), "its loss; PyTorch's average")

    def of_diffusers() -> Row:
        net, s = model().backbone, diffusers()
        average = import_module("diffusers.training_utils").EMAModel(
            net.parameters(), decay=0.999, foreach=True
        )

        def loss(x: Tensor) -> Tensor:
            at = torch.randint(len(s.timesteps), (BATCH,))
            noisy = s.add_noise(x, torch.randn_like(x), s.timesteps[at])
            sigma = s.sigmas[at][:, None, None, None]
            out = net(s.precondition_inputs(noisy, sigma), s.timesteps[at])
            weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
            return (weight * (s.precondition_outputs(noisy, out, sigma) - x).square()).mean()

        step = by_hand(loss, net, lambda: average.step(net.parameters()))
        return Row("diffusers", step, "EDM scheduler, its average; a table of 1,000 levels")

    def of_k_diffusion() -> Row:
        made = k_diffusion(model().backbone)
        kept = copy.deepcopy(made)
        utils = import_module("k_diffusion.utils")

        def average() -> None:
            with torch.no_grad():
                utils.ema_update(made, kept, 0.999)

        def loss(x: Tensor) -> Tensor:
            return made.loss(x, torch.randn_like(x), levels()).mean()

        return Row("k-diffusion", by_hand(loss, made, average), "its loss and its average")

    def of_elucidated() -> Row:
        made = elucidated(model().backbone)
        kept = import_module("ema_pytorch").EMA(made, beta=0.999, update_every=1)
        step = by_hand(lambda x: made((x + 1) / 2), made, kept.update)
        return Row("denoising-diffusion-pytorch", step, "its loss; the average of ema-pytorch")

    return Section(
        "Training step",
        f"The preset `digits/m0`: a U-Net of {sum(p.numel() for p in model().parameters()):,} "
        f"weights on {BATCH} images of 8 × 8 pixels; rows of the data, noise levels and noise, the "
        "weighted loss, its gradient, clipping, Adam, the average of the weights. Ours also has a "
        "guard against losses that are not finite, random numbers with addresses, and the fused "
        "Adam; the others have PyTorch's default.",
        "ms a step",
        rows_of(
            (OURS, ours),
            ("torch", lambda: pytorch("written by hand", None)),
            ("torch", lambda: pytorch("written by hand, fused Adam", True)),
            ("azula", of_azula),
            ("diffusers", of_diffusers),
            ("k-diffusion", of_k_diffusion),
            ("denoising-diffusion-pytorch", of_elucidated),
        ),
    )


# ----------------------------------------------------------------------------- sampling step


def euler() -> Section:
    ours, start = model(), SIGMA_MAX * torch.randn(BATCH, *SHAPE)

    def of_azula() -> Row:
        made = azula(ours.backbone).eval()
        draw = import_module("azula.sample").EulerSampler(made, steps=EULER, silent=True)
        return Row("azula", lambda: draw(start / SIGMA_DATA), "levels geometric", EULER)

    def of_diffusers() -> Row:
        s = diffusers()

        def draw() -> None:
            s.set_timesteps(EULER)
            x = start
            with torch.no_grad():
                for t in s.timesteps:
                    out = ours.backbone(s.scale_model_input(x, t), t.expand(BATCH))
                    x = s.step(out, t, x).prev_sample

        return Row("diffusers", draw, "`EDMEulerScheduler`", EULER)

    def of_k_diffusion() -> Row:
        made, sampling = k_diffusion(ours.backbone), import_module("k_diffusion.sampling")
        grid = sampling.get_sigmas_karras(EULER, SIGMA_MIN, SIGMA_MAX)
        draw = sampling.sample_euler
        return Row("k-diffusion", lambda: draw(made, start, grid, disable=True), "", EULER)

    return Section(
        f"Sampling step, Euler, {EULER} steps",
        f"{BATCH} images from one network of the section above, one call a step.",
        "ms a call",
        rows_of(
            (OURS, lambda: Row(OURS, lambda: sf.Euler(EULER).sample(ours, BATCH), "", EULER)),
            ("azula", of_azula), ("diffusers", of_diffusers), ("k-diffusion", of_k_diffusion),
        ),
    )  # fmt: skip


def heun() -> Section:
    ours, start = model(), SIGMA_MAX * torch.randn(BATCH, *SHAPE)
    calls = 2 * HEUN - 1

    def of_azula() -> Row:
        made = azula(ours.backbone).eval()
        draw = import_module("azula.sample").HeunSampler(made, steps=HEUN, silent=True)
        words = f"levels geometric, {calls + 1} calls"
        return Row("azula", lambda: draw(start / SIGMA_DATA), words, calls + 1)

    def of_k_diffusion() -> Row:
        made, sampling = k_diffusion(ours.backbone), import_module("k_diffusion.sampling")
        grid = sampling.get_sigmas_karras(HEUN, SIGMA_MIN, SIGMA_MAX)
        draw = sampling.sample_heun
        return Row("k-diffusion", lambda: draw(made, start, grid, disable=True), "", calls)

    def of_elucidated() -> Row:
        made = elucidated(ours.backbone)
        return Row("denoising-diffusion-pytorch", lambda: made.sample(BATCH), "clips", calls)

    return Section(
        f"Sampling step, Heun, {HEUN} steps",
        f"As above, with {calls} calls. diffusers has no such sampler in this preconditioning.",
        "ms a call",
        rows_of(
            (OURS, lambda: Row(OURS, lambda: sf.Heun(HEUN).sample(ours, BATCH), "", calls)),
            ("azula", of_azula), ("k-diffusion", of_k_diffusion),
            ("denoising-diffusion-pytorch", of_elucidated),
        ),
    )  # fmt: skip
