"""Short texts and tables of objects, as notebooks show them."""

import re
from html import unescape

import pytest
import torch

import scorefield as sf
from scorefield.html import table

RING = sf.GaussianMixture.ring(sde=sf.EDM())


def network():
    return sf.PreconditionedField(sf.MLP(2, hidden=8, depth=1), sf.EDM(), 0.5, shape=(2,))


def objects():
    field = network()
    count = sum(p.numel() for p in field.parameters())
    fit = sf.fit(network(), RING, steps=4, batch_size=8, log_every=2, quiet=True)
    loss = fit.history[-1]["loss"]
    found = sf.log_prob(RING, RING.sample(6, seed=0))
    profile = sf.relative_asymmetry(RING, RING, sf.Protocol([0.5, 2.0], n=8))
    high = sf.PreconditionedField(sf.MLP(2), sf.EDM(), parametrization=sf.NoisePrediction())
    return {
        "field": (field, ["MLP", "EDM(sigma_min=0.002", "EDMScaling(sigma_data=0.5", "shape (2,)",
                          f"{count:,} parameters"]),
        "hybrid": (sf.HybridField(field, high, 0.5), ["NoisePrediction", "0.5", "EDMScaling"]),
        "exact": (RING, ["GaussianMixture", "EDM(", "shape (2,)"]),
        "fit": (fit, ["4", f"{loss:.4g}"]),
        "log-densities": (found, ["6", f"{float(found.value[0]):.4g}", "…"]),
        "profile": (profile, ["relative_asymmetry", "0.5", "2"]),
    }  # fmt: skip


def test_objects_say_what_they_are_in_few_words():
    for name, (thing, words) in objects().items():
        page = re.sub("<[^>]*>", " ", thing._repr_html_())
        for text in (repr(thing), page):
            assert all(word in text for word in words), (name, text)
            assert len(text) < 900, name


def test_a_field_without_a_shape_has_a_text_too():
    field = sf.PreconditionedField(torch.nn.Identity(), sf.VP(), 1.0)
    assert "shape unknown" in repr(field)
    assert "unknown" in field._repr_html_()


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a & b < c"])
def test_nothing_of_a_text_is_markup(text):
    made = table(text, [(text, text)], (text, text))
    assert text not in made
    assert unescape(re.sub("<[^>]*>", "", made)) == 5 * text
