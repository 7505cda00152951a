"""Tasks `export` and `publish`: exported SAEs compute the same, name no local path, and are what is uploaded."""

import json
import re
from pathlib import Path

import huggingface_hub as hub
import pytest
import torch
import yaml
from huggingface_hub.errors import LocalTokenNotFoundError
from torch.testing import assert_close

from sae_sweeps.formats.reading import load_sae, locate
from tests.tasks.conftest import point
from tests.tasks.foreign import D, foreign, saved

FORMATS = ["sae_lens", "dictionary_learning", "sparsify", "saebench"]
TITLES = ["batchtopk-32-k4-seed0", "batchtopk-48-k4-seed0", "topk-32-k4-seed0", "topk-48-k4-seed0"]


def x_BD():
    return 2 * torch.randn(100, D, generator=torch.Generator().manual_seed(5)) + 0.3


def normalized(x_BD):
    mean_B1 = x_BD.mean(1, keepdim=True)
    std_B1 = x_BD.std(1, keepdim=True)
    return (x_BD - mean_B1) / (std_B1 + 1e-5), mean_B1, std_B1


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def require_no_local_paths(folder: Path, *names: str) -> None:
    """Check that no text file contains a path, and no file the paths of folders in use."""
    for file in folder.rglob("*"):
        if not file.is_file():
            continue
        content = file.read_bytes()
        for name in ("/tmp", "/home", "/root", str(Path.cwd()), *names):
            assert name.encode() not in content, f"{name} is named in {file}"
        if file.suffix in (".json", ".md"):
            assert not re.search(r"[\s\"'`(](/\w+){2,}", content.decode()), f"a path in {file}"


def front_matter(card: Path) -> dict:
    empty, head, _ = card.read_text().split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(head)


@pytest.mark.parametrize("format", ["sae_lens", "saebench"])
def test_exported_points_compute_the_same(first, command, format, tiny_model, texts):
    ran = command("task=export", "name=first", f"format={format}")
    assert (ran.code, ran.err) == (0, "")
    root = first / "export" / format
    assert sorted(entry.name for entry in root.iterdir()) == TITLES
    for title in TITLES:
        folder = root / title
        assert files(folder) == {"README.md", "cfg.json", "sae_weights.safetensors"}
        assert f"written: {folder.relative_to(Path.cwd())}" in ran.out
        mine, again = load_sae(point(first, title)), load_sae(folder)
        assert again.architecture == mine.architecture
        assert_close(again(x_BD()), mine(x_BD()), rtol=1e-5, atol=1e-5)
        metadata = json.loads((folder / "cfg.json").read_text())["metadata"]
        assert (metadata["model_name"], metadata["hook_name"]) == (tiny_model.name, "blocks.1.hook_resid_pre")
        assert (metadata.get("hook_layer") == 1) == (format == "saebench")
        card = (folder / "README.md").read_text()
        assert f'SAE.load_from_disk("{title}")' in card
        nmse = json.loads((point(first, title) / "results.json").read_text())["metrics"]["nmse"]
        assert f"{nmse:.4f}" in card
    require_no_local_paths(root, str(tiny_model), str(texts))


def test_points_that_normalise_are_refused_by_formats_without_normalisation(first, command):
    for format in ("dictionary_learning", "sparsify"):
        ran = command("task=export", "name=first", f"format={format}")
        assert (ran.code, ran.out) == (1, "")
        assert len(ran.err.splitlines()) == 4
        problem = (
            f"export.normalized=False: the SAE normalises activations (layer_norm), which {format} cannot represent"
        )
        title = TITLES[2] if format == "sparsify" else TITLES[0]  # sparsify has no BatchTopK at all
        assert f"export: {title}: {problem}. Fix: train with sae.normalize_input=false, or " in ran.err
        assert not (first / "export" / format).exists()


def test_points_can_be_exported_to_expect_normalised_activations(first, command):
    ran = command("task=export", "name=first", "format=dictionary_learning", "export.normalized=true")
    assert (ran.code, ran.err) == (0, "")
    input_BD, mean_B1, std_B1 = normalized(x_BD())
    for title in TITLES:
        folder = first / "export" / "dictionary_learning" / title
        mine, again = load_sae(point(first, title)), load_sae(folder)
        assert again.normalization == "layer_norm"  # as its configuration says, which the library does not look at
        assert_close(again(x_BD()), mine(x_BD()), rtol=1e-5, atol=1e-5)
        again.normalization = "none"
        assert_close(again(input_BD) * std_B1 + mean_B1, mine(x_BD()), rtol=1e-4, atol=1e-4)
        assert "**It expects normalised activations**" in (folder / "README.md").read_text()
        described = locate(str(folder)).describe()
        assert (described.k, described.hook, described.dict_size) == (4, "blocks.0.hook_resid_post", mine.dict_size)


def test_architectures_a_format_lacks_are_refused_and_the_other_saes_are_written(first, command, tiny_model, texts):
    ran = command("task=export", "name=first", "format=sparsify", "export.normalized=true")
    assert ran.code == 1
    refused = ran.err.splitlines()
    problem = "sparsify does not support the architecture batchtopk, but only topk"
    problem += ". Fix: set format=sae_lens, which supports this SAE"
    assert refused == [f"export: {title}: format=sparsify: {problem}" for title in TITLES[:2]]
    root = first / "export" / "sparsify"
    assert sorted(entry.name for entry in root.iterdir()) == TITLES[2:]
    input_BD, mean_B1, std_B1 = normalized(x_BD())
    for title in TITLES[2:]:
        assert files(root / title) == {
            "config.json",
            *(f"layers.0/{name}" for name in ("cfg.json", "sae.safetensors", "README.md")),
        }
        mine, again = load_sae(point(first, title)), load_sae(root / title / "layers.0")
        assert_close(again(input_BD) * std_B1 + mean_B1, mine(x_BD()), rtol=1e-4, atol=1e-4)
        described = locate(str(root / title / "layers.0")).describe()
        assert (described.model, described.hook) == (tiny_model.name, "blocks.0.hook_resid_post")
        assert (
            f'SparseCoder.load_from_disk("{title}/layers.0")' in (root / title / "layers.0" / "README.md").read_text()
        )
    require_no_local_paths(root, str(tiny_model), str(texts))


SUPPORTED = {  # architectures per format
    "sae_lens": {"relu", "topk", "batchtopk", "jumprelu", "gated"},
    "saebench": {"relu", "topk", "batchtopk", "jumprelu", "gated"},
    "dictionary_learning": {"relu", "topk", "jumprelu", "gated"},  # and batchtopk, of a known k
    "sparsify": {"topk"},
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "jumprelu", "gated"])
def test_saes_from_other_libraries_are_exported(tmp_path, command, tiny_model, format, architecture):
    sae = foreign(architecture)
    folder = saved("sae_lens", tmp_path / "of-others", sae, str(tiny_model))
    words = ["task=export", f"sae={folder}", f"format={format}", "export.folder=out"]
    ran = command(*words)
    theirs = load_sae(folder)
    assert_close(theirs(x_BD()), sae(x_BD()), rtol=1e-5, atol=1e-5)
    title = f"{theirs.architecture}-40-of-others"  # a BatchTopK SAE is a JumpReLU there
    if theirs.architecture not in SUPPORTED[format]:
        assert ran.code == 1
        assert re.match(rf"export: {title}-[0-9a-f]{{8}}: format={format}: ", ran.err)
        assert "Fix: set format=sae_lens" in ran.err
        assert not (tmp_path / "out").exists()
        return
    assert (ran.code, ran.err) == (0, "")
    (card,) = (tmp_path / "out").rglob("README.md")
    again = load_sae(card.parent)
    assert_close(again(x_BD()), sae(x_BD()), rtol=1e-5, atol=1e-5)
    assert_close(again.encode(x_BD()), sae.encode(x_BD()), rtol=1e-5, atol=1e-5)
    assert front_matter(card)["tags"] == ["sparse-autoencoder", "interpretability"]
    assert "## Metrics" not in card.read_text(), "no metrics are known"
    require_no_local_paths(tmp_path / "out", str(tiny_model))


@pytest.mark.parametrize(
    ("format", "named"), [("saebench", "the model and the layer"), ("dictionary_learning", "the k")]
)
def test_a_field_that_the_format_needs_and_nobody_knows_is_named(tmp_path, command, format, named):
    if format == "saebench":
        folder = saved("sae_lens", tmp_path / "saes" / "nameless", foreign("relu"), None)
    else:
        folder = saved("dictionary_learning", tmp_path / "saes" / "nameless", foreign("batchtopk"), None)
        config = folder / "config.json"
        config.write_text(json.dumps({"trainer": {**json.loads(config.read_text())["trainer"], "k": None}}))
    ran = command("task=export", f"sae={folder}", f"format={format}", "export.folder=out")
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert f"needs {named}" in line
    assert "Fix: set format=sae_lens" in line


def test_saes_with_the_same_folder_name_do_not_overwrite_each_other(tmp_path, command, tiny_model):
    folders = [
        saved("sae_lens", tmp_path / run / "trainer_0", foreign("relu", seed=seed), str(tiny_model))
        for seed, run in enumerate("ab")
    ]
    ran = command("-m", "task=export", f"saved={','.join(map(str, folders))}", "export.folder=out")
    assert (ran.code, ran.err) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_an_sae_that_cannot_be_read_is_reported_by_its_setting(tmp_path, command):
    folder = saved("sae_lens", tmp_path / "cut", foreign("relu"), "gpt2")
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    ran = command("task=export", f"sae={folder}")
    assert (ran.code, ran.out) == (1, "")
    assert re.match(rf"export: relu-40-cut-[0-9a-f]{{8}}: saved={folder}: cannot be read as sae_lens \(", ran.err)
    assert ran.err.endswith("Fix: name the folder of a trained SAE\n")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("model", "base"),
    [("owner/some-model.v2", "owner/some-model.v2"), ("gpt2", None), ("owner/model: a 'name'", None)],
)
def test_the_front_matter_of_a_card_is_yaml(tmp_path, command, format, model, base):
    folder = saved("sae_lens", tmp_path / "mine", foreign("topk"), model)
    assert command("task=export", f"sae={folder}", f"format={format}", "export.folder=out").code == 0
    (card,) = (tmp_path / "out").rglob("README.md")
    head = front_matter(card)
    assert head.get("base_model") == base
    assert re.fullmatch(r"[a-z_]+", head["library_name"])


class Api:
    """Stands in for the hub's client and records its calls."""

    calls: list = []  # noqa: RUF012  shared by all instances

    private: bool | None = None  # whether the repository exists and is private; None: it does not exist

    def repo_exists(self, repo):
        return self.private is not None

    def repo_info(self, repo):
        return self

    def create_repo(self, repo, private, exist_ok):
        self.calls.append(("create", repo, private, exist_ok))

    def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
        sent = {name: (Path(folder_path) / name).read_bytes() for name in allow_patterns}
        self.calls.append(("upload", repo_id, sent))
        return f"hub/{repo_id}"


@pytest.fixture
def api(monkeypatch) -> list:
    """Return the list of calls to the hub."""
    monkeypatch.setattr(Api, "calls", [])
    monkeypatch.setattr(hub, "HfApi", Api)
    return Api.calls


def listed(out: str) -> set[str]:
    return {found[1] for line in out.splitlines() if (found := re.fullmatch(r"\s+[\d,]+  (\S+)", line))}


UPLOADED = {"README.md"} | {
    f"{title}/{name}" for title in TITLES for name in ("README.md", "cfg.json", "sae_weights.safetensors")
}


def test_a_dry_run_lists_the_files_without_calling_the_hub(first, command, api, tiny_model, texts):
    ran = command("task=publish", "name=first", "publish.repo=me/my-saes", "publish.dry_run=true")
    assert (ran.code, ran.err, api) == (0, "", [])
    assert "13 files, " in ran.out
    assert "would be uploaded to me/my-saes (private):" in ran.out
    assert listed(ran.out) == UPLOADED
    root = first / "export" / "sae_lens"
    assert files(root) == UPLOADED
    overview = (root / "README.md").read_text()
    assert front_matter(root / "README.md")["library_name"] == "saelens"
    assert "\n# my-saes\n" in overview
    rows = [line for line in overview.splitlines() if line.startswith("| ") and "seed0" in line]
    nmse = [float(row.split("|")[2]) for row in rows]
    assert len(rows) == 4
    assert nmse == sorted(nmse)
    require_no_local_paths(root, str(tiny_model), str(texts))


def test_publish_uploads_exactly_the_files_of_the_dry_run(first, command, api):
    leftover = first / "export" / "sae_lens" / "of-an-earlier-export"
    leftover.mkdir(parents=True)
    (leftover / "cfg.json").write_text("{}")
    ran = command("task=publish", "name=first", "publish.repo=me/my-saes", "publish.private=false")
    assert (ran.code, ran.err) == (0, "")
    created, uploaded = api
    assert created == ("create", "me/my-saes", False, True)
    assert uploaded[:2] == ("upload", "me/my-saes")
    assert set(uploaded[2]) == listed(ran.out) == UPLOADED
    root = first / "export" / "sae_lens"
    assert uploaded[2] == {name: (root / name).read_bytes() for name in UPLOADED}
    assert "uploaded: hub/me/my-saes" in ran.out


def test_publish_uploads_the_rest_if_some_saes_cannot_be_written(first, command, api):
    words = ["format=sparsify", "export.normalized=true", "publish.repo=me/my-saes"]
    ran = command("task=publish", "name=first", *words)
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 2
    assert {name.partition("/")[0] for name in api[1][2]} == {"README.md", *TITLES[2:]}
    overview = api[1][2]["README.md"].decode()
    assert "topk-32-k4-seed0" in overview
    assert "batchtopk" not in overview


UNREACHED = (
    ConnectionError("no route\nto it"),
    "the hub cannot be reached (ConnectionError: no route). Fix: check the network and try again",
)
NO_TOKEN = (
    LocalTokenNotFoundError("Token is required.\nTo log in, ..."),
    "the hub refused the upload (LocalTokenNotFoundError: Token is required.). Fix: log in with `hf auth login`",
)


@pytest.mark.parametrize(("error", "problem"), [UNREACHED, NO_TOKEN])
def test_an_error_of_the_hub_is_one_line_with_a_fix(first, command, monkeypatch, error, problem):
    class Refusing(Api):
        def create_repo(self, repo, private, exist_ok):
            raise error

    monkeypatch.setattr(hub, "HfApi", Refusing)
    ran = command("task=publish", "name=first", "publish.repo=me/my-saes")
    assert ran.code == 1
    assert ran.err.startswith(f"error: publish.repo=me/my-saes: {problem}")
    assert len(ran.err.splitlines()) == 1


def test_a_private_upload_to_a_public_repository_is_refused(first, command, api, monkeypatch):
    monkeypatch.setattr(Api, "private", False)
    ran = command("task=publish", "name=first", "publish.repo=me/my-saes")
    assert (ran.code, api) == (1, [])
    problem = "the repository me/my-saes already exists and is public. Fix: set publish.private=False"
    assert ran.err == f"error: publish.private=True: {problem}\n"


def test_a_readme_of_the_user_is_not_overwritten(first, command, api, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("# Mine\n")
    words = ["task=publish", "name=first", "publish.repo=me/my-saes", "publish.dry_run=true"]
    ran = command(*words, "export.folder=mine")
    assert (ran.code, api) == (1, [])
    problem = "the folder contains a README.md that sae-sweeps did not write and must not overwrite"
    assert ran.err.startswith(f"error: export.folder=mine: {problem}")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["README.md"]
    assert (tmp_path / "mine" / "README.md").read_text() == "# Mine\n"
    assert [command(*words).code for _ in range(2)] == [0, 0]  # an overview of its own may be overwritten


@pytest.mark.parametrize("repo", [None, "my-saes", "a/b/c"])
def test_an_invalid_repository_name_is_refused_before_anything_is_written(first, command, api, repo):
    ran = command("task=publish", "name=first", *([] if repo is None else [f"publish.repo={repo}"]))
    assert (ran.code, ran.out, api) == (1, "", [])
    assert ran.err.startswith(f"error: publish.repo={repo}: ")
    assert not (first / "export").exists()
