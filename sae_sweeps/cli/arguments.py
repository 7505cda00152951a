"""Rewrites the words of the command line that Hydra would misread."""

import re
from collections.abc import Sequence


def rewrite(words: Sequence[str]) -> list[str]:
    """Return the words as Hydra takes them: `-m` first, saved SAEs and sweep names as settings of their own."""
    flags = [word for word in words if word in ("-m", "--multirun")]
    words = [*dict.fromkeys(flags), *(word for word in words if word not in flags)]
    report = "task=report" in words
    words = [quote_sweep_names(word) if report else rename_saved_sae(word) for word in words]
    if any(re.match(r"sae=[^=]*,", word) for word in words):
        words = [make_choice(word) for word in words]
    return words


def rename_saved_sae(word: str) -> str:
    """Turn `sae=FOLDER` into `saved=FOLDER`: to Hydra, `sae` is the group of architectures."""
    setting, _, value = word.partition("=")
    return f"saved={value}" if setting == "sae" and ("/" in value or ":" in value) else word


def make_choice(word: str) -> str:
    """Turn `sae.target_l0=20` into a sweep of one value, where architectures are swept.

    Hydra checks every setting that is not swept against the default architecture, which need not have it.
    """
    setting, _, value = word.partition("=")
    return f"{setting}=choice({value})" if setting.startswith("sae.") and value and "," not in value else word


def quote_sweep_names(word: str) -> str:
    """Quote the value of `name=a,b`, which names several sweeps for one report and not one command for each."""
    setting, _, value = word.partition("=")
    if setting != "name" or "," not in value or value.startswith(("'", '"')):
        return word
    return "name='{}'".format(value.replace("'", "\\'"))
