"""Small models of EDM, EDM2 and guided-diffusion, and what the published code makes of them.

The code is read from the checkouts in the environment variables ``SCOREFIELD_EDM``,
``SCOREFIELD_EDM2`` and ``SCOREFIELD_GUIDED_DIFFUSION``. It computes in single precision by
constants of its source, which are replaced by double precision here; nothing else is changed.

``python -m tests.interop.originals`` writes the numbers of ``tests/reference/state_dicts``.
"""

import json
import os
import sys
import types
import zlib
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import torch

SIGMAS = (0.01, 0.3, 2.0, 40.0)
ROOT = Path(__file__).parents[1] / "reference" / "state_dicts"

_IMAGES = {"img_resolution": 8, "img_channels": 3}
_SONG = {
    **_IMAGES,
    "model_type": "SongUNet",
    "model_channels": 8,
    "channel_mult": [1, 2],
    "channel_mult_emb": 2,
    "num_blocks": 1,
    "attn_resolutions": [4],
}
_ADM = {
    **_IMAGES,
    "model_type": "DhariwalUNet",
    "model_channels": 32,
    "channel_mult": [1, 4],
    "channel_mult_emb": 1,
    "num_blocks": 1,
    "attn_resolutions": [4],
}
_NCSNPP = {
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": [1, 3, 3, 1],
}
_EDM2 = {
    "class": "Precond",
    "img_resolution": 8,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "channels_per_head": 4,
}
_GUIDED = {
    "class": "UNetModel",
    "image_size": 8,
    "num_channels": 32,
    "channel_mult": "1,2",
    "num_res_blocks": 1,
    "attention_resolutions": "4",
}

CASES = {
    "edm_ddpmpp": {
        "class": "EDMPrecond",
        **_SONG,
        "label_dim": 3,
        "label_dropout": 0.1,
        "augment_dim": 9,
        "use_fp16": True,
    },
    "edm_ncsnpp": {"class": "EDMPrecond", **_SONG, **_NCSNPP, "sigma_data": 0.7},
    "edm_adm": {"class": "EDMPrecond", **_ADM, "augment_dim": 5},
    "vp_ddpmpp": {"class": "VPPrecond", **_SONG},
    "vp_skip": {
        "class": "VPPrecond",
        **_SONG,
        "channel_mult": [1, 2, 1],
        "encoder_type": "skip",
        "decoder_type": "skip",
        "resample_filter": [1, 3, 3, 1],
        "beta_d": 29.9,
        "M": 500,
    },
    "ve_ncsnpp": {"class": "VEPrecond", **_SONG, **_NCSNPP, "label_dim": 4},
    "ve_residual": {
        "class": "VEPrecond",
        **_SONG,
        "encoder_type": "residual",
        "decoder_type": "skip",
        "channel_mult": [2, 1, 1],
        "num_blocks": 2,
        "attn_resolutions": [],
    },
    "iddpm_adm": {"class": "iDDPMPrecond", **_ADM, "label_dim": 3, "label_dropout": 0.2},
    "iddpm_song": {"class": "iDDPMPrecond", **_SONG, "M": 400, "C_1": 0.01, "C_2": 0.02},
    "edm2_latents": {**_EDM2, "img_channels": 4, "label_dim": 3},
    "edm2_images": {
        **_EDM2,
        "img_channels": 3,
        "label_dim": 0,
        "channel_mult": [1, 2, 1],
        "channel_mult_noise": 2,
        "channel_mult_emb": 3,
        "resample_filter": [1, 3, 3, 1],
        "concat_balance": 0.3,
        "res_balance": 0.4,
        "attn_balance": 0.2,
        "clip_act": 1.5,
        "sigma_data": 1.0,
        "logvar_channels": 16,
    },
    "guided_linear": {
        **_GUIDED,
        "class_cond": True,
        "learn_sigma": True,
        "resblock_updown": True,
        "num_head_channels": 32,
        "timestep_respacing": "250",
    },
    "guided_cosine": {
        **_GUIDED,
        "use_scale_shift_norm": False,
        "noise_schedule": "cosine",
        "diffusion_steps": 4000,
        "rescale_timesteps": True,
        "num_heads": 2,
        "num_heads_upsample": 4,
        "use_new_attention_order": True,
    },
    "guided_data": {
        **_GUIDED,
        "channel_mult": "1,2,2",
        "predict_xstart": True,
        "num_heads": 1,
        "resblock_updown": True,
        "attention_resolutions": "2,8",
        "use_new_attention_order": True,
        "num_head_channels": 16,
    },
}
"""Configurations by name: every preconditioner, and every option of the networks."""

LABELS = {"edm_ddpmpp": (0, 2, 3, 1), "ve_ncsnpp": (3, 0, 1, 1), "iddpm_adm": (3, 1, 0, 2)}
LABELS |= {"edm2_latents": (0, 2, 1, 2), "guided_linear": (7, 999, 0, 123)}
"""The classes of the points; the number of classes is none."""


def uniform(shape, address):
    """Numbers in [-1, 1) that are a function of their address alone, on every machine."""
    start = np.uint64(zlib.crc32(address.encode()) << 32)
    mixed = np.arange(prod(shape), dtype=np.uint64) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    numbers = (mixed >> np.uint64(11)).astype(np.float64) / 2**52 - 1
    return torch.from_numpy(numbers.reshape(shape))


def weight(case, name, shape):
    """A weight of a model: no bias, gain or last layer is zero."""
    numbers = uniform(shape, f"{case} {name}")
    if name.endswith("resample_filter"):
        taps = torch.tensor(CASES[case]["resample_filter"] if len(numbers[0, 0]) > 2 else [1, 1])
        taps = taps.double() / taps.sum()
        return torch.outer(taps, taps)[None, None]
    if name.endswith(("freqs", "phases")):
        return 4 * numbers
    if len(shape) == 0:
        return 0.7 + 0.2 * numbers
    if len(shape) == 1:
        return 0.3 * numbers + (1 if name.endswith("weight") else 0)
    return numbers * (3 / prod(shape[1:])) ** 0.5


def points(case):
    """Four points without noise, and noise."""
    shape = (4, CASES[case].get("img_channels", 3), 8, 8)
    return uniform(shape, f"{case} data"), 1.7 * uniform(shape, f"{case} noise")


def classes(case):
    return torch.tensor(LABELS[case]) if case in LABELS else None


def family(case):
    return {"edm2": "edm2", "guided": "guided_diffusion"}.get(case.split("_")[0], "edm")


def checkout(case):
    """The folder of the published code of a case; ``None`` where there is none."""
    return os.environ.get(f"SCOREFIELD_{family(case).upper()}")


def shapes(case):
    """The shapes of the state dict in the published code."""
    return {name: tuple(shape) for name, shape in _index()[case].items()}


@cache
def _index():
    return json.loads((ROOT / "index.json").read_text())


@contextmanager
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _source(folder, file):
    text = (Path(folder) / file).read_text()
    for single, double in (
        ("torch.float32", "torch.float64"),
        ("np.float32", "np.float64"),
        ("th.float32", "th.float64"),
        (".float()", ".double()"),
    ):
        text = text.replace(single, double)
    return text


@cache
def _karras(folder, file):
    """The names in a file of EDM or EDM2, whose helpers are replaced by plain functions."""
    text = "".join(
        line
        for line in _source(folder, file).splitlines(keepends=True)
        if not line.startswith("from torch_utils")
    )
    names = {
        "persistence": types.SimpleNamespace(persistent_class=lambda kind: kind),
        "misc": types.SimpleNamespace(
            const_like=lambda like, value: torch.as_tensor(value).to(like)
        ),
    }
    exec(compile(text, file, "exec"), names)
    return names


@cache
def _guided(folder):
    """``script_util`` of guided-diffusion, without what it imports for half precision."""
    package = types.ModuleType("originals_guided")
    package.__path__ = []
    sys.modules[package.__name__] = package
    half = types.ModuleType(f"{package.__name__}.fp16_util")
    half.convert_module_to_f16 = half.convert_module_to_f32 = None
    sys.modules[half.__name__] = half
    for part in ("nn", "unet", "losses", "gaussian_diffusion", "respace", "script_util"):
        module = types.ModuleType(f"{package.__name__}.{part}")
        module.__package__ = package.__name__
        sys.modules[module.__name__] = module
        setattr(package, part, module)
        exec(compile(_source(folder, f"guided_diffusion/{part}.py"), part, "exec"), vars(module))
    return package.script_util


def original(case):
    """A model of the published code, and its denoiser: of points with noise of the returned levels,
    which are the nearest that it has.
    """
    config = dict(CASES[case])
    kind = config.pop("class")
    with _double():
        if family(case) == "guided_diffusion":
            net, denoise = _original_guided(case, config)
        else:
            file = "networks_edm2" if family(case) == "edm2" else "networks"
            net = _karras(checkout(case), f"training/{file}.py")[kind](**config)
            denoise = _denoiser(net, case)
        state = net.state_dict()
        for name, value in state.items():
            if name != "u":
                value.copy_(weight(case, name, tuple(value.shape)))
        net.eval()
    return net, denoise


def _denoiser(net, case):
    def denoise():
        sigma = torch.tensor(SIGMAS, dtype=torch.float64)
        if hasattr(net, "u"):
            sigma = net.round_sigma(sigma)
        labels = classes(case)
        if labels is not None:
            # Of no class, all are zero.
            labels = torch.nn.functional.one_hot(labels, net.label_dim + 1)[:, :-1]
        data, noise = points(case)
        return sigma, net(data + sigma.view(-1, 1, 1, 1) * noise, sigma, labels)

    return denoise


def _original_guided(case, config):
    script = _guided(checkout(case))
    net, diffusion = script.create_model_and_diffusion(
        **{**script.model_and_diffusion_defaults(), **config}
    )

    def denoise():
        levels = np.sqrt(1 / diffusion.alphas_cumprod - 1)
        step = torch.tensor([int(np.abs(np.log(levels / s)).argmin()) for s in SIGMAS])
        sigma = torch.from_numpy(levels)[step]
        data, noise = points(case)
        alpha = torch.from_numpy(diffusion.alphas_cumprod)[step].sqrt().view(-1, 1, 1, 1)
        x = alpha * (data + sigma.view(-1, 1, 1, 1) * noise)
        labels = {} if classes(case) is None else {"y": classes(case)}
        with torch.no_grad():
            found = diffusion.p_mean_variance(
                net, x, step, clip_denoised=False, model_kwargs=labels
            )
        return sigma, found["pred_xstart"]

    return net, denoise


def computed(case):
    """The shapes of the state dict, noise levels and denoised points, by the published code."""
    net, denoise = original(case)
    with _double(), torch.no_grad():
        sigma, found = denoise()
    return {k: list(v.shape) for k, v in net.state_dict().items()}, sigma, found


def main():
    index, arrays = {}, {}
    for case in CASES:
        index[case], sigma, found = computed(case)
        arrays |= {f"{case}/sigma": sigma.numpy(), f"{case}/denoised": found.numpy()}
    ROOT.mkdir(exist_ok=True)
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in index.items())
    (ROOT / "index.json").write_text(f"{{\n{lines}\n}}\n")
    np.savez_compressed(ROOT / "denoisers.npz", **arrays)


if __name__ == "__main__":
    main()
