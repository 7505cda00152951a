"""Damage to the bytes of a file: some of every kind, or drawn by hypothesis."""

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


def flip(content: bytes, place: float) -> bytes:
    changed = bytearray(content)
    changed[int(place * len(content))] ^= 1
    return bytes(changed)


# kind -> what it makes of the bytes; the last two are made of the file, by their name
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-2],
    **{f"flipped at {at}": lambda content, at=at: flip(content, at) for at in (0.05, 0.31, 0.52, 0.77, 0.98)},
    "{}": lambda content: b"{}",
    "[]": lambda content: b"[]",
    "null": lambda content: b"null",
    "text": lambda content: b'"x"',
    "long number": lambda content: b"9" * 5000,
    "deep": lambda content: b"[" * 100_000,
    "no UTF-8": lambda content: b"\xff" + content[1:],
    "long header": lambda content: b"\xff" * 8 + content[8:],
    "a folder": lambda content: content,
    "another's": lambda content: content,
}
