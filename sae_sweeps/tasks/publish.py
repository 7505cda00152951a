"""Task `publish`: upload trained SAEs to a repository on the Hugging Face hub, with a card for each and one for all."""

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
    """Write the SAEs and their cards, and upload them. What could not be written is not uploaded; returns why.

    Raises: ConfigError if the hub does not take them, or a README.md is in the way that is not one of these.
    """
    saved, skipped_reason = find_saes(sweep, config)
    root, format = choose_folder(sweep, config), choose_format(config)
    if (root / CARD).exists() and WRITTEN not in (root / CARD).read_text(encoding="utf-8"):
        problem = f"holds a {CARD} of somebody's own, which would be overwritten"
        raise ConfigError("export.folder", str(root), problem, "another folder")
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
    files = [root / CARD, *(file for name in sorted(written) for file in _files(root / name))]
    _show(repo, root, files, config)
    if not config.publish.dry_run:
        _upload(repo, root, files, config.publish.private)
    return failures


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _show(repo: str, root: Path, files: list[Path], config: Config) -> None:
    visible = "private" if config.publish.private else "public"
    would = "would be uploaded" if config.publish.dry_run else "to upload"
    size = sum(file.stat().st_size for file in files) / 2**20
    console.print(f"{pluralize(len(files), 'file')}, {size:.1f} MiB, {would} to {repo} ({visible}):")
    for file in files:
        console.print(f"  {file.stat().st_size:>12,}  {file.relative_to(root)}", markup=False, soft_wrap=True)


def _upload(repo: str, root: Path, files: list[Path], private: bool) -> None:
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = hub.HfApi()
    try:
        if api.repo_exists(repo) and api.repo_info(repo).private != private:
            is_so = "public" if private else "private"
            raise ConfigError("publish.private", private, f"{repo} is {is_so}", f"publish.private={not private}")
        api.create_repo(repo, private=private, exist_ok=True)
        names = [str(file.relative_to(root)) for file in files]
        url = api.upload_folder(
            repo_id=repo, folder_path=root, allow_patterns=names, commit_message="SAEs trained with sae-sweeps"
        )
    except ConfigError:
        raise
    except Exception as error:  # the client passes on whatever its transport raises
        answered = isinstance(error, HfHubHTTPError | LocalTokenNotFoundError)
        problem = "the hub does not take it" if answered else "the hub cannot be reached"
        problem += f" ({type(error).__name__}: {first_line(error)})"
        fix = "log in with `hf auth login`, as someone who may write there" if answered else "try again where it can be"
        fix += "; publish.dry_run=true uploads nothing"
        raise ConfigError("publish.repo", repo, problem, fix) from None
    console.print(f"uploaded: {url}", markup=False, soft_wrap=True)
