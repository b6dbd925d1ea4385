"""Tasks on processes: their order, their failures, and what becomes of them after an interrupt."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest

from scorefield.comparison.processes import LocalProcesses, Task, TaskResult, demand, run
from scorefield.errors import RunError
from tests.comparison import work


class Queue:
    """An executor that makes the calls itself, one at each waiting, oldest first."""

    def __init__(self, width):
        self.width, self.widest, self.log = width, 0, []
        self._tasks = deque()

    @property
    def busy(self):
        return len(self._tasks)

    def start(self, task, arguments):
        self.log.append(task.name)
        self._tasks.append((task, arguments))
        self.widest = max(self.widest, self.busy)

    @property
    def together(self):
        return self.width

    def wait(self, seconds):
        task, arguments = self._tasks.popleft()
        try:
            return [(task, TaskResult("done", task.call(*arguments)))]
        except KeyboardInterrupt:
            return [(task, TaskResult("interrupted"))]
        except ValueError as error:
            return [(task, TaskResult("failed", reason=str(error)))]

    def stop(self):
        pass


def statuses(outcomes):
    return [outcome.status for outcome in outcomes.values()]


def test_results_go_to_the_tasks_that_need_them_in_any_order():
    two = Task("two", work.number, (2,))
    three = Task("three", work.number, (3,))
    product = Task("product", work.times, (10,), (two, three))
    square = Task("square", work.times, (1,), (product, product))
    for tasks in ([square, product, three, two], [two, three, product, square]):
        outcomes = run(tasks, Queue(2))
        assert list(outcomes) == tasks
        assert {task.name: outcomes[task].result for task in tasks} == {
            "two": 2,
            "three": 3,
            "product": 60,
            "square": 3600,
        }


def test_no_more_run_at_a_time_than_there_is_room_for():
    tasks = [Task(f"{k}", work.number, (k,)) for k in range(7)]
    executor = Queue(3)
    assert statuses(run(tasks, executor)) == ["done"] * 7
    assert executor.log == [f"{k}" for k in range(7)]
    assert executor.widest == 3


def test_a_failure_takes_only_those_that_need_it_with_it():
    bad = Task("bad", work.refuse, ("no",))
    after = Task("after", work.times, (1,), (bad,))
    last = Task("last", work.times, (1,), (after,))
    good = Task("good", work.number, (1,))
    ended = []
    outcomes = run([bad, after, last, good], Queue(1), lambda task, _: ended.append(task.name))
    assert statuses(outcomes) == ["failed", "not started", "not started", "done"]
    assert ended == ["bad", "good"]
    with pytest.raises(RunError, match=r"^bad: no$"):
        demand(outcomes)


def test_after_an_interrupt_nothing_is_started():
    tasks = [Task("stop", work.interrupt), *(Task(f"{k}", work.number, (k,)) for k in range(3))]
    outcomes = run(tasks, Queue(2))
    assert statuses(outcomes) == ["interrupted", "done", "not started", "not started"]
    with pytest.raises(KeyboardInterrupt):
        demand(outcomes)


def test_processes_are_kept_and_their_results_come_back():
    tasks = [Task(f"{k}", work.process_of, (k,)) for k in range(6)]
    with LocalProcesses(2, threads=1) as processes:
        outcomes = run(tasks, processes)
    found = [outcome.result for outcome in outcomes.values()]
    assert [k for k, _, _ in found] == list(range(6))
    assert 1 <= len({process for _, process, _ in found}) <= 2
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for _, _, threads in found} == {os.environ.get("OMP_NUM_THREADS", "1")}


def test_what_goes_wrong_in_a_process_is_one_sentence_and_the_others_go_on():
    tasks = [
        Task("mistake", work.refuse, ("a clear sentence",)),
        Task("fault", work.fault),
        Task("killed", work.end, (signal.SIGKILL,)),
        Task("gone", work.leave, (3,)),
        Task("good", work.number, (1,)),
    ]
    lines = []
    with LocalProcesses(2, 1, lambda task, line: lines.append((task.name, line))) as processes:
        outcomes = list(run(tasks, processes).values())
    assert [outcome.status for outcome in outcomes] == ["failed"] * 4 + ["done"]
    assert [outcome.reason for outcome in outcomes[:4]] == [
        "a clear sentence",
        "ZeroDivisionError: division by zero",
        "its process was ended by the signal SIGKILL",
        "its process ended with the status 3",
    ]
    # A fault of the program shows where it is, a mistake does not.
    assert {name for name, _ in lines} == {"fault"}
    assert any(line.startswith("Traceback") for _, line in lines)


def test_lines_are_labelled_by_their_task():
    tasks = [Task(f"{k}", work.speak, (k,)) for k in range(4)]
    lines = []
    with LocalProcesses(2, 1, lambda task, line: lines.append((task.name, line))) as processes:
        run(tasks, processes)
    for k in range(4):
        assert [line for name, line in lines if name == f"{k}"] == [f"{k}: one", f"{k}: two", "end"]


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(tmp_path, number):
    """Killed alone, it cannot say anything to them; they are cleaning up all the same."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.comparison.work", str(tmp_path)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = []
    try:
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 2)
        children = [int(p.name.partition("-")[2]) for p in tmp_path.glob("started-*")]
        parent.send_signal(number)
        parent.wait(timeout=60)
        wait_until(lambda: not any(map(alive, children)), 60)
        assert len(list(tmp_path.glob("cleaned-*"))) == 2
    finally:
        for process in (parent.pid, *children):
            if alive(process):
                os.kill(process, signal.SIGKILL)
        parent.wait()
