"""The Hugging Face hub, asked once and briefly: its own calls retry for 20 s when there is no network."""

from pathlib import Path

from sae_sweeps.errors import ConfigError
from sae_sweeps.wheels import WHEEL_MODELS

TIMEOUT_SECONDS = 1.5


def require_repository(setting: str, name: str, repo_type: str) -> None:
    """Make sure that a model or data set can be had: it is in the local cache, or the hub has it.

    Raises: ConfigError if it is not there, not open to this user, or the hub cannot be reached.
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
        raise ConfigError(setting, name, "the hub does not open it to you", log_in) from None
    except RepositoryNotFoundError:
        log_in = "check the name; for a private one, log in with `hf auth login`"
        raise ConfigError(setting, name, f"the hub has no such {repo_type}", log_in) from None
    except Exception as error:  # the client passes on whatever its transport raises
        if repo_type == "model":
            fix += f"; without a hub: {' or '.join(f'model={name}' for name in WHEEL_MODELS)}"
        problem = "is not a local path, not in the local cache, and the hub cannot be reached"
        raise ConfigError(setting, name, f"{problem} ({type(error).__name__})", fix) from None
