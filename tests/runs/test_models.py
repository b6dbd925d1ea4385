"""What a MODEL is, in the one place that knows: every kind, and sentences for what is none."""

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import scorefield as sf
from scorefield.cli import main
from scorefield.errors import RunError, UserError
from scorefield.runs.inspection import inspect
from scorefield.runs.subject import open_model, open_subject

FACTORY = """
import scorefield as sf

THERE = sf.GaussianMixture.ring(modes=3).under(sf.EDM())


def make():
    return THERE


def wrong():
    return 3


def needs(x):
    return x


def leaves():
    raise SystemExit(3)
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(FACTORY)
    (tmp_path / "own_script.py").write_text("import sys\n\nsys.exit('usage: own_script')\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("raise SystemExit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    return tmp_path


@pytest.fixture
def saved(tmp_path):
    field = sf.PreconditionedField(sf.MLP(2, hidden=4, classes=2), sf.EDM(0.01, 9.0), 0.5)
    return sf.save(field, tmp_path / "mine")


def test_a_function_of_the_users_own_is_a_model(factory):
    for name in ("own_models:make", "own_models:THERE"):
        assert sf.load(name).domain.shape == (2,)
        assert dict(inspect(name)["model"])["name"] == name
    for name, match in (
        ("own_models:wrong", "returns an int, it must return a field"),
        ("own_models:none", "cannot be imported"),
        ("own_models:needs", r"own_models:needs fails: TypeError: needs\(\) missing 1 required"),
        ("own_models:leaves", r"own_models:leaves fails: .* it ends Python by sys\.exit\(3\)"),
        (
            "own_script:make",
            r"cannot be imported: it ends Python by sys\.exit\(usage: own_script\)",
        ),
        ("own_package.part:make", r"'own_package.part:make': it ends Python by sys\.exit\(0\)"),
        ("no_models:make", "there is no module 'no_models'"),
    ):
        with pytest.raises(UserError, match=match):
            sf.load(name)


def test_what_is_no_model_is_named_with_the_kinds_and_the_nearest_path(saved, trained):
    kinds = r"a model is a run or another training's folder, a checkpoint, what sf\.save wrote"
    for wrong, near in (
        (saved.with_name("mien"), saved),
        (saved / "model.safetensor", saved / "model.safetensors"),
        (trained / "checkpoints" / "step_00000005", None),
        (saved.parent / "nothing" / "at_all", None),
    ):
        for look in (open_model, inspect):
            with pytest.raises(RunError, match=kinds) as error:
                look(wrong)
            assert f"there is no model {str(wrong)!r}" in str(error.value)
            if near is not None:
                assert f"the nearest is {str(near)!r}" in str(error.value)
    with pytest.raises(RunError, match=f"is no model; {kinds}"):
        open_model(saved.parent)
    with pytest.raises(RunError, match=f"is no model; {kinds}"):
        open_model(saved / "README.md")


def test_a_step_is_that_of_a_run(trained, saved):
    assert open_model(trained, step=2).about["step"] == 2
    with pytest.raises(RunError, match=r"no checkpoint of step 3, it has"):
        open_model(trained, step=3)
    with pytest.raises(RunError, match="is one model, without a checkpoint of step 3"):
        open_model(saved, step=3)


def test_a_checkpoint_of_a_run_is_a_model(trained):
    folder = trained / "checkpoints" / "step_00000004"
    field = sf.Run.open(trained).field(step=4)
    x = torch.zeros(2, 2)
    assert torch.equal(sf.load(folder).score(x, 1.0), field.score(x, 1.0))
    assert open_model(folder).config is not None


def test_classes_are_kept_by_load_and_chosen_by_others(saved):
    assert sf.load(saved).classes == 2
    assert open_subject(saved).field.classes == 2
    assert open_subject(saved, label=1).field.classes is None
    with pytest.raises(RunError, match="label is 2"):
        open_subject(saved, label=2)


@pytest.mark.slow
def test_commands_take_every_kind(saved, factory, capsys):
    assert main(["sample", str(saved), "--n", "3", "--nfe", "3", "--label", "1"]) == 0
    (file,) = Path("samples").rglob("*.npz")
    assert file.parent.name.startswith("mine_")
    assert main(["sample", "own_models:make", "--n", "3", "--steps", "2", "--out", "x.npz"]) == 0
    assert main(["inspect", str(saved)]) == 0
    assert "EDMScaling(sigma_data=0.5" in capsys.readouterr().out
    (factory / "points.npy").write_bytes(b"")
    import numpy as np

    np.savez("points.npz", x=np.zeros((2, 2), np.float32))
    assert main(["likelihood", str(saved), "--data", "points.npz"]) == 0
    assert main(["export", "own_models:make", "out"]) == 2
    assert "only numbers, text and modules" in capsys.readouterr().err
    assert main(["export", str(saved), "again"]) == 0
    assert torch.equal(sf.load("again").backbone.last.weight, sf.load(saved).backbone.last.weight)
    for verb in ("sample", "likelihood", "check", "inspect", "export"):
        rest = ["out2"] if verb == "export" else []
        assert main([verb, "mien", *rest]) == 2
        assert "the nearest is 'mine'; a model is a run" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ the hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """huggingface_hub with a cache of its own, in which nothing is, and without a network."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    for module in ("constants", "errors"):
        import_module(f"huggingface_hub.{module}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return huggingface_hub


def cached(folder, cache, name="me/mine", revision="main"):
    """Puts a folder into the cache of huggingface_hub, as a download does."""
    commit = "a" * 40
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(commit)
    (root / "snapshots").mkdir(exist_ok=True)
    os.symlink(folder, root / "snapshots" / commit)


def test_a_model_in_the_cache_of_the_hub_needs_no_network(hub, saved, tmp_path, capsys):
    cached(saved, tmp_path / "cache")
    weight = sf.load(saved).backbone.last.weight
    for name in ("hub:me/mine", "hub:me/mine@main"):
        assert torch.equal(sf.load(name).backbone.last.weight, weight)
    assert main(["inspect", "hub:me/mine"]) == 0
    assert "hub:me/mine" in capsys.readouterr().out


def test_a_run_on_the_hub_is_refused_with_what_to_upload(hub, trained, tmp_path):
    cached(trained, tmp_path / "cache")
    with pytest.raises(RunError, match=r"is a run, which is not downloaded: upload what sf\.save"):
        sf.load("hub:me/mine")


def test_a_repository_of_other_files_is_no_model(hub, tmp_path):
    (tmp_path / "other").mkdir()
    cached(tmp_path / "other", tmp_path / "cache")
    with pytest.raises(RunError, match="hub:me/mine is no model; a model is"):
        sf.load("hub:me/mine")


def test_without_a_network_it_is_one_sentence(hub, capsys):
    for verb in ("sample", "inspect", "check"):
        assert main([verb, "hub:me/mine"]) == 2
        error = capsys.readouterr().err
        assert error == (
            "error: hub:me/mine: the hub cannot be reached, and there is no whole copy in the "
            "cache of this machine\n"
        )


def test_names_that_are_none_of_the_hub_are_one_sentence(hub):
    for name in ("hub:", "hub:a/b/c", "hub:-x/y", "hub:a..b/c"):
        with pytest.raises(RunError, match=r"must be as in hub:owner/name"):
            sf.load(name)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("GatedRepoError", r"hub:me/mine is gated: its owner grants access on request"),
        ("RepositoryNotFoundError", r"the hub has no repository 'me/mine', or it is private"),
        ("RevisionNotFoundError", r"'me/mine' has no revision 'main'"),
        ("HfHubHTTPError", r"hub:me/mine: the hub cannot be reached, and there is no whole copy"),
        ("DisabledRepoError", r"hub:me/mine: the hub cannot be reached"),
    ],
)
def test_what_the_hub_answers_is_one_sentence(hub, monkeypatch, kind, match):
    made = getattr(hub.errors, kind)

    def refuse(self, *given, **named):
        client = sys.modules[hub.errors.HTTPError.__module__.partition(".")[0]]
        answer = client.Response(500, request=client.Request("GET", "https://hub.example"))
        raise made("Client Error.\n\nMany lines.", response=answer)

    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.HfApi, "repo_info", refuse)
    with pytest.raises(RunError, match=match):
        sf.load("hub:me/mine")


def test_what_the_network_does_is_one_sentence(hub, monkeypatch):
    client = sys.modules[hub.errors.HTTPError.__module__.partition(".")[0]]

    failures = [client.ProxyError("no\nproxy"), OSError(28, "No space left", "/cache/x")]

    def fail(*given, **named):
        raise failures.pop()

    monkeypatch.setattr(hub, "snapshot_download", fail)
    while failures:
        with pytest.raises(RunError, match=r"hub:me/mine cannot be downloaded: \w+: "):
            sf.load("hub:me/mine")


def test_only_files_that_execute_nothing_are_downloaded(hub, monkeypatch, saved):
    given = {}

    def download(name, **settings):
        given.update(settings, name=name)
        return str(saved)

    monkeypatch.setattr(hub, "snapshot_download", download)
    sf.load("hub:me/mine@v1")
    assert (given["name"], given["revision"]) == ("me/mine", "v1")
    from huggingface_hub.utils import filter_repo_objects

    files = ["model.safetensors", "unet/config.json", "model_index.json", "config_resolved.yaml"]
    bad = ["pytorch_model.bin", "x.pkl", "code.py", "state.pt", "x.pth", "weights.ckpt"]
    kept = filter_repo_objects([*files, *bad], allow_patterns=given["allow_patterns"])
    assert list(kept) == files


def test_without_the_library_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RunError, match="not installed: pip install huggingface_hub"):
        sf.load("hub:me/mine")
