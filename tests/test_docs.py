"""The documents are true: links resolve, commands compose, figures are the measured ones, the layout is complete."""

import ast
import json
import re
import runpy
import statistics
from functools import cache

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from sae_sweeps.cli.arguments import rename_saved_sae
from sae_sweeps.config import to_config
from sae_sweeps.config.differences import flatten
from sae_sweeps.config.reference import INNER
from sae_sweeps.config.saes import ARCHITECTURES, SAE_SCHEMAS
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.places import PROJECT
from tests.documents import COMMANDS, DOCUMENTS

ENTRIES = ("__init__.py", "__main__.py")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document):
    for target in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)#\"]+)", document.read_text()):
        assert (document.parent / target).exists(), target


LINES = [command.words for command in COMMANDS if "--config-dir" not in command.words]


@pytest.mark.parametrize("words", list(dict.fromkeys(LINES)), ids=" ".join)
def test_a_command_composes_to_valid_settings_at_every_swept_value(words):
    words = [rename_saved_sae(word) for word in words if word not in ("-m", "--help")]
    choices = [list_values(override) for override in OverridesParser.create().parse_overrides(words)]
    for index in range(max((len(values) for values in choices), default=1)):
        check(*(values[index % len(values)] for values in choices))


def list_values(override: Override) -> list[str]:
    """An override for each value that it sweeps over; of an interval, for both ends."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    is_interval = override.is_interval_sweep()
    values = [override.value().start, override.value().end] if is_interval else override.sweep_string_iterator()
    return [f"{override.get_key_element()}={value}" for value in values]


@cache  # many commands have points in common
def check(*overrides: str) -> None:
    """Compose a point and check its settings."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = to_config(compose("config", overrides=list(overrides)))
    assert not find_problems(config)


def test_the_librarys_page_runs_and_prints_what_it_says(capsys):
    text = (PROJECT / "docs" / "library.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", text, flags=re.MULTILINE | re.DOTALL)
    namespace: dict = {}
    for code, expected in blocks:
        exec(code, namespace)
        printed = capsys.readouterr().out
        if expected:
            number = r"\d+\.?\d*"
            assert re.split(number, printed) == re.split(number, expected)
            figures = [[float(figure) for figure in re.findall(number, side)] for side in (printed, expected)]
            assert figures[0] == pytest.approx(figures[1], rel=0.1)  # CPUs round differently
    assert len(blocks) >= 8
    assert sum(bool(expected) for _, expected in blocks) >= 6


def test_the_documents_have_commands():
    assert len(COMMANDS) >= 50  # else the pattern finds none and the test above is empty


def test_no_file_is_longer_than_300_lines():
    patterns = [f"sae_sweeps/**/*.{kind}" for kind in ("py", "js", "css", "html")]
    for pattern in (*patterns, "tests/**/*.py", "benchmarks/**/*.py"):
        for file in PROJECT.glob(pattern):
            assert len(file.read_text().splitlines()) <= 300, file


def test_no_function_is_longer_than_50_lines():
    for file in PROJECT.glob("sae_sweeps/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, (file.name, node.name)


def layers() -> list[list[str]]:
    """The packages in the order that import-linter checks, from top to bottom; a layer may have several."""
    pyproject = (PROJECT / "pyproject.toml").read_text()
    (listed,) = re.findall(r"^layers = \[(.*?)^\]", pyproject, flags=re.MULTILINE | re.DOTALL)
    return [layer.split(" | ") for layer in re.findall(r'"(.+?)"', listed)]


def layout() -> str:
    """The section of docs/architecture.md that describes the packages."""
    text = (PROJECT / "docs" / "architecture.md").read_text()
    (section,) = re.findall(r"^## Layout\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    return section


def test_the_drawing_of_the_layout_has_every_package_in_the_order_of_pyproject():
    (drawing,) = re.findall(r"^```text\n(.*?)^```", layout(), flags=re.MULTILINE | re.DOTALL)
    drawn = [re.findall(r"(?:^|(?<=/  ))\w+(?=/|\.py)", line) for line in drawing.splitlines()]
    assert drawn == layers()


def test_the_table_of_the_layout_names_every_package_in_that_order_and_every_file_once():
    rows = re.findall(r"^\| `(\w+)(/|\.py)` \| [^|]+ \| (.+) \|$", layout(), flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == [name for layer in layers() for name in layer]
    named: list[str] = []
    for name, kind, cell in rows:
        named += [f"{name}/{file}" if kind == "/" else file for file in re.findall(r"`([^`]+)`", cell)]
    package = PROJECT / "sae_sweeps"
    files = [str(file.relative_to(package)) for file in package.rglob("*.py") if file.name not in ENTRIES]
    architectures = {f"saes/{name}.py" for name in ARCHITECTURES}  # a new one is found by its name
    assert sorted(set(named) - architectures) == sorted(set(files) - architectures)
    assert len(named) == len(set(named))


def test_the_embedded_model_reaches_the_bits_per_byte_of_its_readme():
    measured = json.loads((PROJECT / "embedded" / "model" / "training.json").read_text())
    assert measured["bits_per_byte"] < 1.7
    assert f"{measured['bits_per_byte']:.2f}" in (PROJECT / "embedded" / "README.md").read_text()


def test_the_step_times_in_the_readme_are_the_measured_ones():
    readme = (PROJECT / "README.md").read_text()
    (linked,) = re.findall(r"Raw numbers and memory: \[.*\]\((benchmarks/results/[^)]+)\.md\)", readme)
    base = {"d": 768, "dict_size": 12288, "k": 32, "batch": 4096}
    measured = {}
    for record in json.loads((PROJECT / f"{linked}.json").read_text())["steps"]:
        spec = record["spec"]
        if all(spec[size] == value for size, value in base.items()):
            ratio = statistics.median(record["step_seconds"]) / statistics.median(record["product_seconds"])
            measured[record["library"], spec["architecture"], spec["dead"], spec["precision"]] = ratio
    columns = ["sae-sweeps", "sae-lens", "dictionary-learning", "eai-sparsify"]
    rows = {"BatchTopK": ("batchtopk", 0), "TopK": ("topk", 0), "JumpReLU": ("jumprelu", 0)}
    rows["BatchTopK, 30 % of the latents dead"] = ("batchtopk", 0.3)
    for title, (architecture, dead) in rows.items():
        (row,) = re.findall(rf"^\| {title} \| (\*\*.*) \|$", readme, flags=re.MULTILINE)
        for library, cell in zip(columns, row.split("|"), strict=True):
            precisions = ["bfloat16", "float32"] if "(float32: " in cell else ["float32"]
            expected = [measured.get((library, architecture, dead, precision)) for precision in precisions]
            shown = re.findall(r"\d+\.\d+", cell)
            assert shown == [f"{value:.{2 if value < 10 else 1}f}" for value in expected if value is not None], title


def test_the_sweep_times_in_the_readme_are_the_measured_ones():
    readme = " ".join((PROJECT / "README.md").read_text().split())
    (linked,) = re.findall(r"\[table\]\((benchmarks/results/[^)]+)\.md\)", readme)
    sweeps = json.loads((PROJECT / f"{linked}.json").read_text())["sweeps"]
    ratios = []
    for points in ("6 points", "12 points"):
        seconds = {library: row["seconds"] for library, row in sweeps[points].items()}
        ratios.append(min(time for library, time in seconds.items() if library != "sae-sweeps") / seconds["sae-sweeps"])
    assert f"took {ratios[0]:.1f} and {ratios[1]:.1f} times as long in the faster of SAELens and" in readme


@pytest.mark.parametrize("document", ["docs/architecture.md", "docs/training.md", "CONTRIBUTING.md"])
def test_paths_in_the_text_are_there(document):
    text = re.sub(r"^## Layout\n.*?(?=^## )", "", (PROJECT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    for path in re.findall(r"`([a-z_]+(?:/[a-z_0-9-]+)*(?:/|\.(?:py|yaml|toml)))`", text):
        assert (PROJECT / path).exists() or (PROJECT / "sae_sweeps" / path).exists(), path


def composed_settings() -> set[str]:
    """The names of all settings of the command."""
    found: set[str] = set()
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        for architecture in SAE_SCHEMAS:
            config = compose("config", overrides=[f"sae={architecture}"])
            found |= flatten(OmegaConf.to_container(config, resolve=True)).keys()
    launcher = OmegaConf.load(PROJECT / "conf" / "hydra" / "launcher" / "slurm.yaml")
    found |= {f"hydra.launcher.{name}" for name in launcher if name != "_target_"}
    return {name for name in found if not name.startswith(INNER)}


def test_the_page_of_all_settings_is_what_the_schemas_say():
    page = runpy.run_path(str(PROJECT / "docs" / "_site" / "settings_page.py"))["make_page"]()
    assert (PROJECT / "docs" / "all-settings.md").read_text() == page  # else: make settings-page
    listed = re.findall(r"^\| `([^`=]*)` \| `([^`]*)` \| (\S.*) \|$", page, flags=re.MULTILINE)
    assert {name for name, _, _ in listed} == composed_settings()
    defaults = {name: yaml.safe_load(default) for name, default, _ in listed}
    assert (defaults["training.tokens"], defaults["then"], defaults["saved"]) == (327_680, [], None)
    assert str(PROJECT) not in page


@pytest.mark.parametrize("group", ["task", "experiment", "model", "dataset", "sae", "training", "meta", "tracking"])
def test_the_page_of_all_settings_has_every_choice(group):
    text = (PROJECT / "docs" / "all-settings.md").read_text()
    for file in (PROJECT / "conf" / group).glob("*.yaml"):
        assert f"| `{group}={file.stem}` | " in text, file


def test_the_messages_on_the_page_of_errors_are_those_of_the_code():
    page = (PROJECT / "docs" / "errors.md").read_text()
    code = "".join(file.read_text() for file in sorted(PROJECT.glob("sae_sweeps/**/*.py")))
    messages = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    assert len(messages) > 20
    assert [message for message in messages if message not in code] == []


def test_the_site_leads_to_every_page():
    nav = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["nav"]
    pages = re.findall(r"[\w/-]+\.md", str(nav))
    docs = PROJECT / "docs"
    assert sorted(pages) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
