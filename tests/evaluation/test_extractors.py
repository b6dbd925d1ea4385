"""Files of extractors: what is refused, and by which sentence."""

import dataclasses
import hashlib

import pytest
import torch

from scorefield.errors import UserError
from scorefield.evaluation import extractors
from scorefield.evaluation.extractors import image_bytes, open_extractor
from scorefield.networks.dinov2 import DinoV2


@pytest.fixture
def state():
    network = DinoV2(64, 1, 16, 64)
    return {
        name: torch.randn(tensor.shape, generator=torch.Generator().manual_seed(k))
        for k, (name, tensor) in enumerate(network.state_dict().items())
    }


def test_an_extractor_is_named_by_its_kind_and_the_hash_of_its_file(tmp_path, state):
    file = tmp_path / "weights.pth"
    torch.save(state, file)
    found = open_extractor(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.name == f"dinov2:{digest[:12]}"
    assert not found.of_fid
    assert "bicubic-224" in found.preprocessing
    grey = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    whole = found(grey)
    assert whole["features"].shape == (3, found.sizes["features"])
    torch.testing.assert_close(found(grey.expand(-1, 3, -1, -1))["features"], whole["features"])
    with pytest.raises(UserError, match=r"takes images in bytes .* torch.float32 of shape"):
        found(grey.float())


def test_a_missing_file_is_answered_with_what_is_published_and_where(tmp_path):
    with pytest.raises(UserError) as error:
        open_extractor(tmp_path / "none.pth")
    for words in ("none.pth", "pt_inception-2015-12-05-6726825d.pth", "github.com/mseitzer"):
        assert words in str(error.value)
    assert "dinov2_vitl14_pretrain.pth" in str(error.value)


class Planted:
    def __reduce__(self):
        return (open, ("planted", "w"))


def test_what_is_no_extractor_is_refused_and_never_executed(tmp_path, state, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    named = {k: v for k, v in state.items() if k != "norm.bias"}
    wide = {**state, "norm.bias": torch.zeros(65)}
    bad = {**state, "norm.bias": torch.full((64,), torch.nan)}
    for content, words in (
        ({"a": torch.zeros(3)}, "neither the Inception network of FID nor one of DINOv2"),
        (named, "no whole dinov2 network: it lacks norm.bias"),
        (wide, r"norm.bias has the shape \(65,\) in place of \(64,\)"),
        (bad, "norm.bias has numbers that are not finite"),
        ({**state, "head": torch.zeros(2)}, "it has head too"),
        ({"Conv2d_1a_3x3.conv.weight": torch.zeros(2)}, "is no inception network"),
        ({**state, "planted": Planted()}, "open"),
    ):
        torch.save(content, file)
        with pytest.raises(UserError, match=words) as error:
            open_extractor(file)
        assert str(file) in str(error.value)
    assert not (tmp_path / "planted").exists()
    file.write_bytes(b"none")
    with pytest.raises(UserError, match="neither a zip archive nor a pickle"):
        open_extractor(file)


def test_the_published_file_may_be_in_the_old_format(tmp_path, state, monkeypatch):
    """As that of Inception is; its hash is known, and its tensors are read without code."""
    file = tmp_path / "weights.pth"
    torch.save(state, file, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="format of torch before"):
        open_extractor(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    known = extractors.INCEPTION._replace(sha256=digest)
    monkeypatch.setattr(extractors, "INCEPTION", known)
    found = open_extractor(file)
    assert found.kind == "dinov2"
    assert not found.of_fid
    planted = tmp_path / "planted.pth"
    torch.save({"planted": Planted()}, planted, _use_new_zipfile_serialization=False)
    digest = hashlib.sha256(planted.read_bytes()).hexdigest()
    monkeypatch.setattr(extractors, "INCEPTION", known._replace(sha256=digest))
    with pytest.raises(UserError, match="is damaged"):
        open_extractor(planted)
    assert dataclasses.replace(found, sha256=digest).of_fid is False


@pytest.mark.parametrize("centered", [False, True])
def test_images_are_the_nearest_bytes(centered):
    stored = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    values = stored.float() / 255
    values = 2 * values - 1 if centered else values
    assert torch.equal(image_bytes(values, centered), stored)
    assert torch.equal(image_bytes(values + 1e-3, centered), stored)
    assert int(image_bytes(torch.full((1, 1, 1, 1), -9.0), centered)) == 0
    assert int(image_bytes(torch.full((1, 1, 1, 1), 9.0), centered)) == 255
