"""Settings of `task=export format=neuronpedia`."""

import re
from dataclasses import dataclass
from typing import Any

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.paths import find_control

FORMAT = "neuronpedia"
SLUG = r"[a-z0-9]+(-[a-z0-9]+)*"  # of releases and source sets, which are parts of addresses


@dataclass(kw_only=True)
class NeuronpediaConfig:
    """The task `export` with format=neuronpedia: what Neuronpedia shows about the SAEs, and where."""

    creator: str | None = None  # who made the SAEs, as Neuronpedia shows it; required for format=neuronpedia
    # id of the user of a Neuronpedia instance to whom all rows belong. The default is the user that every instance has
    creator_id: str = "clkht01d40000jv08hvalcvly"
    release: str | None = None  # id of the release, a part of its address; None: made from the name of the sweep
    title: str | None = None  # title of the release; None: one with the name of the sweep
    url: str | None = None  # address of a paper or repository about the SAEs, https://...
    model: str | None = None  # id of the model on Neuronpedia, such as gpt2-small; None: made from the model's name
    # the source set, a part of the addresses of sources, which are LAYER-SOURCE_SET__SAE; None: made from the release
    # and the kind of hook, such as first-res
    source_set: str | None = None
    suffix: bool = True  # end the id of a source with the SAE's name; false: one SAE of each layer only
    # latents whose decoder directions are written as steering vectors: none, all, or a list such as [12,40]
    vectors: Any = "none"

    @property
    def chosen_vectors(self) -> list[int] | None:
        """Return the latents that `vectors` lists; an empty list for none, None for all. Raises: ValueError."""
        if self.vectors in ("all", "none", None):
            return None if self.vectors == "all" else []
        listed = self.vectors if isinstance(self.vectors, list) else [self.vectors]
        if not all(re.fullmatch(r"\d{1,9}", str(one), re.ASCII) for one in listed):
            raise ValueError(self.vectors)
        return [int(one) for one in listed]

    def _has_latents(self) -> bool:
        try:
            return self.chosen_vectors != [] or self.vectors in ("none", None, [])
        except ValueError:
            return False

    def find_problems(self, is_written: bool) -> list[ConfigError]:
        """Return an error with a fix for every value that cannot work. `is_written`: whether the command uses them."""
        problems = []

        def require(name: str, is_valid: bool, problem: str, example: str) -> None:
            if not is_valid:
                fix = f"neuronpedia.{name}={example}"
                problems.append(ConfigError(f"neuronpedia.{name}", getattr(self, name), problem, fix))

        if is_written:
            has_creator = bool((self.creator or "").strip())
            require("creator", has_creator, f"format={FORMAT} needs the name of who made the SAEs", "'Jane Doe'")
        for name, words in (("creator", "'Jane Doe'"), ("title", "'SAEs of GPT-2 small'")):
            value = getattr(self, name)
            is_line = value is None or find_control(value) is None
            require(name, is_line, "must be one line", words)
        for name, example in (("release", "my-saes"), ("source_set", "my-saes-res")):
            value = getattr(self, name)
            is_slug = value is None or re.fullmatch(SLUG, value) is not None
            require(name, is_slug, "must be of lower-case letters, digits and single - between them", example)
        is_model = self.model is None or re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.model) is not None
        require("model", is_model, "must be an id of lower-case letters, digits, ., _ and -", "gpt2-small")
        is_address = self.url is None or re.fullmatch(r"https?://\S+", self.url) is not None
        require("url", is_address, "must be an address that begins with https://", "https://example.org")
        is_id = re.fullmatch(r"[a-z0-9]+", self.creator_id) is not None
        require("creator_id", is_id, "must be an id of lower-case letters and digits", "clkht01d40000jv08hvalcvly")
        require("vectors", self._has_latents(), "must be none, all, or a list of latents, from 0", "all")
        return problems
