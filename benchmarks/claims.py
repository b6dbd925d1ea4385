"""What a check makes of wrong claims and of right ones, on trained networks.

Small convolutional networks are trained on handwritten digits in seven conventions, and more of
them otherwise: with classes and dropout, for few steps, on few points, with and without averaged
weights, as a potential. Then every network is claimed to be what it is not, in one point, and to
be what it is; whether the first part of a check doubts it, and in which words, is written as a
table. Run as

    python benchmarks/claims.py docs/results/claims.md
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from networks import (
    BATCH,
    DIGITS,
    OTHER,
    RECIPES,
    SHAPE,
    SHORT,
    STEPS,
    Net,
    Trained,
    Via,
    changed,
    clean,
    cosine,
    edm,
    flow,
    level,
    noise,
    trained,
)
from torch.nn.functional import avg_pool2d, interpolate

import scorefield as sf
from scorefield.fields.labels import SigmaLabel
from scorefield.health.measure import measurements
from scorefield.health.plan import Done
from scorefield.health.subject import Subject
from scorefield.health.verdicts import Verdict, verdicts

SIZE = 2
"""How often 64 points are doubled for the fit of a claim: 256 of the 360 held-out digits."""


class Claim(NamedTuple):
    """A claim: its words, the field that it makes, the data, what a doubt of it is about where it
    is wrong, and what else might be meant.
    """

    words: str
    field: sf.ScoreField
    source: sf.DataSource
    about: tuple[str, ...] = ()
    others: Mapping[str, sf.ScoreField] = {}
    seed: int = 0


def of_noise(one: Trained) -> Iterator[Claim]:
    """Of a network that predicts the noise of a thousand steps."""
    n = one.net
    for words, label in (
        ("a step more", lambda k: k + 1),
        ("a step less", lambda k: (k - 1).clamp(min=0)),
        ("from 0 to 1 for steps", lambda k: k / 999),
        ("steps times 1000", lambda k: k * 1000),
        ("steps from the end", lambda k: 999 - k),
    ):
        yield Claim(f"time: {words}", noise(Via(n, label)), DIGITS, ("time",))
    for words in ("denoiser", "v", "score"):
        field = noise(n, predicts=words)
        yield Claim(f"output: noise taken for {words}", field, DIGITS, ("output",))
    field = noise(Via(n, output=lambda y: -y))
    yield Claim("sign of the noise", field, DIGITS, ("sign", "output"))
    for betas in ("scaled_linear", "cosine", "sigmoid"):
        field = noise(n, betas=betas)
        yield Claim(f"betas: linear taken for {betas}", field, DIGITS, ("betas",))
    half = changed(DIGITS, lambda x: (x + 1) / 2)
    yield Claim("data in [0, 1] for [−1, 1], noise", noise(n), half, ("data",))


def of_v(one: Trained) -> Iterator[Claim]:
    """Of a network that predicts v at the steps of a cosine."""
    v = one.net
    field = cosine(Via(v, output=lambda y: -y))
    yield Claim("sign of v", field, DIGITS, ("sign", "output"))
    field = cosine(v, predicts="noise")
    yield Claim("output: v taken for noise", field, DIGITS, ("output",))
    yield Claim("betas: cosine taken for linear", cosine(v, betas="linear"), DIGITS, ("betas",))


def of_velocity(one: Trained) -> Iterator[Claim]:
    """Of a network that predicts the velocity."""
    f = one.net
    yield Claim("time: from the other end", flow(Via(f, lambda t: 1 - t)), DIGITS, ("time",))
    yield Claim("time: times 1000", flow(Via(f, lambda t: 1000 * t)), DIGITS, ("time",))
    field = flow(Via(f, output=lambda y: -y))
    yield Claim("sign of the velocity", field, DIGITS, ("sign", "output"))
    field = flow(f, predicts="noise", sde=sf.RectifiedFlow())
    yield Claim("output: velocity taken for noise", field, DIGITS, ("output",))


def of_data(one: Trained) -> Iterator[Claim]:
    """Of a network that predicts the data."""
    for words in ("noise", "v"):
        field = clean(one.net, predicts=words)
        yield Claim(f"output: data taken for {words}", field, DIGITS, ("output",))


def of_level(one: Trained) -> Iterator[Claim]:
    """Of a network that receives the noise level."""
    yield Claim("time: ln σ for σ", level(one.net, time="log_sigma"), DIGITS, ("time",))


def of_edm(one: Trained) -> Iterator[Claim]:
    """Of a network in EDM's convention."""
    e = one.net
    yield Claim("time: σ for ln σ", edm(e, label=SigmaLabel()), DIGITS, ("time",))
    yield Claim("sigma_data: twice", edm(e, 2 * DIGITS.std), DIGITS, ("sigma_data",))
    yield Claim("sigma_data: half", edm(e, DIGITS.std / 2), DIGITS, ("sigma_data",))
    for words, about, shape, change in (
        ("data in [0, 1] for [−1, 1], EDM", "data", SHAPE, lambda x: (x + 1) / 2),
        ("half the resolution", "size", (1, 4, 4), lambda x: avg_pool2d(x, 2)),
        ("twice the resolution", "size", (1, 16, 16),
         lambda x: interpolate(x, scale_factor=2.0, mode="bilinear")),
    ):  # fmt: skip
        yield Claim(words, edm(e, shape=shape), changed(DIGITS, change), (about,))
    yield Claim("clipping left on", sf.ClippedField(edm(e)), DIGITS, ("clipping",))


def of_coloured(one: Trained) -> Iterator[Claim]:
    """Of a network of coloured images."""
    source = changed(one.source, lambda x: x.flip(1))
    yield Claim("channels: BGR for RGB", one.field, source, ("channels",))


def of_dropout(one: Trained) -> Iterator[Claim]:
    """Of a network with dropout, in a function that hides its mode."""
    net = copy.deepcopy(one.net).train()
    field = sf.wrap(lambda u, label: net(u.float(), label.float()), shape=SHAPE,
                    predicts="noise", time="log_sigma")  # fmt: skip
    field.parametrization = sf.EDMScaling(DIGITS.std)
    yield Claim("evaluation mode forgotten", field, DIGITS, ("randomness",))


def of_raw(one: Trained) -> Iterator[Claim]:
    """Of a network whose averaged weights are known."""
    words = "averaged weights not used"
    yield Claim(words, one.field, one.source, ("weights",), one.others)


WRONG: dict[str, Callable[[Trained], Iterator[Claim]]] = {
    "noise": of_noise,
    "v": of_v,
    "velocity": of_velocity,
    "data": of_data,
    "level": of_level,
    "EDM": of_edm,
    "coloured": of_coloured,
    "classes, dropout": of_dropout,
    "not averaged, early": of_raw,
}
"""Claims that are wrong in one point, by the network that they are made of."""


def right(name: str, one: Trained) -> Iterator[Claim]:
    """Right claims of a network, with seeds of their own."""
    for seed in range(3 if "early" not in name else 1):
        yield Claim(name, one.field, one.source, seed=seed)


def closed_forms() -> Iterator[Claim]:
    """Right claims of fields in closed form."""
    ring = sf.GaussianMixture.ring(modes=4, radius=2.0, std=0.5)
    for sde in (sf.EDM(), sf.VP(), sf.RectifiedFlow()):
        source = sf.TargetSource(ring, "ring")
        yield Claim(f"closed form, {type(sde).__name__}", ring.under(sde), source)
    law = sf.Empirical(DIGITS.stored("train"))
    yield Claim("ideal score", law.under(sf.EDM()), sf.TargetSource(law, "digits"))


class Found(NamedTuple):
    """What a check made of a claim: the faults, and the loss in units of a linear denoiser's."""

    faults: list[Verdict]
    loss: float

    def doubts(self, claim: Claim) -> bool:
        """Whether the part of a wrong claim that is wrong is named, or a right one doubted."""
        return any(not claim.about or fault.about in claim.about for fault in self.faults)


def checked(claim: Claim) -> Found:
    """The first part of a check of a claim."""
    subject = Subject(claim.field, claim.source, claim.seed, None, claim.others)
    fit = next(iter(measurements(subject))).measure(SIZE)
    faults = [v for v in verdicts({"fit": Done(SIZE, 1.0, fit)}, {}) if v.grade == "fault"]
    losses, linear = (
        torch.tensor([n.estimate.value for n in fit.numbers if n.name == name])
        for name in ("loss", "trivial")
    )
    return Found(faults, float((losses / linear).mean()))


def rows(claims: Iterable[Claim]) -> Iterator[tuple[bool, str]]:
    """Whether each claim is doubted, and its row of a table."""
    for claim in claims:
        found = checked(claim)
        doubted = found.doubts(claim)
        words = found.faults[0].words if found.faults else "—"
        name = f"{claim.words}, seed {claim.seed}" if not claim.about else claim.words
        row = f"| {name} | {'yes' if doubted else 'no'} | {found.loss:.3g} | {words} |"
        print(row, flush=True)
        yield doubted, row


def page(bad: list[tuple[bool, str]], good: list[tuple[bool, str]], seconds: float) -> str:
    """The page of the results."""
    caught, doubted = (sum(found for found, _ in part) for part in (bad, good))
    head = "| claim | {} | loss | first fault |\n|---|---|---|---|"
    size = sum(p.numel() for p in Net().parameters())
    lines = [
        "# Wrong claims and right ones",
        "",
        f"Of {len(bad)} claims of trained networks that are wrong in one point, `check` finds "
        f"**{caught}**; of {len(good)} that are right, it doubts **{doubted}**.",
        "",
        "```console",
        "$ python benchmarks/claims.py docs/results/claims.md",
        "```",
        "",
        f"{len(RECIPES)} networks of {size:,} parameters, trained on the 1,437 training digits for "
        f"{STEPS} steps of {BATCH} ({SHORT} where early); {64 << SIZE} held-out digits a claim; "
        f"{seconds:.0f} s of processor time for trainings and checks. The loss is the denoising "
        "loss in units of a linear denoiser's, in the mean over ten noise levels. Measured on "
        f"{datetime.now(UTC).date().isoformat()} with scorefield {sf.__version__}, torch "
        f"{torch.__version__}.",
        "",
        "## Wrong claims",
        "",
        head.format("found"),
        *(row for _, row in bad),
        "",
        "## Right claims",
        "",
        head.format("doubted"),
        *(row for _, row in good),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    networks: dict[str, Trained] = {}
    bad: list[tuple[bool, str]] = []
    good = list(rows(closed_forms()))
    for name in RECIPES:
        networks[name] = one = trained(name)
        print(f"{name}: {time.process_time():.0f} s", flush=True)
        if name in OTHER:
            words, other = OTHER[name]
            one = one._replace(others={words: networks[other].field})
        bad += rows(WRONG[name](one)) if name in WRONG else []
        good += rows(right(name, one))
    out.write_text(page(bad, good, time.process_time()))


if __name__ == "__main__":
    main()
