"""Damage to the bytes of a file, for tests with hypothesis."""

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# either a cut, or bytes at some places replaced by others
damage = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 2**20)),
    st.tuples(
        st.just("change"), st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=3)
    ),
)


def damaged(content: bytes, how) -> bytes:
    kind, places = how
    if kind == "cut":
        return content[: places % len(content)]
    changed = bytearray(content)
    for place, value in places:
        changed[place % len(content)] = value
    return bytes(changed)


def examples(number: int) -> Callable:
    """Damage a file of a fixture, which stays from example to example, in this many ways."""
    shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    limit = settings(max_examples=number, deadline=None, suppress_health_check=shared)
    return lambda test: limit(given(how=damage)(test))
