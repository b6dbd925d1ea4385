"""The code that pages show, run as it is printed, with shorter trainings and checks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def code_of(page, section=None):
    """The Python of a page, or of one of its sections."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if section is not None:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return "\n".join(_BLOCK.findall(text))


def run(code, scope):
    """Runs the code of a page, with a shorter training and check."""
    code = re.sub(r"\bsteps=[\d_]{4,}", "steps=30", code)
    code = re.sub(r"\bbudget=[\d.]+", "budget=1.0", code)
    exec(compile(code, "page", "exec"), scope)
