"""The tables of a meta-SAE study: its latents and meta-latents with what they mean, and some of them to read.

latents.parquet        a row per latent of the SAE: tasks/meanings.py, and its meta-latents
meta_latents.parquet   a row per meta-latent: the same, the latents that use it, its best matches in smaller SAEs
examples.md            some decompositions as text
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sae_sweeps.runtime.files import write_table, write_text
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies import latent_tables

USERS = 20  # latents that are listed for each meta-latent
SHOWN = 12  # decompositions to read: the best explained, and as many at random
FREQUENT = 20  # activations from which a latent is worth reading

PART = pa.struct([("meta_latent", pa.int32()), ("weight", pa.float32())])
USER = pa.struct([("latent", pa.int32()), ("weight", pa.float32())])
MATCH = pa.struct([("point", pa.string()), ("latent", pa.int32()), ("cosine", pa.float32())])
LATENTS = pa.schema([*latent_tables.SCHEMA, ("explained", pa.float32()), ("meta_latents", pa.list_(PART))])
META_LATENTS = pa.schema(
    [*latent_tables.SCHEMA, ("used_by", pa.int32()), ("latents", pa.list_(USER)), ("matches", pa.list_(MATCH))]
)

Rows = Iterator[dict[str, Any]]
LATENTS_FILE, META_LATENTS_FILE = "latents.parquet", "meta_latents.parquet"


def write_latents(folder: Path, rows: Rows, decomposition: RowSparse, explained_F: Tensor) -> None:
    """`decomposition`: the weights (F, M); `explained_F`: the share of each direction that they explain, nan for those
    that were left out."""
    weights = _lists(decomposition, "meta_latent")

    def parts() -> Rows:
        for columns in rows:
            latents = columns["latent"]
            explained = explained_F[latents].tolist()
            yield columns | {
                "explained": [None if value != value else value for value in explained],
                "meta_latents": [weights(latent) for latent in latents],
            }

    write_table(folder / LATENTS_FILE, LATENTS, parts())


def write_meta_latents(
    folder: Path, rows: Rows, decomposition: RowSparse, matches: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """`matches`: by the name of a smaller SAE, the best match of each meta-latent there: cosine (M,), latent (M,)."""
    used_by = decomposition.transposed()
    users = _lists(used_by, "latent", USERS)
    count_M = used_by.crow_B1.diff().tolist()
    columns_of = {name: (cosine.tolist(), index.tolist()) for name, (cosine, index) in matches.items()}

    def parts() -> Rows:
        for columns in rows:
            yield columns | {
                "used_by": [count_M[latent] for latent in columns["latent"]],
                "latents": [users(latent) for latent in columns["latent"]],
                "matches": [
                    [
                        {"point": name, "latent": index[latent], "cosine": cosine[latent]}
                        for name, (cosine, index) in columns_of.items()
                    ]
                    for latent in columns["latent"]
                ],
            }

    write_table(folder / META_LATENTS_FILE, META_LATENTS, parts())


def _lists(kept: RowSparse, name: str, most: int | None = None) -> Any:
    """A function from a row of the matrix to its entries, the largest first."""
    starts, columns, values = kept.crow_B1.tolist(), kept.col_N.cpu(), kept.value.cpu()

    def of(row: int) -> list[dict[str, Any]]:
        entries = slice(starts[row], starts[row + 1])
        value, order = values[entries].sort(descending=True)
        ordered = zip(columns[entries][order].tolist(), value.tolist(), strict=True)
        return [{name: column, "weight": weight} for column, weight in list(ordered)[:most] if weight > 0]

    return of


def write_examples(folder: Path, name: str, activations: int, seed: int) -> None:
    """Some decompositions to read, from the two tables: the best explained, and some at random."""
    latents = pq.read_table(folder / LATENTS_FILE, columns=["latent", "frequency", "explained"])
    frequency = torch.tensor(latents["frequency"].to_numpy(), dtype=torch.float64)
    explained = torch.tensor(latents["explained"].to_numpy(zero_copy_only=False), dtype=torch.float64)
    worth = ((frequency * activations >= FREQUENT) & ~explained.isnan()).nonzero().squeeze(1)
    best = worth[explained[worth].argsort(descending=True)][:SHOWN].tolist()
    drawn = worth[torch.randperm(len(worth), generator=torch.Generator().manual_seed(seed))][:SHOWN].tolist()
    rows = {row["latent"]: row for row in _read_rows(folder / LATENTS_FILE, {*best, *drawn})}
    wanted = {part["meta_latent"] for row in rows.values() for part in row["meta_latents"]}
    meta = {row["latent"]: row for row in _read_rows(folder / META_LATENTS_FILE, wanted)}
    users = {user["latent"] for row in meta.values() for user in row["latents"][:3]}
    others = rows | {row["latent"]: row for row in _read_rows(folder / LATENTS_FILE, users - rows.keys())}
    lines = [
        f"# {name}",
        "",
        f"Latents that are active on at least {FREQUENT} of {activations:,} held-out activations, as sums of "
        "meta-latents. Quoted are the tokens on which each is most active, in their context, and the output tokens "
        "that its direction raises most.",
    ]
    for title, chosen in (("Best explained", best), ("At random", drawn)):
        lines += ["", f"## {title}"]
        for latent in chosen:
            lines += ["", *_describe_decomposition(rows[latent], meta, others)]
    write_text(folder / "examples.md", "\n".join(lines) + "\n")


def _read_rows(file: Path, latents: set[int]) -> Iterator[dict[str, Any]]:
    """Some rows of a table, read a part at a time."""
    for batch in pq.ParquetFile(file).iter_batches():
        here = [place for place, latent in enumerate(batch["latent"].to_pylist()) if latent in latents]
        yield from batch.take(here).to_pylist()


def _describe_decomposition(
    row: dict[str, Any], meta: dict[int, dict[str, Any]], others: dict[int, dict[str, Any]]
) -> list[str]:
    lines = [
        f"### Latent {row['latent']}: {row['explained']:.0%} explained",
        "",
        *(f"- {_quote(example)}" for example in row["examples"][:5]),
        f"- raises {_list_tokens(row['promoted'])}",
        "",
    ]
    for part in row["meta_latents"]:
        found = meta[part["meta_latent"]]
        lines.append(f"= **{part['weight']:.2f}** x meta-latent {found['latent']}, of {found['used_by']} latents")
        lines += ["", f"  - active on {_list_contexts(found['examples'])}; raises {_list_tokens(found['promoted'])}"]
        for user in found["latents"][:3]:
            other = others[user["latent"]]
            lines.append(f"  - in latent {user['latent']} ({user['weight']:.2f}): {_list_contexts(other['examples'])}")
        lines.append("")
    return lines


def _quote(example: dict[str, Any]) -> str:
    return f"{example['before']}**⟦{example['token']}⟧**{example['after']}".replace("\n", "⏎")


def _list_tokens(promoted: list[dict[str, Any]], most: int = 6) -> str:
    return ", ".join(f"`{word['token']}`" for word in promoted[:most]).replace("\n", "⏎")


def _list_contexts(examples: list[dict[str, Any]], most: int = 6) -> str:
    """The different tokens of the examples, each with the end of what stands before it."""
    said = [f"{' '.join(example['before'].split()[-2:])} ⟦{example['token'].strip()}⟧" for example in examples]
    return "; ".join(list(dict.fromkeys(said))[:most]).replace("\n", "⏎")
