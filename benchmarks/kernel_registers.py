"""Compiles every kernel for a GPU of compute capability 9.0, without one: registers, shared memory and spills.

python benchmarks/kernel_registers.py            # a table; the exit status is 1 if a kernel spills
python benchmarks/kernel_registers.py --out benchmarks/results/sm-90-kernels.md
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sae_sweeps.runtime.files import write_text
from sae_sweeps.saes.kernels import entries, rounding, scan, update

TARGET = GPUTarget("cuda", 90, 32)
WIDTHS = (768, 2304, 4096)
# types of arguments by name; what is not here is a pointer to float32
TYPES = {
    "*i32": "start place count major row column row_out column_out before counts latent_out latent_of part_of decoded "
    "item_of extra_of used skipped",
    "*i64": "key",
    "*bf16": "upper least wide",
    "*i8": "kept",
    "i32": "N C R P L F by_latent by_row",
    "fp32": "new1 beta2 new2 epsilon",
}


@dataclass
class Launch:
    """A kernel as it is launched: constants, warps, and types of arguments that differ from the usual."""

    name: str
    function: Any
    warps: int
    constants: dict[str, Any]
    types: dict[str, str] = field(default_factory=dict)

    def signature(self) -> dict[str, str]:
        """Return the types of the arguments by name."""
        known = {name: kind for kind, names in TYPES.items() for name in names.split()} | self.types
        names = self.function.arg_names
        return {name: "constexpr" if name in self.constants else known.get(name, "*fp32") for name in names}

    def measure(self) -> list[int]:
        """Compile, and return the registers of a thread, and the bytes of shared memory and of spills."""
        types = self.signature()
        aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
        source = ASTSource(self.function, types, self.constants, aligned)
        compiled = triton.compile(source, target=TARGET, options={"num_warps": self.warps})
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        with tempfile.TemporaryDirectory() as folder:
            binary = Path(folder, "kernel.cubin")
            binary.write_bytes(compiled.asm["cubin"])
            words = [tool, "--dump-resource-usage", binary]
            usage = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        found = dict(re.findall(r"(REG|STACK):(\d+)", usage))
        return [int(found["REG"]), int(compiled.metadata.shared), int(found["STACK"])]


def launches() -> Iterator[Launch]:
    """Yield every kernel, at several widths of activations where these are constants."""
    for width in WIDTHS:
        block, size = triton.next_power_of_2(width), f", d {width}"
        yield Launch(
            "gather rows" + size, entries._gather_rows, 2, {"D": width, "U": entries.ROWS, "W": entries.COLUMNS}
        )
        dots = {"D": width, "E": entries.DOTS, "W": entries.DOT_COLUMNS}
        yield Launch("dot products" + size, entries._dot_entries, 4, dots)
        bounds = {"STRIDE": width + 8, "IS_WEIGHT": True, "HAS_BIAS": True, "ROUNDING": 1e-4, "TINY": 1e-18}
        yield Launch(
            "round rows" + size, rounding._round_rows, min(8, block // 256), {"D": width, "W": block, **bounds}
        )
        parts = {"D": width, "PART": update.PART, "U": update.PART_ROWS, "W": update.PART_COLUMNS}
        yield Launch("add parts" + size, update._add_parts, 2, parts)
        rule = {"NORMALIZE_FIRST": False, "HAS_EXTRA": True, "PART": update.PART, "U": update.ROWS}
        yield Launch(
            "update rows" + size, update._update_rows, update.warps_for(block), {"D": width, "W": block, **rule}
        )
    yield Launch("sum rows", entries._sum_rows, 1, {"W": entries.SUMMED})
    yield Launch("compact", entries._compact, 4, {"W": 1024})
    yield Launch("count candidates", scan._count_parts, 4, {"W": scan.PART, "T": scan.PARTS})
    yield Launch("write candidates", scan._write_parts, 1, {"W": scan.PART, "T": scan.PARTS})
    yield Launch("group maxima", scan._find_group_maxima, 1, {"GROUP": 64, "W": scan.PART}, {"out": "*bf16"})
    yield Launch("fill rows", scan._fill_rows, 4, {"W": scan.SLOTS}, {"out": "*i64"})
    yield Launch("update vector", update._update_vector, 4, {"W": 1024})


def main() -> None:
    """Print the table, and write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file for the table")
    options = parser.parse_args()
    lines = [f"# Kernels compiled for compute capability 9.0 by Triton {triton.__version__}", ""]
    lines += ["| kernel | warps | registers | shared memory, bytes | spilled, bytes |", "|" + " ---: |" * 5]
    spilled = []
    for launch in launches():
        registers, shared, spills = launch.measure()
        lines.append(f"| {launch.name} | {launch.warps} | {registers} | {shared} | {spills} |")
        spilled += [launch.name] * (spills > 0)
    print("\n".join(lines))
    if options.out is not None:
        write_text(options.out, "\n".join(lines) + "\n")
    if spilled:
        sys.exit(f"these kernels spill registers: {', '.join(spilled)}")


if __name__ == "__main__":
    main()
