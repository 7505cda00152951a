"""The contents of the folders of exported SAEs, and a stand-in for the hub that they are uploaded to."""

import re
from pathlib import Path

import yaml

TITLES = ["batchtopk-32-k4-seed0", "batchtopk-48-k4-seed0", "topk-32-k4-seed0", "topk-48-k4-seed0"]
UPLOADED = {"README.md"} | {
    f"{title}/{name}" for title in TITLES for name in ("README.md", "cfg.json", "sae_weights.safetensors")
}


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

    def create_commit(self, repo_id, operations, commit_message):
        sent = {one.path_in_repo: Path(one.path_or_fileobj).read_bytes() for one in operations}
        self.calls.append(("upload", repo_id, sent))
        return f"hub/{repo_id}"


def listed(out: str) -> set[str]:
    return {found[1] for line in out.splitlines() if (found := re.fullmatch(r"\s+[\d,]+  (\S+)", line))}


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
