"""The frame of the studies: parts survive interruptions, results are whole and not overwritten."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pytest
import torch

from scorefield import EDM, Engine, GaussianMixture, ScoreField
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.studies.frame import NotMade, Study, Table, Work, fingerprint, run
from scorefield.studies.settings import Atoms, Option, Settings


@dataclass(frozen=True, kw_only=True)
class Counted(Settings):
    out: ClassVar[str] = "results/counted"
    n: Annotated[int, Option("Parts.", least=1)] = 3
    jobs: Annotated[int, Option("Processes.", numbers=False)] = 1


class CountingStudy(Study):
    """The squares of numbers; counts what it computes, and stops where it is told to."""

    kinds = (Estimate,)
    computed: ClassVar[list] = []
    stop: ClassVar[int | None] = None
    unmade: ClassVar[bool] = False

    def __init__(self, settings):
        self.settings, self.about = settings, {}

    @classmethod
    def open(cls, settings):
        return cls(settings)

    def square(self, k):
        if k == self.stop:
            raise KeyboardInterrupt
        self.computed.append(k)
        return Estimate(float(k**2), 0.5, 4)

    def compute(self, work):
        return [
            work.part(f"square {k}", lambda k=k: self.square(k)) for k in range(self.settings.n)
        ]

    def files(self, result, work):
        def film():
            raise NotMade("there is no encoder")

        numbers = {"a/numbers.txt": lambda: "".join(f"{e.value}\n" for e in result).encode()}
        return numbers | ({"film": film} if self.unmade else {})

    def table(self, result):
        return Table(["n"], [[str(len(result))]])


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(CountingStudy, "computed", [])


def test_an_interrupted_study_continues_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(CountingStudy, "stop", 2)
    with pytest.raises(KeyboardInterrupt):
        run(CountingStudy, Counted(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(CountingStudy, "stop", None)
    # Another number of processes changes no number.
    written = run(CountingStudy, Counted(jobs=2), tmp_path / "out")
    assert CountingStudy.computed == [0, 1, 2]
    assert written.files[0].read_text() == "0.0\n1.0\n4.0\n"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_parts_of_other_settings_are_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(CountingStudy, "stop", 2)
    with pytest.raises(KeyboardInterrupt):
        run(CountingStudy, Counted(), tmp_path / "out")
    monkeypatch.setattr(CountingStudy, "stop", None)
    run(CountingStudy, Counted(n=2), tmp_path / "out")
    assert CountingStudy.computed == [0, 1, 0, 1]


def test_nothing_is_overwritten_unless_asked(tmp_path):
    out = tmp_path / "out"
    run(CountingStudy, Counted(), out)
    with pytest.raises(RunError, match="out exists; overwrite it"):
        run(CountingStudy, Counted(n=1), out)
    written = run(CountingStudy, Counted(n=1), out, overwrite=True)
    assert written.files[0].read_text() == "0.0\n"
    assert json.loads((out / "study.json").read_text())["settings"] == {"n": 1}
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"holds thesis\.tex, which is no result"):
        run(CountingStudy, Counted(), out, overwrite=True)
    assert (out / "thesis.tex").exists()


def test_a_file_that_cannot_be_made_loses_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(CountingStudy, "unmade", True)
    written = run(CountingStudy, Counted(), tmp_path / "out")
    assert [file.name for file in written.files] == ["numbers.txt", "study.json"]
    assert "film could not be made: there is no encoder; all else is there" in str(written.failure)


def test_a_part_comes_back_as_it_was(tmp_path):
    work = Work(tmp_path / "parts", (Estimate,))
    part = {"a": [np.arange(3.0), torch.eye(2)], "b": (Estimate(1.0, 0.1, 3), b"bytes", None)}
    kept = Work(tmp_path / "parts", (Estimate,)).part
    work.keep("part", part)
    found = kept("part", lambda: pytest.fail("computed again"))
    assert np.array_equal(found["a"][0], part["a"][0])
    assert torch.equal(found["a"][1], part["a"][1])
    assert found["b"] == part["b"]


def test_a_part_that_is_no_part_is_an_error_and_not_run(tmp_path):
    work = Work(tmp_path)
    work.keep("part", 1)
    (file,) = tmp_path.iterdir()
    torch.save(pytest.fail, file)
    with pytest.raises(RunError, match="cannot be read: delete its folder"):
        work.kept("part")


def test_weights_are_distinguished():
    class Scaled(ScoreField):
        def __init__(self, scale):
            super().__init__(truth.sde, truth.domain)
            self.register_buffer("scale", torch.tensor(scale))

        def score(self, x, t, classes=None):
            return self.scale * truth.score(x, t)

    truth = GaussianMixture.ring()
    assert fingerprint(Scaled(1.0)) == fingerprint(Scaled(1.0)) != fingerprint(Scaled(1.5))


def test_settings_have_least_values():
    with pytest.raises(UserError, match="n is 0, it must be at least 1"):
        Counted(n=0)


KILLED = """
import os, signal, sys
from pathlib import Path
from scorefield.progress import Stages
from scorefield.studies.frame import run
from scorefield.studies.settings import Atoms
from scorefield.studies.atoms.study import STUDY

class Fatal(Stages):
    def advance(self, stage, done, total, note=""):
        if note == "consistency error":
            os.kill(os.getpid(), signal.SIGKILL)

few = Atoms(exact=True, n=16, levels=2, points=4, frames=2, steps=2)
run(STUDY, few, Path(sys.argv[1]), stages=Fatal())
"""


@pytest.mark.slow
def test_a_killed_analysis_of_atoms_continues(tmp_path, monkeypatch):
    """Killed before the last diagnostics, it computes these and no others."""
    from scorefield.evaluation.catalogue import curl, score
    from scorefield.studies.atoms import compute, study

    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(out)], env=dict(os.environ))
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()
    (parts,) = tmp_path.iterdir()
    # A block of samples, score error, curl, winding and Fokker-Planck residuals.
    assert len(list(parts.iterdir())) == 5
    for module, names in {
        compute: ("walk",),
        score: ("score_error", "fokker_planck_errors"),
        curl: ("asymmetries", "winding", "harmonic_part"),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("computed again"))
    monkeypatch.setattr(study.AtomsStudy, "_films", lambda *_: {})
    for name in ("comparison", "marginals", "radial", "scatter"):
        monkeypatch.setattr(study, name, lambda *_: b"")
    few = Atoms(exact=True, n=16, levels=2, points=4, frames=2, steps=2)
    run(study.STUDY, few, out)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert "consistency" in (out / "numbers.csv").read_text()


def test_a_study_computes_exactly_on_its_engine_and_draws_on_the_cpu(tmp_path, monkeypatch):
    field, happened = GaussianMixture.ring(sde=EDM()), []

    class Placed(CountingStudy):
        def evaluated(self):
            return (field,)

        def compute(self, work):
            happened.append(torch.backends.cudnn.allow_tf32)
            return super().compute(work)

        def files(self, result, work):
            happened.append("files")
            return super().files(result, work)

    place = Engine.place
    monkeypatch.setattr(
        Engine, "place", lambda engine, module: happened.append(engine) or place(engine, module)
    )
    engine = Engine("cpu", deterministic=True)
    run(Placed, Counted(), tmp_path / "out", engine=engine)
    assert happened == [engine, False, Engine("cpu"), "files"]


def test_a_study_on_a_device_that_is_not_there_computes_nothing(tmp_path):
    with pytest.raises(UserError, match="cuda:99"):
        run(CountingStudy, Counted(), tmp_path / "out", engine=Engine("cuda:99"))
    assert not CountingStudy.computed
    assert not any(tmp_path.iterdir())
