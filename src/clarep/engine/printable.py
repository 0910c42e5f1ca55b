"""Text for terminals and pages: what would steer them is spelled out.

Names of classes, files and models come from anywhere.
"""

import re

# Control characters but line end and tab, and DEL, which JSON leaves as it is; line separators;
# marks of the order of reading; halves of a pair, of names that are no UTF-8.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text whose control characters, ANSI escapes with them, are written as \\x1b."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return `printable` text whose line ends and tabs are written as \\n and \\t."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def counted(number: int, one: str) -> str:
    """Return a number and its noun, given as of one: 1 image, 2,000 images, 3 classes."""
    many = f"{one}es" if one.endswith("s") else f"{one}s"
    return f"{number:,} {one if number == 1 else many}"
