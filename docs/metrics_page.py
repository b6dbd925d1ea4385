"""Write `docs/metrics.md` from the catalogue of metrics: `python docs/metrics_page.py`."""

from pathlib import Path

from scorefield.evaluation.catalogue import OF_FIELD, OF_IMAGES, OF_LEVELS, OF_PATHS, OF_SAMPLES

PAGE = Path(__file__).with_name("metrics.md")
HEAD = """\
# Metrics

What an evaluation measures. `python docs/metrics_page.py` writes this page from the catalogue,
`scorefield.evaluation.catalogue`; a test compares the two. How images are
compared is described in [](image_metrics.md).
"""
GROUPS = {
    "The field as a whole": OF_FIELD,
    "The field by noise level": OF_LEVELS,
    "Samples": OF_SAMPLES,
    "Images, by the features of an extractor": OF_IMAGES,
    "The sampler's paths": OF_PATHS,
}


def text() -> str:
    """The page."""
    lines = [HEAD]
    for heading, metrics in GROUPS.items():
        lines += [f"## {heading}\n", "| name | what it is | unit | better | applies to |"]
        lines += ["|---|---|---|---|---|"]
        for m in metrics:
            caption = m.caption
            if m in OF_LEVELS and m.estimator.method:
                caption += f" *Method:* {m.estimator.describe(m.estimator.settings)}."
            lines.append(
                f"| `{m.name}` | **{m.title}.** {caption} | {m.unit or '1'} | {m.better} "
                f"| {m.applies} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
