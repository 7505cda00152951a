"""Makes parts of report.html: lists, tables, and sections with a table."""

import html
from collections.abc import Sequence

from sae_sweeps.config.differences import shorten_paths
from sae_sweeps.runtime.text import to_visible

NUMBER = ' class="number"'  # of a cell of a table


def escape(text: str) -> str:
    """Return HTML that shows `text` as it is, but for paths, of which only the end is shown.

    What cannot be seen, such as NUL, becomes an escape.
    """
    return html.escape(to_visible(shorten_paths(text), kept="\n\t"))


def make_list(kind: str, lines: Sequence[str]) -> str:
    """Return an HTML list of lines; empty if there are none. `kind`: its id and class"""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul id="{kind}" class="{kind}">{items}</ul>' if items else ""


def make_section(
    name: str, title: str, about: str, rows: Sequence[Sequence[str]], remarks: Sequence[str] = (), below: str = ""
) -> str:
    """Return an HTML section with a table; empty if the table has no rows but the titles.

    name: id of the section; rows: cells of the table, first the titles of the columns; remarks: sentences above it
    below: HTML after the table
    """
    table = make_table(title, about, rows, remarks)
    heading = f'<h2 id="{name}-title">{title}</h2>'
    return table and f'<section id="{name}" aria-labelledby="{name}-title">{heading}{table}{below}</section>'


def make_table(title: str, about: str, rows: Sequence[Sequence[str]], remarks: Sequence[str] = ()) -> str:
    """Return the table of an HTML section, with a sentence above it; empty if it has no rows but the titles."""
    if len(rows) < 2:
        return ""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{NUMBER * _is_number(cell)}>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows[1:]
    )
    region = f'class="scroll" role="region" aria-label="{title}: table" tabindex="0"'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f"<p>{about}</p>{make_list('remarks', remarks)}<div {region}>{table}</div>"


def _is_number(cell: str) -> bool:
    """Return whether a cell has no letters and no quotes, and so neither a name nor a token."""
    return not any(one.isalpha() or one in "'\"" for one in cell)
