"""The public names of the package."""

import ast
import subprocess
import sys

import pytest

import sae_sweeps
from sae_sweeps.runtime.places import PROJECT


def test_importing_the_package_imports_nothing_heavy():
    code = "import sae_sweeps, sys; print(dir(sae_sweeps)); print([m for m in ('torch', 'hydra') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    names, heavy = map(ast.literal_eval, ran.stdout.splitlines())
    assert heavy == []
    assert set(sae_sweeps.__all__) <= set(names)


def test_every_public_name_exists_is_documented_and_is_seen_by_type_checkers():
    for name in sae_sweeps.__all__:
        assert getattr(sae_sweeps, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'train_sae'"):
        sae_sweeps.train_sae  # noqa: B018
    tree = ast.parse((PROJECT / "sae_sweeps" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {one.module: tuple(alias.name for alias in one.names) for one in block.body}
    assert seen == {f"sae_sweeps.{module}": names for module, names in sae_sweeps._MODULES.items()}
    assert sorted(sum(seen.values(), ())) == sorted(sae_sweeps.__all__)
