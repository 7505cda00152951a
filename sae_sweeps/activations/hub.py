"""The Hugging Face hub, asked once and briefly: its own calls retry for 20 s when there is no network."""

import functools
from collections.abc import Sequence
from pathlib import Path

from sae_sweeps.config.wheel_models import WHEEL_MODELS
from sae_sweeps.runtime.errors import ConfigError, OutOfReachError, first_line

TIMEOUT_SECONDS = 1.5


def require_repository(setting: str, name: str, repo_type: str) -> None:
    """Make sure that a model or data set can be had: it is in the local cache, or the hub has it.

    Raises: ConfigError if it is not there; OutOfReachError if the hub is not reached, or does not open it to this user.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    fix = "give a local path, or run once where the hub can be reached"
    try:
        hub.utils.validate_repo_id(name)
        cached = Path(hub.constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=repo_type) / "snapshots"
        if cached.is_dir():
            return
        hub.HfApi().repo_info(name, repo_type=repo_type, timeout=TIMEOUT_SECONDS)
    except HFValidationError:
        raise ConfigError(setting, name, "is neither a local path nor a hub name", fix) from None
    except GatedRepoError:
        log_in = "accept its terms on the hub and log in with `hf auth login`"
        raise OutOfReachError(setting, name, "the hub does not open it to you", log_in) from None
    except RepositoryNotFoundError:
        log_in = "check the name; for a private one, log in with `hf auth login`"
        raise ConfigError(setting, name, f"the hub has no such {repo_type}", log_in) from None
    except Exception as error:  # the client passes on whatever its transport raises
        if repo_type == "model":
            fix += f"; without a hub: {' or '.join(f'model={name}' for name in WHEEL_MODELS)}"
        problem = "is not a local path, not in the local cache, and the hub cannot be reached"
        raise OutOfReachError(setting, name, f"{problem} ({type(error).__name__})", fix) from None


@functools.cache
def unreachable_reason(setting: str, name: str, repo_type: str) -> str | None:
    """Why a model or data set cannot be looked at from here; None if it can be, or if there is none. Asked once."""
    try:
        require_repository(setting, name, repo_type)
    except OutOfReachError as error:
        return error.problem
    except ConfigError:
        pass
    return None


def fetch_folder(repository: str, folder: str, files: Sequence[str]) -> Path:
    """The local copy of a folder of a model repository on the hub, of which these files are fetched if they are there.

    Raises: FileNotFoundError if the repository cannot be had.
    """
    import huggingface_hub as hub

    try:
        require_repository("", repository, "model")
        patterns = [f"{folder}/{name}" if folder else name for name in files]
        # sparsify keeps the model's name in the folder above
        patterns += [str(Path(folder).parent / "config.json")] if folder else []
        return Path(hub.snapshot_download(repository, allow_patterns=patterns)) / folder
    except ConfigError as error:
        raise FileNotFoundError(f"there is no such folder here; {repository} on the hub: {error.problem}") from None
    except Exception as error:  # the client passes on whatever its transport raises
        raise FileNotFoundError(f"{repository} could not be fetched from the hub ({first_line(error)})") from None
