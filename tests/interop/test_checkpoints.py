"""What reading a checkpoint does with files that are not what they should be."""

import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from scorefield import VE, VP, DiscreteVP, SubVP
from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.build import build, state_of
from scorefield.interop.score_sde.checkpoints import read_checkpoint
from scorefield.interop.score_sde.configurations import configuration, configuration_names
from scorefield.interop.score_sde.load import load, process
from scorefield.interop.score_sde.refinenet_names import build_refinenet
from scorefield.interop.score_sde.structure import infer

CONFIG = {
    "training": {"sde": "vesde", "continuous": False},
    "data": {"image_size": 8, "num_channels": 1, "centered": False},
    "model": {
        "name": "ncsnv2_64",
        "nf": 4,
        "num_scales": 5,
        "sigma_min": 0.01,
        "sigma_max": 1,
        "nonlinearity": "elu",
        "normalization": "InstanceNorm++",
    },
}


class Evil:
    """A pickle of this makes a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def content(**changes):
    """A small checkpoint in the original's layout."""
    network, pairs = build_refinenet(CONFIG)
    ours = network.state_dict()
    model = {f"module.{theirs}": ours[name].clone() for theirs, name in pairs}
    sigmas = np.exp(np.linspace(0, np.log(0.01), 5))
    shadow = [tensor + 1 for tensor in model.values()]
    group = {"lr": np.float64(2e-4), "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
    return {
        "optimizer": {"state": {}, "param_groups": [{**group, "params": [0]}]},
        "model": {"module.sigmas": torch.tensor(sigmas), **model},
        "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": shadow},
        "step": 7,
    } | changes


@pytest.fixture
def path(tmp_path):
    torch.save(content(), tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


def test_reads_a_checkpoint(path):
    found = read_checkpoint(path)
    assert (found.layout, found.step, found.updates) == ("score_sde_pytorch", 7, 7)
    assert found.optimizer.lr == 2e-4
    for name, tensor in found.averaged.items():
        shift = 0 if name == "sigmas" else 1
        assert torch.equal(tensor, found.state[name] + shift)


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True)])
def test_numbers_of_numpy_are_plain_numbers(number, tmp_path):
    data = content()
    data["optimizer"]["param_groups"][0]["eps"] = number if number.dtype != bool else 1e-8
    data["optimizer"]["flag"] = number
    torch.save(data, tmp_path / "c.pth")
    found = read_checkpoint(tmp_path / "c.pth").optimizer.eps
    assert found == (number if number.dtype != bool else 1e-8)


def test_numbers_under_the_older_name_of_numpy_are_read(path, tmp_path):
    older = tmp_path / "older.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(older, "w") as target:
        for item in source.namelist():
            old = source.read(item)
            new = old.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            assert (new != old) == item.endswith("data.pkl")
            target.writestr(item, new)
    assert read_checkpoint(older).optimizer.lr == 2e-4


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("saved", [True, False])
def test_code_in_a_file_is_named_and_not_run(saved, protocol, tmp_path):
    made, file = tmp_path / "made", tmp_path / "evil.pth"
    if saved:
        torch.save(content(step=Evil(made)), file, pickle_protocol=max(protocol, 1))
    else:
        file.write_bytes(pickle.dumps(Evil(made), protocol))
    with pytest.raises(InteropError, match=r"asks for (posix|nt)\.mkdir") as caught:
        read_checkpoint(file)
    assert "\n" not in str(caught.value)
    assert not made.exists()


def test_arrays_and_objects_are_refused_by_name(tmp_path):
    torch.save(content(step=np.zeros(3)), tmp_path / "a.pth")
    with pytest.raises(InteropError, match=r"asks for numpy\.\w+\.multiarray\._reconstruct"):
        read_checkpoint(tmp_path / "a.pth")
    torch.save(content(step=torch.nn.Linear(1, 1)), tmp_path / "b.pth")
    with pytest.raises(InteropError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "b.pth")


def _tar(file):
    with tarfile.open(file, "w") as archive:
        archive.add(__file__, "name")


def _legacy(file):
    data = content()
    data["optimizer"]["param_groups"][0]["lr"] = 1e-4
    torch.save(data, file, _use_new_zipfile_serialization=False)


def _zip(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")


def _flax(file):
    file.write_bytes(b"\x87\xa4step\xd2" + struct.pack(">i", 7) + b"\xaaparams_ema\x80")


FILES = {
    "empty": (lambda f: f.write_bytes(b""), "is empty"),
    "folder": (lambda f: f.mkdir(), "is a folder"),
    "missing": (lambda f: None, "cannot be read: no such file"),
    "noise": (lambda f: f.write_bytes(b"\x13\x37" * 500), "is not a checkpoint"),
    "text": (lambda f: f.write_text("epoch,loss\n"), "is not a checkpoint"),
    "page": (lambda f: f.write_text("<!DOCTYPE html><p>"), "is a web page"),
    "pointer": (
        lambda f: f.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer",
    ),
    "tar": (_tar, "is a tar archive"),
    "legacy": (_legacy, "torch before 1.6"),
    "pickle": (lambda f: f.write_bytes(pickle.dumps({"a": 1})), "torch.save did not write"),
    "zip": (_zip, "not one that torch.save wrote"),
    "flax": (_flax, "flax checkpoint"),
}


@pytest.mark.parametrize("kind", FILES)
def test_other_files_are_called_what_they_are(kind, tmp_path):
    write, words = FILES[kind]
    write(tmp_path / "file.pth")
    with pytest.raises(InteropError, match=words) as caught:
        read_checkpoint(tmp_path / "file.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InteropError, match="damaged"):
        read_checkpoint(path)


def test_every_flipped_byte_is_noticed_or_harmless(path):
    whole, before = path.read_bytes(), read_checkpoint(path)
    for place in np.random.default_rng(0).integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        try:
            after = read_checkpoint(path)
        except InteropError:
            continue
        assert all(torch.equal(after.state[k], v) for k, v in before.state.items())


def test_a_pickle_without_sense_is_refused_without_advice_to_run_it(path, tmp_path):
    # It asks for an object of the class 1.
    broken = tmp_path / "broken.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(broken, "w") as target:
        for item in source.namelist():
            old = source.read(item)
            new = b"\x80\x02K\x01K\x02\x81." if item.endswith("data.pkl") else old
            target.writestr(item, new)
    with pytest.raises(InteropError, match="its pickle cannot be interpreted") as caught:
        read_checkpoint(broken)
    assert "weights_only" not in str(caught.value)


def test_a_file_that_claims_to_be_enormous_is_refused(tmp_path):
    small, big = tmp_path / "small.pth", tmp_path / "big.pth"
    torch.save({"model": torch.zeros(7)}, small)
    with zipfile.ZipFile(small) as source, zipfile.ZipFile(big, "w") as target:
        for item in source.namelist():
            # The number of elements and the shape, as one-byte integers.
            target.writestr(item, source.read(item).replace(b"K\x07", b"J\xff\xff\xff\x7f"))
    with pytest.raises(InteropError, match="damaged"):
        read_checkpoint(big)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {}}, "model is not a dictionary of named tensors"),
        ({"model": [1]}, "no dictionary model"),
        ({"ema": None}, "no dictionary ema"),
        ({"ema": {"decay": 0.9}}, "no list of tensors shadow_params"),
        ({"ema": {"decay": 0.9, "shadow_params": []}}, "average is over 0 tensors"),
        ({"step": "seven"}, "step is 'seven', not a number"),
        ({"step": float("nan")}, "step is nan, which is not finite"),
        ({"optimizer": {}}, "no param_groups"),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(changes, words, tmp_path):
    torch.save(content(**changes), tmp_path / "c.pth")
    with pytest.raises(InteropError, match=words):
        read_checkpoint(tmp_path / "c.pth")


def test_averages_of_other_shapes_are_refused_by_name(tmp_path):
    data = content()
    data["ema"]["shadow_params"][1] = torch.zeros(9)
    torch.save(data, tmp_path / "c.pth")
    with pytest.raises(InteropError, match=r"average of begin_conv.bias has the shape \(9,\)"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_field_needs_what_the_weights_do_not_show(path):
    with pytest.raises(InteropError, match=r"do not show data\.image_size, data\.centered"):
        load(path)
    with pytest.raises(InteropError, match=r"model\.nf is 128 in the configuration, 4 in the weig"):
        load(path, "ve/ncsnv2/cifar10")
    with pytest.raises(InteropError, match="'ve/ncsnv2/cifar11'; the nearest is 've/ncsnv2/cifar1"):
        load(path, "ve/ncsnv2/cifar11")


def test_a_field_of_levels_calls_the_network_with_places(path):
    field = load(path, CONFIG, "raw")
    x = torch.rand(3, 1, 8, 8)
    score = field.score(x, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(score, field.backbone(x, torch.tensor([4, 2, 0])))


def test_configurations_say_which_process_they_are_of():
    kinds = {"ve": VE, "vp": VP, "subvp": SubVP}
    assert len(configuration_names()) == 39
    for name in configuration_names():
        config = configuration(name)
        sde, _ = process(config)
        family = name.partition("/")[0]
        discrete = family == "vp" and not config["training"]["continuous"]
        assert type(sde) is (DiscreteVP if discrete else kinds[family])


@pytest.mark.parametrize("name", configuration_names())
def test_known_configurations_are_recognised_by_their_weights(name):
    config = configuration(name)
    with torch.device("meta"):
        network = build(config)
    found = infer(state_of(network, config))
    assert name in found.known()
    assert not list(found.conflicts(config))
