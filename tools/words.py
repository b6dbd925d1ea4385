"""Words that do not come back in public text, each with what is written instead.

Run as ``python tools/words.py``: it reads docstrings, messages and names under ``src``, the README,
the documentation and the notebooks, prints one line a finding, and exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TEXT = {
    r"\b(?:is|are|was|were|be|been|being) told\b|\btold (?:by|of|apart|what|which)\b|\btells\b": (
        "shown, reported, takes, receives, prints; 'conditioned on' for labels"
    ),
    r"\bsaid (?:as|in)\b|\bways of saying\b|\bsays? (?:of|what|which|how)\b": (
        "expressed as, states"
    ),
    r"\basked (?:of|at|for|questions?|a question)\b|\basks? (?:a|the|of|each|every|whether)\b": (
        "evaluated, computed; 'query' only for attention"
    ),
    r"\bcan(?:not)? be told from\b": "distinguishable from",
    r"\bthe law of\b(?! succession)|\blaws of\b|\b(?:exact|true|wrapped normal|normal) laws?\b": (
        "the distribution of"
    ),
    r"\bpric(?:es?|ed|ing)\b": "computes log-densities, likelihood",
    r"\bjudg(?:e|es|ed|ing)\b": "evaluate, evaluation protocol",
    r"\bat hand\b|\blies under\b": "is, is in, is part of",
    r"\btakes? up\b|\bgo(?:es)? on where\b": "resumes",
    r"\bheld against\b": "compared with",
    r"\bto the bit\b": "bit-exact",
    r"\bspecimens?\b|\bat the foot\b|\bcame out\b|\bcomes out\b": (
        "the thing it is; summary, results"
    ),
    r"\banalyses that are no runs\b|\bquestions? (?:to|about) a field\b": (
        "analyses of fields and data sets; a measured property of a field"
    ),
}
"""Patterns in running text, without regard to case."""

NAMES = (
    r"(?:^|_)(?:told|said|say|spoken|asked|specimens?|judge[sd]?|pric(?:e|ing)|course|bench)(?:_|$)"
)
"""Names of functions, classes and arguments."""

ADDRESSES = {"specimen/means", "specimen/"}
"""Strings that are no text: addresses of random numbers, which would be others under new names."""


def text_of(path: Path) -> Iterator[tuple[int, str]]:
    """Public text of a file, by line: whole files, or the strings of a module."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        for cell in json.loads(content)["cells"]:
            yield 1, "".join(cell["source"])
    elif path.suffix == ".py":
        for node in ast.walk(ast.parse(content)):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if node.value not in ADDRESSES:
                yield node.lineno, node.value
    else:
        yield 1, content


def names_of(path: Path) -> Iterator[tuple[int, str]]:
    """The names that a module defines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def findings(path: Path) -> Iterator[str]:
    """One line for each word in a file that has a better one."""
    where = path.relative_to(ROOT)
    for first, text in text_of(path):
        for pattern, instead in TEXT.items():
            for match in re.finditer(pattern, text, re.IGNORECASE):
                line = first + text.count("\n", 0, match.start())
                yield f"{where}:{line}: {match[0]!r}; write: {instead}"
    if path.suffix == ".py":
        for line, name in names_of(path):
            snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
            if found := re.search(NAMES, snake):
                yield f"{where}:{line}: the name {name!r} has {found[0].strip('_')!r}"


def main() -> int:
    """Checks all public text; the exit status."""
    patterns = ("src/**/*.py", "src/**/*.j2", "src/**/*.yaml", "docs/*.md", "docs/results/*.md")
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    files += [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    files += sorted(ROOT.glob("examples/*.ipynb"))
    found = [line for path in files for line in findings(path)]
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
