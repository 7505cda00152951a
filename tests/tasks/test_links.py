"""Exports and uploads beside links and files that are none of an export's."""

import pytest

from tests.tasks.conftest import contents
from tests.tasks.exported import TITLES, UPLOADED, files, listed
from tests.tasks.foreign import foreign, saved


@pytest.fixture
def outside(tmp_path):
    """A folder with files that no command may read or write."""
    folder = tmp_path / "outside"
    (folder / "deeper").mkdir(parents=True)
    for name in ("cfg.json", "README.md", "secret", "deeper/secret"):
        (folder / name).write_text("private")
    return folder


def test_only_files_of_this_export_are_uploaded(first, command, api, outside):
    root = first / "export" / "sae_lens"
    folder = root / TITLES[0]
    (folder / "older").mkdir(parents=True)
    for name in (".env", ".cfg.json.123.tmp", "sae.safetensors", "older/cfg.json"):
        (folder / name).write_text("private")
    (root / ".env").write_text("private")
    (folder / "notes").symlink_to(outside / "secret")
    (root / "linked").symlink_to(outside)
    ran = command("task=publish", "name=first", "publish.repo=me/my-saes")
    assert (ran.code, ran.err) == (0, "")
    assert set(api[1][2]) == listed(ran.out) == UPLOADED
    assert b"private" not in b"".join(api[1][2].values())


def test_a_name_is_no_pattern_of_other_files(tmp_path, command, api):
    sae = saved("sae_lens", tmp_path / "[a]*", foreign("topk"), "gpt2")
    words = [f'sae="{sae}"', "export.folder=out", "publish.repo=me/my-saes"]
    assert command("task=export", *words).code == 0
    (tmp_path / "out" / "topk-40-a-private").mkdir()
    (tmp_path / "out" / "topk-40-a-private" / "cfg.json").write_text("private")
    ran = command("task=publish", *words)
    assert (ran.code, ran.err) == (0, "")
    (folder,) = {name.split("/")[0] for name in api[1][2]} - {"README.md"}
    assert "[a]*" in folder
    assert set(api[1][2]) == {"README.md"} | {f"{folder}/{name}" for name in files(tmp_path / "out" / folder)}


@pytest.mark.parametrize("format", ["sae_lens", "sparsify"])
def test_nothing_is_written_through_a_linked_folder(first, command, outside, format):
    root = first / "export" / format
    inner = root / "topk-32-k4-seed0" / "layers.0" if format == "sparsify" else root / "topk-32-k4-seed0"
    inner.parent.mkdir(parents=True)
    inner.symlink_to(outside)
    before = contents(outside)
    ran = command("task=export", "name=first", f"format={format}", "export.normalized=true")
    assert ran.code == 1
    line = next(line for line in ran.err.splitlines() if "topk-32-k4-seed0:" in line and "batchtopk-32" not in line)
    shown = inner.relative_to(first.parent.parent)
    problem = f"{shown} is a link, through which nothing is written. Fix: remove it, or set another folder"
    assert line == f"export: topk-32-k4-seed0: export.folder={shown.parents[format == 'sparsify']}: {problem}"
    assert contents(outside) == before
    assert (root / "topk-48-k4-seed0").is_dir()


def test_a_file_takes_the_place_of_a_link_to_a_file(first, command, outside):
    folder = first / "export" / "sae_lens" / TITLES[0]
    folder.mkdir(parents=True)
    for name in ("cfg.json", "README.md"):
        (folder / name).symlink_to(outside / name)
    (folder / "sae_weights.safetensors").symlink_to(outside / "nowhere")
    before = contents(outside)
    ran = command("task=export", "name=first")
    assert ran.code == 1, "a link that leads nowhere might become a folder"
    (folder / "sae_weights.safetensors").unlink()
    assert command("task=export", "name=first").code == 0
    assert contents(outside) == before
    assert not any(file.is_symlink() for file in folder.iterdir())


@pytest.mark.parametrize("target", ["outside", "mark", "folder", "bytes"])
def test_an_overview_that_is_not_ours_is_kept(first, command, api, outside, target):
    card = first / "export" / "sae_lens" / "README.md"
    card.parent.mkdir(parents=True)
    if target == "folder":
        card.mkdir()
    elif target == "bytes":
        card.write_bytes(b"\xff\xfe mine")
    else:
        (outside / "README.md").write_text("Written by sae-sweeps." if target == "mark" else "private")
        card.symlink_to(outside / "README.md")
    before = contents(outside)
    ran = command("task=publish", "name=first", "publish.repo=me/my-saes")
    assert (ran.code, api) == (1, [])
    assert "contains a README.md that sae-sweeps did not write" in ran.err
    assert contents(outside) == before
    assert card.is_dir() == (target == "folder")
