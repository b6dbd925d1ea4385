"""Every command that writes, small enough to be killed hundreds of times.

Each has a folder made once, in which what it replaces is there already (as the bytes ``OLD``, where
nothing reads them), a call, and what must hold of the folder whatever happened to the call.
"""

import io
import pickle
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch._dynamo  # the first optimiser of a process imports it: better once, before the forks

from scorefield.cli import main
from scorefield.comparison import demo, processes, sweep, timing
from scorefield.config.resolve import load_config
from scorefield.data.arrays import LabelledSource
from scorefield.data.packed import Pack
from scorefield.evaluation import likelihood
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.records import Evaluation
from scorefield.files import clean
from scorefield.report import page
from scorefield.runs.run import Run
from scorefield.studies import frame
from scorefield.training import checkpoint, classifier
from tests.conftest import SMALL
from tests.training.disk import in_a_child

OLD = b"old"
RUN = Path("runs") / "toy" / "small" / "seed0"
MODELS = ("m0", "m1")
TINY = [
    *["field.network.hidden=8", "field.network.depth=1", "field.network.embedding=4"],
    *["train.steps=2", "train.batch_size=8", "train.checkpoint_every=2", "optim.warmup=1"],
    *["eval.nfes=[3]", "eval.samples=32", "eval.pairs=2", "eval.points=4", "eval.sigmas=[0.5]"],
    "eval.along=false",
]
IMAGES = ["field.network.channels=16", "field.network.layers=1", *TINY[3:]]


class Verb(NamedTuple):
    """A command: what is there before, the call, and what must hold of the folder after it."""

    prepare: Callable[[Path], object]
    call: Callable[[Path], int]
    holds: Callable[[Path], bool]


class Inline:
    """Runs tasks in this process, in which the disk fails."""

    width = together = 1

    def __init__(self, *_, **__):
        self.ended = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def busy(self):
        return len(self.ended)

    def start(self, task, arguments):
        self.ended.append((task, processes._outcome(pickle.dumps((task.call, arguments)))))

    def wait(self, seconds):
        ended, self.ended = self.ended, []
        return ended

    def stop(self):
        pass


def small_world():
    """What makes the commands quick, and all of their work on the disk that of one process."""
    torch.set_num_threads(1)
    sweep.LocalProcesses = demo.LocalProcesses = Inline
    demo.MODELS = MODELS
    timing._ROUND = 0.001
    classifier._STEPS = 3
    page.gallery = lambda *_: []
    page.exact_group = lambda *_: None


def configured(folder):
    (folder / "small.yaml").write_text(SMALL)
    return load_config(folder / "small.yaml", ["name=toy/small", "eval.along=false"])


def trained(folder):
    Run.create(configured(folder), folder / "runs").train(quiet=True)


def evaluated(folder):
    trained(folder)
    evaluate(Run.open(folder / RUN))


def older(folder, *names):
    """Puts recognisable bytes into the place of results."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(OLD)


def as_one(folder, *names):
    """Whether all results are the old ones or none is."""
    clean((folder / names[0]).parent)
    old = [(folder / name).read_bytes() == OLD for name in names]
    return all(old) or not any(old)


def whole_checkpoints(folder):
    """Whether every checkpoint of every run is whole."""
    return all(checkpoint.read(path) for path in folder.glob("runs/*/*/*/checkpoints/step_*"))


def kept_evaluation(folder):
    found = Evaluation.read(folder / RUN)
    return found.budgets in ([3], [3, 5]) and len(found.levels) > 0


def pictures(folder, seed):
    """A set of images that its seed decides."""
    values = np.random.default_rng(seed).integers(0, 256, (40, 1, 64, 64), np.uint8)
    np.save(folder / "images.npy", values)


def packing(folder):
    out = ["--out", str(folder / "pack"), "--overwrite", "--jobs", "1"]
    return main(["data", "pack", str(folder / "images.npy"), *out])


def whole_pack(folder):
    """Whether the pack is whole, the old one or the new one; between two renamings, the old one is
    beside its place.
    """
    place = folder / "pack"
    Pack.read(place if place.exists() else folder / ".replaced-pack").check()
    return True


def labelled():
    x = torch.linspace(-1, 1, 24 * 16).reshape(24, 1, 4, 4)
    y = torch.arange(24) % 2
    return LabelledSource(x[:16], x[16:], y[:16], y[16:], "stripes")


def classified(folder):
    classifier.classifier_features(labelled(), folder)
    return 0


def whole_classifier(folder):
    path = folder / classifier.FILE
    return not path.exists() or bool(classifier.read_classifier(path))


def demonstrated(folder):
    demo.demo(folder / "runs", ("toy",), TINY, jobs=1)
    return 0


def train_call(folder):
    config, root = folder / "small.yaml", folder / "runs"
    return main(["train", str(config), "--root", str(root), "name=toy/small"])


def sweep_call(folder):
    names = [str(folder / "small.yaml"), "name=toy/small", "eval.along=false"]
    return main(["sweep", *names, "--root", str(folder / "runs"), "--eval"])


def report_names():
    from scorefield.comparison.tables import TABLES

    return [f"reports/{name}" for name in (*TABLES, page.INDEX)]


def study(folder, name):
    """The command of a study, with few of everything."""
    network = folder.parent / "networks" / "runs" / "digits" / "tiny" / "seed0"
    few = {
        "calibrate": ["--repeats", 20, "--dims", 2, "--only", "exterior derivative", "--jobs", 1],
        "dose": [],
        "patches": ["--dataset", "digits", "--network", network, "--images", 30, "--n", 2],
        "exterior": ["--dataset", "digits", "--resnet", network, "--images", 30],
        "atoms": ["--exact", "--n", 16, "--levels", 2, "--points", 4, "--frames", 2],
    }
    few["patches"] += ["--steps", 3, "--sizes", "3,5"]
    few["exterior"] += ["--steps", 2, "--points", "data", "--size", 3]
    few["atoms"] += ["--steps", 2]
    out = ["--out", str(folder / "out"), "--overwrite"]
    return main(["analyze", name, *map(str, few[name]), *out])


def network(folder):
    config = load_config("digits/minimal_resnet", [*IMAGES, "name=digits/tiny"])
    Run.create(config, folder / "runs").train(quiet=True)


def almost_done(folder, name):
    """A study of which all parts are kept and no result is written, over results that are there."""
    if name in ("patches", "exterior") and not (folder.parent / "networks").exists():
        (folder.parent / "networks").mkdir()
        network(folder.parent / "networks")

    def work():
        small_studies()

        def stop(place, files, overwrite):
            for file in files:
                older(place, file)
            (place / frame.RECORD).write_bytes(frame.json_bytes({"files": list(files)}))
            raise KeyboardInterrupt

        frame.write_folder = stop
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            study(folder, name)

    assert in_a_child(work) == 0, name


def small_studies():
    """Studies whose settings are no options of their commands."""
    from scorefield.studies.atoms.study import AtomsStudy
    from scorefield.studies.dose import study as dose_study
    from scorefield.studies.settings import Dose

    few = {"doses": (0.1,), "bands": ("high",), "slices": 1, "kinds": ("gradient",), "samples": 64}
    few |= {"sets": 2, "points": 24, "sampler_steps": 4, "tolerance": 1e-4, "pairs": 3}
    few |= {"mixtures": 0, "levels": 1}
    dose_study.DoseStudy.open = classmethod(lambda cls, chosen: cls(Dose(**few)))
    AtomsStudy._films = lambda *_: {}


def results_of_study(folder):
    """Whether the results are all old or all new, by the record of their names."""

    def records():
        # What is being written has a hidden folder, which may be beside the results.
        found = (folder / "out").rglob(frame.RECORD)
        return [p for p in found if not p.parent.name.startswith(".")]

    if not records():  # between two renamings: the old ones are put back
        for place in {p.parent for p in folder.rglob(".replaced-*")}:
            clean(place)
    (record,) = records()
    names = [p for p in record.parent.rglob("*") if p.is_file() and p != record]
    old = [p.read_bytes() == OLD for p in names]
    return bool(names) and (all(old) or not any(old))


def study_verb(name):
    def call(folder):
        small_studies()
        return study(folder, name)

    return Verb(lambda folder: almost_done(folder, name), call, results_of_study)


LIKELIHOOD = [f"{RUN}/eval/{name}" for name in (likelihood.POINTS, likelihood.SUMMARY)]
FEW = ["--n", "4", "--rtol", "1e-2", "--atol", "1e-2"]
TWO_STEPS = ["--n", "8", "--steps", "2", "--overwrite"]
SAMPLES = ["samples/x.npz", "samples/x.png"]

VERBS = {
    "train": Verb(configured, train_call, whole_checkpoints),
    "eval": Verb(
        evaluated,
        lambda f: main(["eval", str(f / RUN), "--nfe", "3,5"]),
        kept_evaluation,
    ),
    "likelihood": Verb(
        lambda f: (evaluated(f), older(f, *LIKELIHOOD)),
        lambda f: main(["likelihood", str(f / RUN), *FEW, "--overwrite"]),
        lambda f: as_one(f, *LIKELIHOOD) and kept_evaluation(f),
    ),
    "sample": Verb(
        lambda f: (trained(f), older(f, *SAMPLES)),
        lambda f: main(["sample", str(f / RUN), *TWO_STEPS, "--out", str(f / SAMPLES[0])]),
        lambda f: as_one(f, *SAMPLES),
    ),
    "sweep": Verb(configured, sweep_call, whole_checkpoints),
    "report": Verb(
        lambda f: (evaluated(f), older(f, *report_names())),
        lambda f: main(
            ["report", "--root", str(f / "runs"), "--out", str(f / "reports"), "--overwrite"]
        ),
        lambda f: as_one(f, *report_names()) and kept_evaluation(f),
    ),
    "pack": Verb(
        lambda f: (pictures(f, 0), packing(f)),
        lambda f: (pictures(f, 1), packing(f))[1],
        whole_pack,
    ),
    "demo": Verb(lambda f: None, demonstrated, whole_checkpoints),
    "classifier": Verb(lambda f: None, classified, whole_classifier),
    **{name: study_verb(name) for name in ("calibrate", "dose", "patches", "exterior", "atoms")},
}


def copy(template, folder):
    """A fresh copy of a folder; what lies beside it is shared."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)


__all__ = ["VERBS", "copy", "small_world"]
