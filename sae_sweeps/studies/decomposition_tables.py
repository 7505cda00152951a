"""Tables of a meta-SAE study: the meaning of latents and meta-latents, and some decompositions as text.

latents.parquet        a row per latent of the SAE: the columns of latent_tables.py, and the meta-latents it consists of
meta_latents.parquet   a row per meta-latent: the columns of latent_tables.py, the latents that use the meta-latent, and
                       the most similar latent of each smaller SAE
examples.md            some decompositions as text
"""

# F latents of the SAE, M meta-latents

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sae_sweeps.runtime.files import replace_non_finite, write_table, write_text
from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.saes.sparse import RowSparse
from sae_sweeps.studies import latent_tables
from sae_sweeps.studies.quotes import quote_contexts

USERS = 20  # maximal number of latents listed per meta-latent
EXAMPLES = 12  # maximal number of decompositions in each part of examples.md
MIN_ACTIVATIONS = 20  # number of held-out tokens on which a latent must be active to be in examples.md

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
    """Write latents.parquet: for each latent, examples, promoted tokens, meta-latents and the explained share.

    rows: columns by name for some latents at a time, from `latent_tables.build_rows`
    decomposition: weight of each meta-latent in each latent's decoder direction, (F, M)
    explained_F (F,): explained share of each decoder direction, NaN for latents without one
    """
    list_parts = list_entries(decomposition, "meta_latent")

    def extend_rows() -> Rows:
        for columns in rows:
            latents = columns["latent"]
            explained = explained_F[latents].tolist()
            yield columns | {
                "explained": replace_non_finite(explained),
                "meta_latents": [list_parts(latent) for latent in latents],
            }

    write_table(folder / LATENTS_FILE, LATENTS, extend_rows())


def write_meta_latents(
    folder: Path, rows: Rows, decomposition: RowSparse, matches: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Write meta_latents.parquet: for each meta-latent, examples, promoted tokens, users and matches.

    rows: columns by name for some meta-latents at a time, from `latent_tables.build_rows`
    decomposition: weight of each meta-latent in each latent's decoder direction, (F, M)
    matches: by name of a smaller SAE, the most similar latent for each meta-latent: cosine (M,), latent number (M,)
    """
    transposed = decomposition.transpose()
    list_users = list_entries(transposed, "latent", USERS)
    count_M = transposed.crow_Bp1.diff().tolist()
    matches_by_name = {name: (cosine.tolist(), index.tolist()) for name, (cosine, index) in matches.items()}

    def extend_rows() -> Rows:
        for columns in rows:
            yield columns | {
                "used_by": [count_M[latent] for latent in columns["latent"]],
                "latents": [list_users(latent) for latent in columns["latent"]],
                "matches": [
                    [
                        {"point": name, "latent": index[latent], "cosine": cosine[latent]}
                        for name, (cosine, index) in matches_by_name.items()
                    ]
                    for latent in columns["latent"]
                ],
            }

    write_table(folder / META_LATENTS_FILE, META_LATENTS, extend_rows())


def list_entries(matrix: RowSparse, name: str, most: int | None = None) -> Callable[[int], list[dict[str, Any]]]:
    """Return a function that lists the positive entries of a matrix row, largest first, at most `most` (None: all).

    The function takes the row number. An entry is a dict: the column number under the key `name`, and the `weight`.
    """
    starts, columns, values = matrix.crow_Bp1.tolist(), matrix.col_N.cpu(), matrix.value.cpu()

    def list_row(row: int) -> list[dict[str, Any]]:
        entries = slice(starts[row], starts[row + 1])
        value, order = values[entries].sort(descending=True)
        ordered = zip(columns[entries][order].tolist(), value.tolist(), strict=True)
        return [{name: column, "weight": weight} for column, weight in list(ordered)[:most] if weight > 0]

    return list_row


def write_examples(folder: Path, name: str, activations: int, seed: int) -> None:
    """Write examples.md: the best explained decompositions and a random sample, read from the two Parquet files.

    name: title of the page
    activations: number of held-out tokens that each latent's `frequency` was measured on
    seed: seed of the random sample
    """
    latents = pq.read_table(folder / LATENTS_FILE, columns=["latent", "frequency", "explained"])
    frequency = torch.tensor(latents["frequency"].to_numpy(), dtype=torch.float64)
    explained = torch.tensor(latents["explained"].to_numpy(zero_copy_only=False), dtype=torch.float64)
    frequent = ((frequency * activations >= MIN_ACTIVATIONS) & ~explained.isnan()).nonzero().squeeze(1)
    best = frequent[explained[frequent].argsort(descending=True)][:EXAMPLES].tolist()
    order = torch.randperm(
        len(frequent), generator=torch.Generator().manual_seed(mix_seed(seed, "examples of decompositions"))
    )
    random = frequent[order][:EXAMPLES].tolist()
    rows = {row["latent"]: row for row in _read_rows(folder / LATENTS_FILE, {*best, *random})}
    used = {part["meta_latent"] for row in rows.values() for part in row["meta_latents"]}
    meta_rows = {row["latent"]: row for row in _read_rows(folder / META_LATENTS_FILE, used)}
    users = {user["latent"] for row in meta_rows.values() for user in row["latents"][:3]}
    user_rows = rows | {row["latent"]: row for row in _read_rows(folder / LATENTS_FILE, users - rows.keys())}
    lines = [
        f"# {name}",
        "",
        f"Decompositions of latents that are active on at least {MIN_ACTIVATIONS} of {activations:,} held-out "
        "activations. Each latent is shown with the tokens on which it is most active, in their context, and the "
        "output tokens whose logits its direction raises most.",
    ]
    for title, chosen in (("Best explained", best), ("At random", random)):
        lines += ["", f"## {title}"]
        for latent in chosen:
            lines += ["", *_describe_decomposition(rows[latent], meta_rows, user_rows)]
    write_text(folder / "examples.md", "\n".join(lines) + "\n")


def _read_rows(file: Path, latents: set[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the given latents from a Parquet file. The file is read in batches to save memory."""
    for batch in pq.ParquetFile(file).iter_batches():
        chosen = [index for index, latent in enumerate(batch["latent"].to_pylist()) if latent in latents]
        yield from batch.take(pa.array(chosen, pa.int64())).to_pylist()


def _describe_decomposition(
    row: dict[str, Any], meta_rows: dict[int, dict[str, Any]], user_rows: dict[int, dict[str, Any]]
) -> list[str]:
    """Return the Markdown lines on one latent: its examples, promoted tokens and meta-latents.

    row: the latent's row of latents.parquet
    meta_rows, user_rows: rows of meta_latents.parquet and of latents.parquet, by latent number
    """
    lines = [
        f"### Latent {row['latent']}: {row['explained']:.0%} explained",
        "",
        *(f"- {_quote(example)}" for example in row["examples"][:5]),
        f"- raises {_list_tokens(row['promoted'])}",
        "",
    ]
    for part in row["meta_latents"]:
        meta = meta_rows[part["meta_latent"]]
        lines.append(f"= **{part['weight']:.2f}** x meta-latent {meta['latent']}, used by {meta['used_by']} latents")
        lines += ["", f"  - active on {_list_contexts(meta['examples'])}; raises {_list_tokens(meta['promoted'])}"]
        for user in meta["latents"][:3]:
            contexts = _list_contexts(user_rows[user["latent"]]["examples"])
            lines.append(f"  - in latent {user['latent']} ({user['weight']:.2f}): {contexts}")
        lines.append("")
    return lines


def _quote(example: dict[str, Any]) -> str:
    return f"{example['before']}**⟦{example['token']}⟧**{example['after']}".replace("\n", "⏎")


def _list_tokens(promoted: list[dict[str, Any]], most: int = 6) -> str:
    return ", ".join(f"`{word['token']}`" for word in promoted[:most]).replace("\n", "⏎")


def _list_contexts(examples: list[dict[str, Any]], most: int = 6) -> str:
    """Return the distinct tokens of the examples, each with the two preceding words, as one line of text."""
    return "; ".join(quote_contexts(examples, most)).replace("\n", "⏎")
