"""Formulas as MathML, which browsers draw themselves: pages need neither a network nor a script."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

# The converter makes identifiers of what TeX takes for operators, which then lack their spaces.
OPERATORS = {"&#x000B1;": "±", "&#x0007E;": "∼", "&#x027E8;": "⟨", "&#x027E9;": "⟩"}
FUNCTION = re.compile(r'<mi>(log|ln|cos|sin|tan|arctan)</mi>(?=(<mo stretchy="false">&#x00028;)?)')
OPENING = r"<mo[^>]*>(?:\[|&#x00028;|&#x0002C;|&#x0003D;)</mo>"
SIGN = re.compile(rf"({OPENING}(?:<mrow>)?)<mo>&#x02212;</mo>")


def named(match: re.Match[str]) -> str:
    """A function as an operator, with a thin space before its argument."""
    right = "0" if match[2] else "0.15em"
    return f'<mo form="prefix" lspace="0.1em" rspace="{right}">{match[1]}</mo>'


def formula(latex: str, display: str) -> str:
    """The element of a formula; several lines are aligned at their ``&``."""
    latex = latex.strip()
    if r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    element = convert(latex, display=display)
    for identifier, operator in OPERATORS.items():
        element = element.replace(f"<mi>{identifier}</mi>", f"<mo>{operator}</mo>")
    return SIGN.sub(r'\1<mo form="prefix">&#x02212;</mo>', FUNCTION.sub(named, element))


def inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(formula(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self: HTML5Translator, node: nodes.math_block) -> None:
    parts = [part for part in node.astext().split("\n\n") if part.strip()]
    rows = "".join(formula(part, "block") for part in parts)
    self.body.append(f'<div class="math">{rows}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
