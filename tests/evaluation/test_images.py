"""Metrics of images by an extractor: blocks by index, interruptions, processes, statistics."""

import random
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield import ArraySource, Heun
from scorefield.cli import main
from scorefield.config.resolve import load_config
from scorefield.data.arrays import LabelledSource
from scorefield.engine import Engine
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.evaluation import generation, images, reference
from scorefield.evaluation import parts as parts_module
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.extractors import INCEPTION, Extractor, open_extractor
from scorefield.evaluation.features import FeatureBlocks, ImageSets
from scorefield.evaluation.images import evaluate_images
from scorefield.evaluation.pixels import Pixels
from scorefield.evaluation.protocol import Protocol
from scorefield.evaluation.records import Distance, Evaluation, Level
from scorefield.evaluation.reference import read_statistics
from scorefield.metrics.frechet import frechet_distance
from scorefield.metrics.frechet_sizes import frechet_between
from scorefield.metrics.inception_score import inception_score, score_rows
from scorefield.metrics.kernel import kid
from scorefield.metrics.moments import Moments
from scorefield.metrics.neighbours import recall
from scorefield.networks.dinov2 import DinoV2
from scorefield.networks.inception import Inception
from scorefield.runs.classes import classes_by_index
from scorefield.runs.run import Run
from tests.worlds import together

torch.set_num_threads(1)
CONFIG = """\
extends: digits/m0
description: a small run on images
field: {network: {channels: 8, multipliers: [1]}}
train: {steps: 2, batch_size: 8, checkpoint_every: 2, log_every: 1}
"""
N = 48


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    """The file of a small network of DINOv2 with random weights."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * 0.2
        for name, tensor in DinoV2(64, 1, 16, 16).state_dict().items()
    }
    file = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(state, file)
    return file


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run on digits with an evaluation that has nothing of images."""
    root = tmp_path_factory.mktemp("images")
    file = root / "small.yaml"
    file.write_text(CONFIG)
    run = Run.create(load_config(file), root / "runs")
    run.train(quiet=True)
    number = Estimate(1.0, 0.1, 9)
    Evaluation(
        run.dataset,
        run.model_id,
        0,
        2,
        (Distance("heun", 3, 3, "sliced_wasserstein", "pixels", number),),
        (Level("score_error", 0.5, number),),
        number,
        {"parameters": 1, "steps": 2, "batch_size": 8},
        Protocol(nfes=(3,), samples=8, pairs=2, sigmas=(0.5,), points=4).record(),
    ).write(run.folder)
    return run


@pytest.fixture
def run(evaluated, tmp_path, monkeypatch):
    """A copy of it, whose data count as 24 images, in blocks of 16."""
    monkeypatch.setattr(reference, "MOST", 24)
    monkeypatch.setattr(generation, "_MOST", 16)
    copied = tmp_path / "digits" / "small" / "seed0"
    shutil.copytree(evaluated.folder, copied)
    return Run.open(copied)


def numbers(found):
    return {
        (d.metric, d.features): (d.estimate.value, d.estimate.standard_error)
        for d in found.distances
    }


def written(run):
    return {f.name: f.read_bytes() for f in sorted((run.folder / "samples").glob("*/*.png"))}


def test_every_metric_of_the_extractor_is_added_with_an_interval(run, extractor):
    opened = open_extractor(extractor)
    found = evaluate_images(run, [opened], N, pngs=True)
    names = [d.metric for d in found.distances if d.features == opened.name]
    assert names == [
        "frechet_dinov2",
        "frechet_dinov2_infinity",
        "kid_dinov2",
        "precision_dinov2",
        "recall_dinov2",
        "density_dinov2",
        "coverage_dinov2",
        "memorisation_dinov2",
    ]
    assert all(d.estimate.standard_error > 0 for d in found.distances)
    assert (
        "half of the 48 samples" in found.distance("frechet_dinov2", 3).estimate.settings["warning"]
    )
    again = Evaluation.read(run.folder)
    assert numbers(again) == numbers(found)
    files = written(run)
    assert list(files) == [f"{k:06d}.png" for k in range(N)]
    # The files are the images: their features are those that were compared.
    place = next((run.folder / "samples").glob("*/*.png")).parent
    pixels = [np.array(Image.open(place / name))[None] for name in files]
    features = opened(torch.from_numpy(np.stack(pixels)))["features"]
    train = reference.reference_set(
        run.source(),
        "train",
        opened,
        run.folder.parent.parent / "features",
        {"data": run.config.data.model_dump(mode="json"), "name": run.source().name},
        True,
    )
    known = Moments.of_blocks(train.features.rows("features")).statistics
    exact = reference_distance(features, known)
    assert found.distance("frechet_dinov2", 3).estimate.value == pytest.approx(exact, rel=1e-4)
    # Nothing is measured twice, and other settings are not mixed with these.
    assert numbers(evaluate_images(run, [opened], N)) == numbers(again)
    with pytest.raises(RunError, match="measured at 3 network calls with n 48, and 80 is wanted"):
        evaluate_images(run, [opened], 80)
    with pytest.raises(RunError, match="no evaluation at 4 network calls, but at 3"):
        evaluate_images(run, [opened], N, [4])


def reference_distance(features, known):
    return frechet_between(Moments.of(features).statistics, known)


@pytest.mark.slow
def test_interrupted_at_random_and_by_two_processes_images_and_metrics_are_bit_exact(
    run, extractor, tmp_path, monkeypatch
):
    second, third = tmp_path / "a/digits/small/seed0", tmp_path / "b/digits/small/seed0"
    shutil.copytree(run.folder, second)
    shutil.copytree(run.folder, third)
    opened, write, draws = open_extractor(extractor), parts_module.write_file, random.Random(0)
    whole = evaluate_images(run, [opened], N, pngs=True)
    stopped = []

    def failing(path, content):
        if draws.random() < 0.6:
            stopped.append(path)
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(parts_module, "write_file", failing)
    for _ in range(200):
        try:
            resumed = evaluate_images(Run.open(second), [opened], N, pngs=True)
            break
        except KeyboardInterrupt:
            assert not any(d.features for d in Evaluation.read(second).distances[1:])
    monkeypatch.setattr(parts_module, "write_file", write)
    assert len(stopped) > 2
    assert numbers(resumed) == numbers(whole)
    assert written(Run.open(second)) == written(run)
    assert not (second / ".parts").exists()

    def work(world):
        return evaluate_images(
            Run.open(third), [opened], N, pngs=True, engine=Engine("cpu", world=world)
        )

    for found in together(2, work):
        assert numbers(found) == numbers(whole)
    assert written(Run.open(third)) == written(run)


@pytest.mark.slow
def test_no_more_than_a_block_of_images_is_held(run, extractor, monkeypatch):
    """However many there are: the largest tensor of images that an extractor is given has a block,
    and what metrics of pairs take is a stated subset.
    """
    seen = []
    call = Extractor.__call__
    monkeypatch.setattr(Extractor, "__call__", lambda s, x: (seen.append(len(x)), call(s, x))[1])
    monkeypatch.setattr("scorefield.evaluation.features.SUBSET", 20)
    opened = open_extractor(extractor)
    found = evaluate_images(run, [opened], 200)
    assert max(seen) <= 24
    assert sum(seen) == 200 + 2 * 24
    assert found.distance("kid_dinov2", 3).estimate.n == 20
    assert found.distance("frechet_dinov2", 3).estimate.n == 200


def test_rows_of_blocks_are_those_of_the_whole():
    x = torch.arange(23.0)[:, None]
    blocks = FeatureBlocks(23, 5, lambda first, end: {"features": x[first:end]})
    for first, end in ((0, None), (3, 17), (5, 10), (21, 99), (4, 5)):
        assert torch.equal(torch.cat(list(blocks.rows("features", first, end))), x[first:end])
    assert torch.equal(blocks.first(), x)


def labelled(n, classes):
    points = torch.zeros(n, 1, 2, 2)
    labels = torch.arange(n) % 3 % classes
    return LabelledSource(points, points[:2], labels, labels[:2], "set")


def test_classes_of_samples_have_the_frequencies_of_the_data():
    source = labelled(10, 3)
    of = classes_by_index(source, 0)
    first = of(torch.arange(10))
    assert first.bincount().tolist() == [4, 3, 3]
    assert torch.equal(of(torch.arange(10, 20)), first)
    assert torch.equal(of(torch.tensor([13, 2])), first[[3, 2]])
    assert not torch.equal(classes_by_index(source, 1)(torch.arange(10)), first)
    plain = ArraySource(torch.zeros(4, 1, 2, 2), torch.zeros(2, 1, 2, 2), "plain")
    with pytest.raises(UserError, match="the points of plain have none"):
        classes_by_index(plain, 0)


class Fewer(Inception):
    """Inception with fewer features and without weights."""

    sizes: ClassVar = {"features": 96, "spatial": 23, "logits": 5}

    def __init__(self):
        torch.nn.Module.__init__(self)


@pytest.fixture
def inception():
    """What is known of the extractor of FID, with fewer features."""
    return Extractor(Fewer(), INCEPTION.sha256)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


MU, SIGMA = np.arange(96.0), np.eye(96)


def test_published_statistics_are_read(inception, tmp_path):
    """Of the forms of EDM and TTUR, in single precision too, and of ADM with spatial features and
    images, which are not read.
    """
    found = read_statistics(save(tmp_path / "edm.npz", mu=MU, sigma=SIGMA), inception)
    assert list(found) == ["features"]
    assert torch.equal(found["features"].mean, torch.from_numpy(MU))
    both = {"mu_s": np.zeros(23, np.float32), "sigma_s": np.eye(23, dtype=np.float32)}
    adm = save(
        tmp_path / "adm.npz",
        mu=MU.astype(np.float32),
        sigma=SIGMA.astype(np.float32),
        **both,
        arr_0=np.zeros((2, 4, 4, 3), np.uint8),
    )
    found = read_statistics(adm, inception)
    assert list(found) == ["features", "spatial"]
    assert found["spatial"].covariance.dtype == torch.float64


def test_statistics_that_do_not_fit_are_one_sentence_each(inception, tmp_path):
    bent = SIGMA.copy()
    bent[0, 1] = 5
    for arrays, words in (
        ({"mu": MU}, "have no array sigma: those of EDM, ADM and TTUR have mu and sigma"),
        ({"mu": MU[:64], "sigma": SIGMA[:64, :64]}, r"of another size: mu has .* \(64,\)"),
        ({"mu": MU, "sigma": SIGMA[:64]}, "of another size: sigma has"),
        ({"mu": MU.astype(int), "sigma": SIGMA}, "damaged: mu has int64, and moments are"),
        ({"mu": np.full(96, np.nan), "sigma": SIGMA}, "damaged: mu is not a finite moment"),
        ({"mu": MU, "sigma": bent}, "damaged: sigma is no covariance"),
        (
            {"mu": MU, "sigma": SIGMA, "extractor_sha256": np.array("ab" * 32)},
            "another extractor than inception:.* by one with the SHA-256 abababababab…",
        ),
    ):
        file = save(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(UserError, match=words) as error:
            read_statistics(file, inception)
        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="are damaged"):
        read_statistics(file, inception)
    with pytest.raises(UserError, match="cannot be read"):
        read_statistics(tmp_path / "none.npz", inception)
    objects = tmp_path / "objects.npz"
    np.savez(objects, mu=np.array([{}], dtype=object), sigma=SIGMA)
    with pytest.raises(UserError, match="are damaged"):
        read_statistics(objects, inception)


@pytest.mark.slow
def test_statistics_of_the_data_are_kept_and_are_of_their_extractor(run, extractor, tmp_path):
    opened = open_extractor(extractor)
    evaluate_images(run, [opened], N)
    (file,) = (run.folder.parent.parent / "features").glob("dinov2_train_*/statistics.npz")
    kept = read_statistics(file, opened)["features"]
    other = replace(opened, sha256="0" * 64)
    with pytest.raises(UserError, match="features of two extractors cannot be compared"):
        read_statistics(file, other)
    # As published statistics: the distance is that from the data that they are of.
    again = tmp_path / "c/digits/small/seed0"
    shutil.copytree(run.folder, again)
    shutil.copytree(file.parent, tmp_path / "kept")
    evaluation = Evaluation.read(again)
    bare = replace(
        evaluation,
        distances=evaluation.distances[:1],
        protocol={k: v for k, v in evaluation.protocol.items() if k != "images"},
    )
    bare.write(again)
    found = evaluate_images(
        Run.open(again), [opened], N, statistics=tmp_path / "kept" / "statistics.npz"
    )
    one, other = (
        e.distance("frechet_dinov2", 3).estimate for e in (found, Evaluation.read(run.folder))
    )
    assert one.value == other.value
    assert one.settings["reference"] == "a file of statistics"
    assert len(kept.mean) == 64
    # Another file of that name is another one.
    mean, covariance = (part.numpy() for part in kept)
    arrays = {"mu": mean + 1, "sigma": covariance, "extractor_sha256": np.array(opened.sha256)}
    (tmp_path / "changed").mkdir()
    changed = save(tmp_path / "changed" / "statistics.npz", **arrays)
    with pytest.raises(RunError, match="with statistics_sha256"):
        evaluate_images(Run.open(again), [opened], N, statistics=changed)
    # One that is damaged is not replaced without a word.
    file.write_bytes(b"none")
    bare.write(run.folder)
    with pytest.raises(UserError, match=r"damaged.*remove it, and it is computed again"):
        evaluate_images(run, [opened], N)


def test_points_that_are_no_images_are_refused(trained, extractor, tmp_path):
    source = Run.open(trained).source()
    with pytest.raises(UserError, match=r"takes images, and the points of .* have the shape"):
        reference.reference_set(source, "train", open_extractor(extractor), tmp_path, {}, False)


def test_the_command_names_what_is_missing_before_anything_is_measured(run, extractor, capsys):
    missing = run.folder / "none.pth"
    assert main(["eval", str(run.folder), "--extractor", str(missing)]) == 2
    assert "pt_inception-2015-12-05-6726825d.pth" in capsys.readouterr().err
    wrong = ["--extractor", str(extractor), "--statistics", str(missing)]
    assert main(["eval", str(run.folder), *wrong]) == 2
    assert f"the statistics {missing} cannot be read" in capsys.readouterr().err
    assert main(["eval", str(run.folder), "--png"]) == 2
    assert "of the metrics of an --extractor" in capsys.readouterr().err


def test_the_command_prints_numbers_with_intervals(run, extractor, monkeypatch, capsys):
    monkeypatch.setattr(
        "scorefield.evaluation.evaluate.evaluate", lambda *a, **k: SimpleNamespace()
    )
    arguments = ["eval", str(run.folder), "--extractor", str(extractor), "--n", str(N)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for words in ("FD-DINOv2", "kernel distance, DINOv2", " to ", open_extractor(extractor).name):
        assert words in shown
    assert "half of the 48 samples are fewer than the 64 features" in shown


def test_a_field_with_classes_draws_them_by_index(evaluated):
    """The sampler is given the classes of the indices of each block."""
    field = evaluated.field()
    given = []

    class Spy(Heun):
        def sample(self, field, **options):
            given.append(options["classes"])
            return super().sample(field, **{**options, "classes": None})

    of = classes_by_index(evaluated.source(), 0)
    made = generation.Generation(field, Spy(2), 9, 0, Engine("cpu"), Pixels(True), of)
    made.images(0, 5)
    made.images(5, 9)
    assert torch.equal(torch.cat(given), of(torch.arange(9)))
    assert images.IMAGES == 50_000


def planted(outputs, shift, n):
    generator = torch.Generator().manual_seed(int(10 * shift))
    x = {name: torch.randn(n, size, generator=generator) + shift for name, size in outputs.items()}
    return FeatureBlocks(n, 16, lambda a, b: {name: rows[a:b] for name, rows in x.items()}), x


@pytest.mark.parametrize("of_fid", [True, False])
def test_only_distances_on_the_published_inception_are_called_fid(of_fid):
    """With the values of the estimators on the same features, held in blocks or not."""
    sizes = {"features": 6, "spatial": 4, "logits": 5}
    generated, x = planted(sizes, 0.3, 100)
    real, y = planted(sizes, 0.0, 90)
    known = {name: Moments.of(y[name]).statistics for name in ("features", "spatial")}
    cpu = torch.device("cpu")
    sets = ImageSets("inception:00", of_fid, generated, real, cpu, known, 90, real)
    found = dict(images._measured(sets))
    names = {"fid", "fid_infinity", "sfid", "sfid_infinity"}
    assert names & found.keys() == (names if of_fid else set())
    name = "fid" if of_fid else "frechet_inception"
    exact = frechet_distance(x["features"], y["features"]).value
    assert found[name].value == pytest.approx(exact, rel=1e-9)
    if of_fid:
        exact = frechet_distance(x["spatial"], y["spatial"]).value
        assert found["sfid"].value == pytest.approx(exact, rel=1e-9)
    assert found["kid_inception"].value == kid(x["features"], y["features"]).value
    assert found["recall_inception"].value == recall(x["features"], y["features"]).value
    score = inception_score(Moments.of(score_rows(x["logits"])))
    assert found["inception_score"].value == pytest.approx(score.value, rel=1e-9)
    # Held-out points that are training points have the distance zero: all samples are farther.
    assert found["memorisation_inception"].value == 0


@pytest.mark.slow
def test_an_evaluation_is_extended_and_keeps_what_is_of_images(trained, tmp_path):
    run = Run.open(shutil.copytree(trained, tmp_path / "run"))
    few = Protocol(nfes=(3,), along=None, samples=32, pairs=2, sigmas=(0.5,), points=4)
    first = evaluate(run, protocol=few)
    own = Distance("heun", 3, 3, "kid_dinov2", "dinov2:00", Estimate(1.0, 0.1, 9))
    record = {"images": {"3 dinov2:00": {"n": 9}}}
    replace(first, distances=(*first.distances, own), protocol={**first.protocol, **record}).write(
        run.folder
    )
    assert evaluate(run, protocol=few).distance("kid_dinov2", 3) == own
    found = evaluate(run, [3, 4], protocol=few)
    assert found.budgets == [3, 4]
    for evaluation in (found, Evaluation.read(run.folder)):
        assert evaluation.distance("kid_dinov2", 3) == own
        assert evaluation.protocol["images"] == record["images"]
