"""The code that the front pages show runs as it stands, with a shorter training."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/getting_started.md"])
def test_the_python_of_the_page_runs(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert len(blocks) == 1
    code, shortened = re.subn(r"steps=3000", "steps=30", blocks[0])
    assert shortened == 1
    exec(compile(code, page, "exec"), {})
    printed = capsys.readouterr().out
    assert "score_error" in printed
    assert printed.count("sigma") >= 6
