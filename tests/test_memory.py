import subprocess
import sys

import pytest

CODE = """
import resource, torch
from scorefield.memory import keep_freed
if {kept}:
    keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(10 * 2**20)
before = faults()
for _ in range(20):
    torch.ones(10 * 2**20)
print(faults() - before)
"""


def faults(kept):
    code = CODE.format(kept=kept)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow  # for its memory
def test_freed_tensors_are_not_mapped_anew():
    # 40 MiB are 10,240 pages of 4 KiB, or 20 large ones.
    assert faults(kept=False) >= 20 * 20
    assert faults(kept=True) < 20
