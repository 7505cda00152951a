"""Task `publish`: uploads of exported SAEs to a stand-in for the hub."""

import huggingface_hub as hub
import pytest
from huggingface_hub.errors import LocalTokenNotFoundError

from tests.tasks.exported import TITLES, UPLOADED, Api, files, front_matter, listed, require_no_local_paths


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
    problem = "the repository me/my-saes already exists and is public. Fix: set publish.private=false"
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
