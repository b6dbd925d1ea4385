"""An error about a section of data names its key."""

import numpy as np
import pytest
from PIL import Image

from scorefield.cli import main
from scorefield.config.resolve import load_config
from scorefield.errors import ConfigError
from scorefield.runs.run import Run


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder of pictures, a pack of them, and a folder of something else."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("pictures", "texts"):
        (folder / name).mkdir()
    (folder / "texts" / "a.txt").write_text("")
    for k in range(4):
        Image.fromarray(np.full((9, 9), k, np.uint8)).save(folder / "pictures" / f"{k}.png")
    out = str(folder / "pack")
    assert main(["data", "pack", str(folder / "pictures"), "--size", "8", "--out", out]) == 0
    return folder


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((), "data.dataset is missing: give path"),
        (("path=pictures",), "data.size is missing: the pictures of"),
        (("path=texts", "size=8"), "data.path: "),
        (("path=nowhere", "size=8"), "data.path: "),
        (("hub=a/b", "channels=1"), "data.size is missing: it must be given for b"),
        (("hub=a/b", "size=8"), "data.channels is missing: it must be given for b"),
        (("dataset=cats", "size=8"), "data.dataset is 'cats': give path"),
        (("path=pack", "size=9"), "data.size is (9, 9), and that of the packed images"),
        (("path=pack", "channels=1"), "data.channels is 1, and that of the packed images"),
        (("path=pack", "crop=stretch"), "data.crop is stretch, and that of the packed images"),
        (("path=pictures", "size=[8]"), "data.size is [8], it must be"),
        (("path=pictures", "size=8", "channels=0"), "data.channels is 0, it must be"),
        (("path=pictures", "size=8", "crop=top"), "data.crop is 'top', it must be"),
        (("path=pictures", "size=8", "filter=sinc"), "data.filter is 'sinc', it must be"),
        (("path=pictures", "size=8", "background=256"), "data.background is 256, it must be"),
        (("path=pictures", "size=8", "classes=0"), "data.classes is 0, it must be"),
        (("path=pictures", "size=8", "held_out_seed=-1"), "data.held_out_seed is -1, it must"),
        (("path=pictures", "size=8", "sha256=x"), "data.sha256 is 'x', it must be"),
        (("path=3", "size=8"), "data.path is 3, it must be text"),
        (("path=''", "size=8"), "data.path is '', it must be"),
        # What is found when the data are read.
        (("path=pictures", "size=8", "channels=5"), "data.path: "),
        (("path=pictures", "size=8", "classes=2", "class_names=[a]"), "data.class_names has 1 "),
        (("path=pictures", "size=8", "channels=3", f"sha256={64 * 'a'}"), "data.sha256 is aaaa"),
        (("path=nowhere", "size=8", "channels=3"), "data.path: "),
    ],
)
def test_an_error_about_data_names_its_key(places, tmp_path, overrides, told):
    here = [
        f"data.{text.replace('path=', f'path={places}/') if text[5:].isalpha() else text}"
        for text in overrides
    ]
    with pytest.raises(ConfigError) as error:
        Run.create(load_config("images/m0", here), tmp_path)
    sentence = str(error.value).removeprefix("images/m0: ")
    assert sentence.startswith(told)
    if told == "data.path: ":
        assert sentence.startswith(f"{told}{places}/")
    assert "\n" not in sentence


def test_why_images_have_no_classes_is_said(places, tmp_path):
    """Those of the held-out part are in no folders."""
    for name in ("train/a/1", "train/a/2", "train/b/3", "train/b/4", "test/5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes((places / "pictures" / "0.png").read_bytes())
    overrides = [f"data.path={tmp_path}", "data.size=8", "field.network.classes=true"]
    told = "field.network.classes needs data with classes, .* has none; the classes of the folders "
    with pytest.raises(ConfigError, match=f"{told}are not used: those of test are in none"):
        Run.create(load_config("images/m0", overrides), tmp_path / "runs")
