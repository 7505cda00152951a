"""What is passed on names no folder of the machine: reports, tables, SAEs, exports, cards and W&B runs."""

import shutil
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from sae_sweeps.runtime.places import PROJECT
from tests.conftest import GIVEN, launch
from tests.report.reading import Page
from tests.tasks.exported import TITLES
from tests.tracking.test_run import log_records

pytestmark = pytest.mark.integration
PRIVATE = "home-of-alice"  # a folder above all folders of the commands
FORMATS = ("sae_lens", "saebench", "dictionary_learning", "sparsify")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, tiny, tiny_model, texts) -> Path:
    """A sweep with all studies, a failed point, W&B runs and exports, all below PRIVATE."""
    home = tmp_path_factory.mktemp("machine") / PRIVATE
    model = shutil.copytree(tiny_model, home / "models" / "tiny")
    text = shutil.copytree(texts, home / "data" / "texts")
    place = [f"model.name={model}", f"dataset.files={text}/*.txt", f"output_root={home}/work/runs"]
    common = [*tiny, *GIVEN, *place, "tracking=offline"]
    many = ["sae=batchtopk,topk", "dict_size=32,48", "then=[stitch,meta_sae,latents]"]
    points = ["tracking.artifacts=true", f"activations.cache={home}/work/cache"]
    run("-m", *common, *many, *points, cwd=home)
    sweep = home / "work" / "runs" / "first"
    (point,) = sweep.glob(f"{TITLES[-1]}-*")
    copy = shutil.copytree(point / "sae", home / "saes" / "copied" / "mine")
    run(*common, "task=evaluate", f"saved=sae_lens:{copy}", cwd=home)
    run(*common, "task=publish", "publish.repo=me/mine", "publish.dry_run=true", cwd=home)
    for format in FORMATS:
        words = [f"format={format}", f"saved={copy}", "export.normalized=true"]
        run(*common, "task=export", *words, cwd=home)
    run(*common, "sae=jumprelu", "sae.sparsity_coefficient=0.01", "training.lr=1e38", cwd=home, code=1)
    return sweep


def run(*words: str, cwd: Path, code: int = 0) -> None:
    done = launch(*words, cwd=cwd)
    assert done.returncode == code, done.stdout + done.stderr


def require_no_path(text: str | bytes, of: Path) -> None:
    content = text if isinstance(text, str) else text.decode(errors="replace")
    for private in (PRIVATE, "/tmp/"):
        at = content.find(private)
        assert at < 0, f"{of}: {content[max(0, at - 200) : at + 100]}"


def test_the_report_names_no_folder(sweep):
    text = (sweep / "report.html").read_text()
    page = Page(text)
    require_no_path(text, sweep / "report.html")
    blocks = [one.attributes["id"] for one in page.elements if one.attributes.get("type") == "application/gzip"]
    assert len(blocks) > 5
    for block in blocks:
        name = str(block).removeprefix("block-")
        if name != "plotly":
            require_no_path(page.decode(name), Path(name))
    assert page.data["shared"]["model.name"] == "models/tiny"
    assert page.data["shared"]["dataset.files"] == "texts/*.txt"


def test_tables_saes_and_exports_name_no_folder(sweep):
    tables, exports = list(sweep.glob("*.csv")), [file for file in sweep.glob("export/**/*") if file.is_file()]
    saes = [*sweep.glob("*/sae/*"), *sweep.glob("meta_sae/*/sae/*")]
    assert {file.name for file in tables} == {
        *("results.csv", "stitch.csv", "meta_sae.csv", "latents.csv", "evaluate.csv")
    }
    assert len(saes) == 12
    assert {file.suffix for file in exports} == {".md", ".json", ".safetensors", ".pt"}
    for file in (*tables, *saes, *exports):
        require_no_path(file.read_bytes(), file)
    assert "models/tiny" in (sweep / "results.csv").read_text()
    assert '"model_name": "tiny"' in next(sweep.glob("topk-48*/sae/cfg.json")).read_text()


def test_runs_of_wandb_name_no_folder(sweep):
    files = [*sweep.glob("wandb/*/run-*.wandb"), *sweep.glob("**/wandb/*/run-*.wandb")]
    folders = {file.relative_to(sweep).parts[0] for file in files}
    assert folders >= {"wandb", "stitch", "meta_sae", "latents", "evaluate"}
    seen = set()
    for file in files:
        for data in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            seen.add(kind)
            if kind == "run":
                require_no_path(record.run.config.SerializeToString(), file)
            elif kind in ("config", "summary", "history", "environment"):
                require_no_path(data, file)
                require_no_path(data.replace(str(PROJECT).encode(), b"/tmp/"), file)  # paths of the code count too
            elif kind == "artifact":
                require_no_path(record.artifact.metadata, file)
    assert seen >= {"run", "summary", "history", "artifact"}
    for file in sweep.glob("**/wandb/*/files/**/*"):
        if file.is_file():
            require_no_path(file.read_bytes(), file)


def test_what_stays_on_the_machine_has_whole_paths(sweep):
    for file in (sweep / "sweep.json", next(sweep.glob("topk-48*/results.json"))):
        assert PRIVATE in file.read_text()
