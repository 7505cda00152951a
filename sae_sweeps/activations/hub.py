"""Access to the Hugging Face hub with a short timeout: its client retries for 20 s when there is no network."""

import functools
from collections.abc import Sequence
from pathlib import Path

from sae_sweeps.config.wheel_models import WHEEL_MODELS
from sae_sweeps.runtime.errors import ConfigError, OutOfReachError, first_line

TIMEOUT_SECONDS = 1.5


def require_repository(setting: str, name: str, repo_type: str) -> None:
    """Check that a model or data set is in the local cache or on the hub.

    Raises: ConfigError if the hub does not have it; OutOfReachError if the hub cannot be reached or denies access.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    fix = "give a local path, or run once with access to the hub to fill the cache"
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
        raise OutOfReachError(setting, name, "the hub denies you access to it", log_in) from None
    except RepositoryNotFoundError:
        log_in = "check the name; for a private one, log in with `hf auth login`"
        raise ConfigError(setting, name, f"the hub has no such {repo_type}", log_in) from None
    except Exception as error:  # the client lets any exception of its transport through
        if repo_type == "model":
            fix += f"; without a hub: {' or '.join(f'model={name}' for name in WHEEL_MODELS)}"
        problem = "is not a local path, not in the local cache, and the hub cannot be reached"
        raise OutOfReachError(setting, name, f"{problem} ({type(error).__name__})", fix) from None


@functools.cache
def unreachable_reason(setting: str, name: str, repo_type: str) -> str | None:
    """Return why the hub cannot be reached for a model or data set; None if it can, even if it has none of that name.

    The hub is asked once per name.
    """
    try:
        require_repository(setting, name, repo_type)
    except OutOfReachError as error:
        return error.problem
    except ConfigError:
        pass
    return None


def fetch_folder(repository: str, folder: str, files: Sequence[str]) -> Path:
    """Fetch these files from a folder of a model repository on the hub, those that exist. Returns the local folder.

    Raises: FileNotFoundError if the repository cannot be fetched.
    """
    import huggingface_hub as hub

    try:
        require_repository("", repository, "model")
        patterns = [f"{folder}/{name}" if folder else name for name in files]
        # sparsify stores the model's name in the folder above
        patterns += [str(Path(folder).parent / "config.json")] if folder else []
        return Path(hub.snapshot_download(repository, allow_patterns=patterns)) / folder
    except ConfigError as error:
        raise FileNotFoundError(f"there is no such folder here; {repository} on the hub: {error.problem}") from None
    except Exception as error:  # the client lets any exception of its transport through
        raise FileNotFoundError(f"{repository} could not be fetched from the hub ({first_line(error)})") from None
