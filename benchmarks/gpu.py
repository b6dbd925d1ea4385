"""What one GPU does: training, sampling, likelihood, diagnostics and closed forms, in one call.

Every section is timed on the device, runs until the time is up (7 minutes by default), and states
what it could not do, memory included. The table comes last, and is written with date, card and
versions as ``gpu.json`` and ``gpu.md`` into a folder. Without ``--original``, a checkout of the
published PyTorch code of NCSN++, the peer is left out. Run as

    python benchmarks/gpu.py OUT --original PATH
    python benchmarks/gpu.py OUT --device cpu --quick    # a rehearsal
"""

import argparse
import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from gpu_sections import SECTIONS, Bench, Row
from pages import line, table

from scorefield import Engine
from scorefield.errors import out_of_memory


def measured(bench: Bench, names: list[str], limit: float) -> list[Row]:
    end, rows = time.monotonic() + limit, []
    for name in names:
        try:
            for row in SECTIONS[name](bench):
                rows.append(row)
                print(line(*cells(row)), flush=True)
                if time.monotonic() > end:
                    rows.append(Row(name, "the rest", None, "", note="time is up"))
                    return rows
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            rows.append(Row(name, "the rest", None, "", note="out of memory"))
    return rows


HEADS = ("section", "what", "value", "unit", "wanted", "note")


def cells(row: Row) -> tuple[str, ...]:
    value = "" if row.value is None else f"{row.value:.4g}"
    return row.section, row.name, value, row.unit, row.wanted, row.note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: small networks, once")
    parser.add_argument("--original", type=Path)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    given = parser.parse_args()
    device = Engine(given.device).torch_device
    bench = Bench(device, given.quick, given.original)
    rows = measured(bench, given.sections, 60 * given.minutes)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "card": card,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "rehearsal": given.quick,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    record = {**about, "rows": [vars(row) for row in rows]}
    (given.out / "gpu.json").write_text(json.dumps(record, indent=2))
    told = ", ".join(f"{name} {value}" for name, value in about.items())
    page = f"{told}\n\n{table(HEADS, map(cells, rows))}\n"
    (given.out / "gpu.md").write_text(page)
    print(f"\n{page}")


if __name__ == "__main__":
    main()
