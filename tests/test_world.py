"""Who has which rows, sums, rows in order, and what has to be the same everywhere."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from scorefield.errors import Interrupted, UserError
from scorefield.world import ALONE, World, joined
from tests.worlds import together


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1024])
@pytest.mark.parametrize("n", [1, 2, 10, 1000, 10**9])
def test_rows_are_shared_out_once_each_in_order_and_evenly(size, n):
    shares = [World(rank, size).rows(n) for rank in range(size)]
    assert shares[0].start == 0
    assert shares[-1].stop == n
    assert all(a.stop == b.start for a, b in pairwise(shares))
    lengths = {share.stop - share.start for share in shares}
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sums_and_flags(size):
    def work(world):
        one, two = world.total([torch.tensor(float(world.rank)), torch.tensor(2)])
        return float(one), int(two), two.dtype, world.any(world.rank == size - 1), world.any(False)

    expected = (float(sum(range(size))), 2 * size, torch.int64, True, False)
    assert together(size, work) == [expected] * size


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_rows_come_back_in_order(n):
    whole = torch.arange(n * 3).view(n, 3)
    for found in together(3, lambda world: world.gather(whole[world.rows(n)], n)):
        assert torch.equal(found, whole)
    for found in together(3, lambda world: world.map(n, lambda index: whole[index])):
        assert torch.equal(found, whole)


def test_the_first_process_tells_and_the_first_words_are_heard():
    def work(world):
        given = world.broadcast(lambda: {"x": torch.arange(3), "rank": world.rank})
        return (
            given["x"].tolist(),
            given["rank"],
            world.first_words("" if world.first else f"{world.rank}"),
        )

    assert together(3, work) == [([0, 1, 2], 0, "1")] * 3


def test_what_differs_is_named_in_all_processes():
    def compared(**differing):
        def work(world):
            facts = {"code": "a", "data": "b"}
            with pytest.raises(UserError) as error:
                world.agree(facts | (differing if world.rank == 1 else {}))
            return str(error.value)

        return set(together(3, work))

    (said,) = compared(data="other")
    assert said.startswith("process 1 differs from process 0 in data: ")
    (said,) = compared(more="x")
    assert said.startswith("process 1 differs from process 0 in names")
    together(3, lambda world: world.agree({"code": "a", "data": "b"}))


def test_alone_nothing_is_from_store():
    x = torch.arange(3)
    assert ALONE.first
    assert ALONE.gather(x, 3) is x
    assert ALONE.total([x]) == [x]
    assert ALONE.broadcast(lambda: x) is x
    assert not ALONE.any(False)
    ALONE.agree({"a": 1})


@pytest.mark.parametrize("size", [1, 2])
def test_a_stop_in_a_folder_of_any_name_is_no_lost_process(size):
    with pytest.raises(Interrupted, match="runs/gloo/step_3"), World(size=size).heard():
        raise Interrupted(3, Path("runs/gloo/step_3"))


def test_the_environment_of_torchrun_is_the_contract(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with joined() as world:
        assert world is ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="the environment has WORLD_SIZE, and lacks LOCAL_RANK"):
        joined().__enter__()
