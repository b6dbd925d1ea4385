"""The model card of a folder with a trained field, as hubs show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from scorefield.errors import TrainingError
from scorefield.fields.base import ScoreField
from scorefield.fields.claims import claims
from scorefield.files import reason, write_file

CARD = "README.md"
"""The name of the file."""

_CARD = """---
library_name: scorefield
tags:
- scorefield
- score-based-generative-modeling
---
# {name}

A score field s(x, t) ≈ ∇ log p_t(x), saved by [scorefield](https://pypi.org/project/scorefield/).

## What it is

{claims}

## How to load it

```python
import scorefield as sf

field = sf.load("{name}")  # a folder, or hub:owner/name{trust}
x = sf.Heun(steps=18).sample(field, n=16)
```
"""


def card(name: str, field: ScoreField, about: Mapping[str, object], custom: bool = False) -> str:
    """The text of a card: what the field claims to be, how it is loaded, and what is known of its
    data and training; ``custom`` if it names code of the user's own.
    """
    trust = ", trust_code=True: see the file that it names first" if custom else ""
    text = _CARD.format(name=name, claims=_table(claims(field)), trust=trust)
    if not about:
        return text
    return f"{text}\n## Data and training\n\n{_table(about.items())}\n"


def write_card(folder: Path, field: ScoreField, about: Mapping[str, object]) -> None:
    """Writes a card into the folder of a training, unless there is one.

    Raises:
        TrainingError: If it cannot be written.
    """
    path = folder / CARD
    if path.exists():
        return
    try:
        write_file(path, card("/".join(folder.parts[-3:]), field, about))
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {reason(error)}") from error


def _table(rows: Iterable[tuple[str, object]]) -> str:
    lines = [f"| {key} | {' '.join(str(value).split()).replace('|', '/')} |" for key, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])
