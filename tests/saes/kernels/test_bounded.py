"""Selections in memory of a fixed size against those that take as much as they need, with ties and too little room."""

import pytest
import torch

from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.room import Room
from sae_sweeps.saes.selection import keep_above, keep_top_of_batch, keep_top_per_row
from tests.saes.kernels.conftest import DEVICE

B, F, D, K = 11, 40, 6, 3
CASES = {
    "above": lambda product: keep_above(product, torch.full((F,), 0.8)),
    "of the batch": lambda product: keep_top_of_batch(product, K, torch.tensor(0.5)),
    "of each row": lambda product: keep_top_per_row(product, K),
}


def make_product(precision, room=None, *, with_ties=False):
    generator = torch.Generator(DEVICE).manual_seed(0)
    x_BD, W_FD = torch.randn(B, D, generator=generator), torch.randn(F, D, generator=generator)
    if with_ties:
        x_BD[4:9], W_FD[20:] = x_BD[3], W_FD[:20].clone()
    return Product(x_BD, W_FD, 0.1 * torch.randn(F, generator=generator), precision=precision, room=room)


def make_room(entries, candidates):
    return Room(entries, candidates, torch.zeros(1, dtype=torch.int32))


@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_the_entries_are_those_of_a_free_search(case, precision, with_ties):
    expected = CASES[case](make_product(precision, with_ties=with_ties))
    count = len(expected.pre)
    room = make_room(count + 7, B * F)
    found = CASES[case](make_product(precision, room, with_ties=with_ties))
    assert room.overflow == 0
    assert torch.equal(found.crow_Bp1, expected.crow_Bp1)
    for name in ("row_N", "col_N", "pre", "value"):
        assert torch.equal(getattr(found, name)[:count], getattr(expected, name)), name
    assert found.value[count:].eq(0).all()
    columns, expected_columns = found.to_columns(), expected.to_columns()
    assert torch.equal(columns.start_Fp1, expected_columns.start_Fp1)
    for name in ("row_N", "pre", "value"):
        assert torch.equal(getattr(columns, name)[:count], getattr(expected_columns, name)), name
    assert columns.value[count:].eq(0).all()


def test_changed_values_reach_the_columns():
    found = CASES["above"](make_product("float32", make_room(B * F, B * F)))
    found.value = found.pre * (found.pre > 1.2)
    columns, count = found.to_columns(), int(found.crow_Bp1[-1])
    assert 0 < columns.active.sum() < count
    assert torch.equal(columns.value[:count], columns.pre[:count] * (columns.pre[:count] > 1.2))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("few", ["entries", "candidates"])
def test_too_little_room_is_noted(case, few):
    count = len(CASES[case](make_product("float32")).pre)
    room = make_room(count - 1, B * F) if few == "entries" else make_room(B * F, count - 1)
    if few == "candidates" and case == "of the batch":
        room = make_room(B * F, count)
        CASES[case](make_product("bfloat16", room))
    else:
        CASES[case](make_product("float32", room))
    assert room.overflow > 0


def test_a_guess_that_too_few_entries_reach_is_noted():
    room = make_room(B * K, B * F)
    keep_top_of_batch(make_product("float32", room), K, torch.tensor(50.0))
    assert room.overflow > 0
