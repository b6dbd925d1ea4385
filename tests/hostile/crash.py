"""Kills a command at an operation on the disk, or fills the disk there, and looks what is left."""

import os
import shutil
import signal
import tempfile
import traceback
from pathlib import Path

from scorefield.errors import sentence
from tests.hostile.verbs import VERBS, copy, small_world
from tests.training.disk import Operations, in_a_child


class Stage:
    """A command, the folder that it starts from, and how many operations on the disk it takes."""

    def __init__(self, name, root):
        self.name, self.verb, self.root = name, VERBS[name], root
        self.template, self.folder = root / f"{name}-template", root / f"{name}-work"
        self.template.mkdir()
        status = self.child(lambda: self.verb.prepare(self.template), "prepare")
        assert status == 0, self.said("prepare")
        copy(self.template, self.folder)
        counted = root / f"{name}-count"

        def count():
            operations = Operations(None, 0)
            operations.watch()
            status = self.verb.call(self.folder)
            counted.write_text(str(operations.count))
            return status

        assert self.child(count, "first") == 0, self.said("first")
        self.operations = int(counted.read_text())

    def attempt(self, fate, at):
        """What is wrong after a fault; nothing if all is well."""
        copy(self.template, self.folder)

        def work():
            Operations(fate, at).watch()
            return self.verb.call(self.folder)

        status = self.child(work, fate)
        wrong = []
        if fate == "kill" and status not in (0, -signal.SIGKILL):
            wrong.append(f"ended with {status}")
        if fate == "full":
            if status < 0 or status > 2:
                wrong.append(f"ended with {status}")
            if "Traceback" in self.said(fate):
                wrong.append("a traceback: " + self.said(fate)[-600:])
        try:
            if not self.verb.holds(self.folder):
                wrong.append("results are lost or mixed")
        except Exception as error:
            wrong.append(f"results cannot be read: {type(error).__name__}: {error}")
        if self.child(lambda: self.verb.call(self.folder), "next") != 0:
            wrong.append("the next call failed: " + self.said("next")[-600:])
        left = [str(p) for p in self.folder.rglob(".*-*-*-*") if p.name != ".lock"]
        if left:
            wrong.append(f"left behind: {left}")
        return [f"{self.name}, {fate} at {at} of {self.operations}: {w}" for w in wrong]

    def child(self, work, called):
        """The exit status of a call in a process of its own, whose output is kept."""

        def redirected():
            file = os.open(self.root / called, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            small_world()
            try:
                status = work()
            except Exception as error:
                if sentence(error) is None:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(2)
            # Numbers and folders are what some functions return.
            os._exit(status if isinstance(status, int) else 0)

        return in_a_child(redirected)

    def said(self, called):
        return (self.root / called).read_text(errors="replace")


def points(operations, most):
    """So many operations, evenly spread; all of them where there are fewer."""
    if operations <= most:
        return list(range(1, operations + 1))
    return sorted({1 + round(k * (operations - 1) / (most - 1)) for k in range(most)})


def crash(names, kills, levels, report=print):
    """Tests commands; returns the numbers of kills and full disks, and what went wrong."""
    done, wrong = {"kill": 0, "full": 0}, []
    for name in names:
        with tempfile.TemporaryDirectory() as root:
            stage = Stage(name, Path(root))
            for fate, most in (("kill", kills), ("full", levels)):
                places = points(stage.operations, most)
                for at in places:
                    wrong += stage.attempt(fate, at)
                    done[fate] += 1
                report(f"{name}: {len(places)} × {fate} of {stage.operations} operations, "
                       f"{len(wrong)} wrong so far")  # fmt: skip
            shutil.rmtree(root, ignore_errors=True)
            Path(root).mkdir()
    return done, wrong
