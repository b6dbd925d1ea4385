"""What every process that a test starts can rely on."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests import processes

SLEEP = ("sleep", "1000")


@pytest.fixture
def pipe():
    """A pipe that reads as ended once no process holds its other end."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_tests_ignore_has_its_usual_effect(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with processes.started(*SLEEP) as process:
            process.send_signal(number)
            assert process.wait(timeout=60) == -number
    finally:
        signal.signal(number, before)


def test_the_children_of_a_process_end_with_the_block(pipe):
    reader, writer = pipe
    script = "sleep 1000 & echo started; exit"
    with processes.started("bash", "-c", script, pass_fds=[writer]) as process:
        os.close(writer)
        assert process.stdout.readline() == "started\n"
        assert process.wait(timeout=60) == 0
    assert os.read(reader, 1) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent")
def test_a_process_dies_with_the_tests(pipe):
    reader, writer = pipe
    code = (
        "import sys; from tests import processes\n"
        f"with processes.started(*{SLEEP}, pass_fds=[{writer}]) as process:\n"
        "    print('started', flush=True); process.wait()"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code]
    with processes.started(*command, pass_fds=[writer], cwd=root) as process:
        os.close(writer)
        assert process.stdout.readline() == "started\n"
        process.kill()
        assert os.read(reader, 1) == b""
