import subprocess
import sys

import pytest

COMPILED = """
import torch
from scorefield import DDPM, NCSNpp

x, label = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 2.0])
for network in (
    NCSNpp((3, 8, 8), 16, (1, 2), 1, attention=(4,)),
    DDPM((3, 8, 8), 32, (1, 2), 1, attention=(4,)),
):
    compiled = torch.compile(network.eval(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, label), network(x, label))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, label), network(x, label))
"""


@pytest.mark.slow
def test_the_score_networks_compile_into_one_graph():
    # In a process of its own: checks of shapes, which tests add to every function, break graphs.
    subprocess.run([sys.executable, "-c", COMPILED], check=True)
