"""The code that the front pages show runs as it stands, with a shorter training."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


class Shifted(torch.nn.Module):
    """The module of a reader of the page."""

    def forward(self, x, step):
        return 0.5 * x + step[:, None, None, None] / 1e6


def code_of(page):
    text = (ROOT / page).read_text()
    return "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))


def test_the_python_of_the_page_on_models_runs(capsys):
    exec(compile(code_of("docs/models.md"), "models.md", "exec"), {})
    assert "relative_asymmetry" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", "docs/getting_started.md"])
def test_the_python_of_the_page_runs(page, capsys):
    code, shortened = re.subn(r"steps=3000", "steps=30", code_of(page))
    assert shortened == 1
    exec(compile(code, page, "exec"), {"net": Shifted()})
    printed = capsys.readouterr().out
    assert "score_error" in printed
    assert printed.count("sigma") >= 6
