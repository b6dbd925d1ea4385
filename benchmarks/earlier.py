"""What everyday work costs beside an earlier version of the package.

Training steps of the five models on ``toy`` and on ``digits``, and sampling, a small
NCSN++, closed forms of patches and a log-density, each by this version and by a checkout of another
one, in a process of one thread for each. They take turns, a fraction of a second each; printed are
the median of the ratios, the quartiles around it, and whether the claim of at most 1.03 holds. The
exit status is 1 if one does not. Times are those of the processor, which others on the machine
disturb less than those of the clock. Run as

    python benchmarks/earlier.py PATH --rounds 100
"""

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

CLAIM = 1.03
_ENDLESS = 1_000_000
Action = Callable[[], object]


def training(preset: str, steps: int) -> Callable[[], Action]:
    """So many steps of a training, which goes on in a thread of its own from call to call."""

    def prepare() -> Action:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        if find_spec("scorefield.experiments"):  # its former place
            load = import_module("scorefield.experiments").load
            short_training = import_module("scorefield.experiments.timing").short_training
        else:
            from scorefield.comparison.timing import short_training
            from scorefield.config.resolve import load_config as load
        go, done, taken = threading.Semaphore(0), threading.Semaphore(0), itertools.count(1)

        def pause(*_: object) -> None:
            if not next(taken) % steps:
                done.release()
                go.acquire()

        def action() -> None:
            go.release()
            done.acquire()

        register_optimizer_step_post_hook(pause)
        threading.Thread(target=short_training(load(preset), _ENDLESS).run, daemon=True).start()
        done.acquire()
        return action

    return prepare


def sampling() -> Action:
    import torch

    from scorefield import EDM, MLP, Heun, PreconditionedField

    torch.manual_seed(0)
    field = PreconditionedField(MLP(2), EDM(), sigma_data=0.5).eval()
    return lambda: Heun(18).sample(field, n=1024)


def network(step: bool) -> Callable[[], Action]:
    def prepare() -> Action:
        import torch

        from scorefield import NCSNpp

        net = NCSNpp((3, 16, 16), 32, (1, 2), 2, attention=(8,)).eval()
        x, label = torch.rand(8, 3, 16, 16), torch.rand(8) + 0.1

        def forward() -> None:
            with torch.no_grad():
                net(x, label)

        def whole() -> None:
            net.zero_grad()
            net(x, label).square().mean().backward()

        return whole if step else forward

    return prepare


def patches() -> Action:
    import torch

    from scorefield import Cosine, EquivariantLocalScore, PatchSizes

    torch.manual_seed(0)
    field = EquivariantLocalScore(torch.rand(50, 1, 16, 16), Cosine(), PatchSizes([1.0], [5]))
    x = torch.randn(4, 1, 16, 16)
    return lambda: field.score(x, 0.5)


def likelihood() -> Action:
    import torch

    from scorefield import EDM, MLP, PreconditionedField, log_prob

    torch.manual_seed(0)
    field, x = PreconditionedField(MLP(2), EDM(), sigma_data=0.5).eval(), torch.randn(64, 2)
    return lambda: log_prob(field, x, rtol=1e-3, atol=1e-3)


ACTIONS: dict[str, Callable[[], Action]] = {
    **{f"toy/m{k}": training(f"toy/m{k}", 40) for k in range(5)},
    **{f"digits/m{k}": training(f"digits/m{k}", 3) for k in range(5)},
    "sampling": sampling,
    "NCSN++ forward": network(step=False),
    "NCSN++ step": network(step=True),
    "patches": patches,
    "likelihood": likelihood,
}
REPEATED = {"NCSN++ forward": 8, "NCSN++ step": 3, "patches": 4}


def work(name: str) -> None:
    """Does an action for every line of the input, and tells what it cost."""
    import torch

    if find_spec("scorefield.memory"):
        # As a command does.
        from scorefield.memory import keep_freed

        keep_freed()
    torch.set_num_threads(1)
    action, repeats = ACTIONS[name](), REPEATED.get(name, 1)
    action()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        for _ in range(repeats):
            action()
        print(time.process_time() - start, flush=True)


class Worker:
    """The process of a version."""

    def __init__(self, checkout: Path, name: str) -> None:
        # Neither version sets the allocator of its caller.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--work", name],
            env={**kept, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("a version cannot do this: see above")
        return answer

    def cost(self) -> float:
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self.read())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(name: str, earlier: Path, rounds: int) -> list[tuple[float, float]]:
    """What it cost before and costs now, by round."""
    order = random.Random(0)
    workers = [Worker(path, name) for path in (earlier, Path(__file__).parents[1])]
    costs = []
    for worker in workers:
        worker.read()
    for _ in range(rounds):
        found = {k: workers[k].cost() for k in order.sample((0, 1), 2)}
        costs.append((found[0], found[1]))
    for worker in workers:
        worker.end()
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("earlier", type=Path, nargs="?", help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=ACTIONS, default=list(ACTIONS))
    parser.add_argument("--work", choices=ACTIONS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work)
        return 0
    if given.earlier is None:
        parser.error("a checkout of another version is needed")
    held = True
    for name in given.only:
        costs = measure(name, given.earlier, given.rounds)
        before, now = (1e3 * statistics.median(c[k] for c in costs) for k in (0, 1))
        low, ratio, high = statistics.quantiles([b / a for a, b in costs], n=4)
        least = min(b for _, b in costs) / min(a for a, _ in costs)
        held = held and ratio <= CLAIM
        print(
            f"{name:15s} {before:9.1f} -> {now:9.1f} ms  {ratio:.3f} ({low:.3f} to {high:.3f}) "
            f"fastest {least:.3f}  {'holds' if ratio <= CLAIM else 'DOES NOT HOLD'}",
            flush=True,
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
