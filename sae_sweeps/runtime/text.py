"""Makes text from files of strangers safe to show: what cannot be seen becomes an escape that can."""


def to_visible(text: str, kept: str = "") -> str:
    """Return `text` with characters that cannot be seen as Python writes them, such as \\n, \\x1b or \\u202e.

    They are line breaks, control characters that move a cursor, marks that reverse the direction of the text, and
    halves of characters. kept: such characters that stay as they are
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)
