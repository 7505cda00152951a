"""Lists the settings of the schemas with their types."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.config.schema import Config


def list_settings(schema: type = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (full name, type) of all settings of a dataclass, for `sae` the settings of every architecture.

    prefix: start of every full name, for example "training."
    """
    for field in dataclasses.fields(schema):
        if field.name == "sae":
            for architecture in SAE_SCHEMAS.values():
                yield from list_settings(architecture, "sae.")
        elif dataclasses.is_dataclass(field.type):
            yield from list_settings(field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{field.name}", field.type
