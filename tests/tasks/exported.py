"""The contents of the folders of exported SAEs."""

import re
from pathlib import Path

import yaml

TITLES = ["batchtopk-32-k4-seed0", "batchtopk-48-k4-seed0", "topk-32-k4-seed0", "topk-48-k4-seed0"]


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
