"""Task `publish`: upload trained SAEs to a Hugging Face repository, with a model card per SAE and an overview."""

import os
from pathlib import Path

from sae_sweeps.config import Config
from sae_sweeps.runtime.console import console, pluralize
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.files import write_text
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.saved_saes import read_results
from sae_sweeps.tasks.export import CARD, choose_folder, choose_format, describe_saved, export, find_saes, name_folders
from sae_sweeps.tasks.model_card import WRITTEN, build_overview


def run(sweep: Sweep, config: Config) -> list[str]:
    """Write SAEs with model cards and upload exactly these files. Returns one sentence per SAE that was not written.

    What else is in the folder, such as SAEs of an earlier export or links, is neither read nor sent.
    Raises: ConfigError if the hub refuses the upload or cannot be reached, or if the upload would overwrite a README.md
    that sae-sweeps did not write.
    """
    saved, skipped_reason = find_saes(sweep, config)
    root, format = choose_folder(sweep, config), choose_format(config)
    if os.path.lexists(root / CARD) and WRITTEN not in _read_card(root / CARD):
        problem = f"the folder contains a {CARD} that sae-sweeps did not write and must not overwrite"
        raise ConfigError("export.folder", str(root), problem, "set export.folder to another folder")
    written, failures = export(saved, root, config)
    failures = [skipped_reason, *failures] if skipped_reason else failures
    if not written:
        return failures
    metrics = {
        name: read_results(one).get("metrics", {})
        for one, name in zip(saved, name_folders(saved), strict=True)
        if name in written
    }
    repo = str(config.publish.repo)
    write_text(
        root / CARD, build_overview(repo.rpartition("/")[2], format, describe_saved(saved[0], format).model, metrics)
    )
    files = [root / CARD, *(file for name in sorted(written) for file in sorted(written[name]))]
    _print_files(repo, root, files, config)
    if not config.publish.dry_run:
        _upload(repo, root, files, config.publish.private)
    return failures


def _read_card(card: Path) -> str:
    """Return the text of a README.md; empty if it is a link or a folder, which a card never is."""
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() and not card.is_symlink() else ""


def _print_files(repo: str, root: Path, files: list[Path], config: Config) -> None:
    visibility = "private" if config.publish.private else "public"
    action = "would be uploaded" if config.publish.dry_run else "will be uploaded"
    size = sum(file.stat().st_size for file in files) / 2**20
    line = f"{pluralize(len(files), 'file')}, {size:.1f} MiB, {action} to {repo} ({visibility}):"
    console.print(line, markup=False, soft_wrap=True)
    for file in files:
        console.print(f"  {file.stat().st_size:>12,}  {file.relative_to(root)}", markup=False, soft_wrap=True)


def _upload(repo: str, root: Path, files: list[Path], private: bool) -> None:
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = hub.HfApi()
    # not upload_folder, which takes patterns: a name with a * in it would send other files of the folder too
    added = [hub.CommitOperationAdd(file.relative_to(root).as_posix(), file.absolute()) for file in files]
    try:
        if api.repo_exists(repo) and api.repo_info(repo).private != private:
            visibility = "public" if private else "private"
            problem = f"the repository {repo} already exists and is {visibility}"
            raise ConfigError("publish.private", private, problem, f"set publish.private={str(not private).lower()}")
        api.create_repo(repo, private=private, exist_ok=True)
        url = api.create_commit(repo, added, commit_message="SAEs trained with sae-sweeps")
    except ConfigError:
        raise
    except Exception as error:  # the client passes on any error of its HTTP library
        is_refused = isinstance(error, HfHubHTTPError | LocalTokenNotFoundError)
        if is_refused:
            problem, fix = "the hub refused the upload", "log in with `hf auth login` as a user who may write to it"
        else:
            problem, fix = "the hub cannot be reached", "check the network and try again"
        problem += f" ({type(error).__name__}: {first_line(error)})"
        fix += "; set publish.dry_run=true to list the files without contacting the hub"
        raise ConfigError("publish.repo", repo, problem, fix) from None
    console.print(f"uploaded: {url}", markup=False, soft_wrap=True)
