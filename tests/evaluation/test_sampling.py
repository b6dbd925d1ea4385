import pytest

from scorefield.cli import main
from scorefield.errors import RunError
from scorefield.evaluation.sampling import choose_sampler, draw
from scorefield.runs.run import Run

SMALL = """\
extends: toy/m0
field: {network: {hidden: 8, depth: 1, embedding: 4}}
train: {steps: 2, batch_size: 16}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampling")
    (folder / "small.yaml").write_text(SMALL)
    assert main(["train", str(folder / "small.yaml"), "--root", str(folder)]) == 0
    return Run.open(folder / "toy" / "small" / "seed0")


def test_a_picture_that_is_there_is_not_replaced(run, tmp_path):
    sampler = choose_sampler(run, steps=2)
    picture = tmp_path / "q.png"
    picture.write_bytes(b"a photograph")
    for name in ("q.npz", "q.safetensors"):
        with pytest.raises(RunError, match=r"q\.png exists"):
            draw(run, 4, sampler, out=tmp_path / name)
    assert picture.read_bytes() == b"a photograph"
    assert list(tmp_path.iterdir()) == [picture]
    draw(run, 4, sampler, out=tmp_path / "q.npz", overwrite=True)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_two_formats_do_not_share_a_picture(run, tmp_path):
    sampler = choose_sampler(run, steps=2)
    draw(run, 4, sampler, out=tmp_path / "q.npz")
    with pytest.raises(RunError, match=r"q\.png exists"):
        draw(run, 4, sampler, out=tmp_path / "q.safetensors")
