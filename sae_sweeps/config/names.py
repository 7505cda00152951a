"""The names that folders, Weights & Biases (W&B) and Slurm take."""

import hashlib
import re

from sae_sweeps.runtime.paths import NAME_BYTES, find_hidden

WANDB_LETTERS = 128  # longest name of a group, project or artifact in W&B
WANDB_TAG_LETTERS = 64  # longest tag of a run in W&B
NAME_FIX = "name=my-sweep"
PROJECT_RESERVED = "/\\#?%:"  # what W&B refuses in the name of a project


def find_names_problem(names: str, task: str) -> str | None:
    """Return what is wrong with the setting `name`, to be read after `name=...: `; None if it is valid.

    task: the command's task; task=report takes several names, with commas
    """
    if task == "report":
        return next(filter(None, map(_find_name_problem, names.split(","))), None)
    if "," in names:
        return "must not contain a comma, because task=report takes several names with commas"
    return _find_name_problem(names)


def _find_name_problem(name: str) -> str | None:
    if not name or name in (".", "..") or "/" in name:
        return "must be a folder name without /"
    if hidden := find_hidden(name):
        return f"must not contain {hidden}, which cannot be seen"
    if name != name.strip():
        return "must not begin or end with a blank"
    if name.startswith("-"):
        return "must not begin with -, because commands would read its folder as an option"
    if name.startswith("."):
        return "must not begin with a dot, because its folder would be hidden"
    if (size := len(name.encode())) > NAME_BYTES:
        return f"must be at most {NAME_BYTES} bytes long, as any folder's name, but has {size}"
    return None


def find_project_problem(project: str) -> str | None:
    """Return what is wrong with the name of a W&B project; None if W&B takes it."""
    if not project.strip():
        return "must be the name of a W&B project"
    if project != project.strip():
        return "must not begin or end with a blank"
    if found := [letter for letter in PROJECT_RESERVED if letter in project]:
        return f"must not contain {' '.join(found)}, which W&B does not take in a project's name"
    if hidden := find_hidden(project):
        return f"must not contain {hidden}, which W&B does not take in a project's name"
    if len(project) > WANDB_LETTERS:
        return f"must have at most {WANDB_LETTERS} characters for W&B, but has {len(project)}"
    return None


def shorten(name: str, limit: int = WANDB_LETTERS) -> str:
    """Return a name of at most `limit` characters: the same, or its beginning and a hash of the whole name."""
    if len(name) <= limit:
        return name
    return f"{name[: limit - 9]}-{_hash(name)}"


def to_artifact_name(name: str) -> str:
    """Return a name that W&B takes for an artifact: letters, digits, dots, dashes and underscores, else a hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return shorten(name if plain == name else f"{plain[: WANDB_LETTERS - 9]}-{_hash(name)}")


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]
