import pytest

from scorefield.errors import RunError
from scorefield.evaluation.sampling import choose_sampler, draw
from scorefield.runs.subject import open_model


@pytest.fixture(scope="module")
def run(trained):
    return open_model(trained)


def test_a_picture_that_is_there_is_not_replaced(run, tmp_path):
    sampler = choose_sampler(run.config, steps=2)
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
    sampler = choose_sampler(run.config, steps=2)
    draw(run, 4, sampler, out=tmp_path / "q.npz")
    with pytest.raises(RunError, match=r"q\.png exists"):
        draw(run, 4, sampler, out=tmp_path / "q.safetensors")
