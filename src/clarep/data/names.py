"""Names of very many images, in one block of bytes."""

from array import array
from collections.abc import Iterable, Sequence
from typing import SupportsIndex, overload


class Names(Sequence[str]):
    """A sequence of texts that can grow: of a million paths a list would hold 100 MB more."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._block, self._ends = bytearray(), array("q", [0])
        self.extend(texts)

    def extend(self, texts: Iterable[str]) -> None:
        """Take more texts; those of files may hold bytes that are no UTF-8."""
        for text in texts:
            self._block += text.encode("utf-8", "surrogatepass")
            self._ends.append(len(self._block))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, i: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: SupportsIndex | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        found = self._block[self._ends[i] : self._ends[i + 1]]
        return found.decode("utf-8", "surrogatepass")

    def __repr__(self) -> str:
        return f"Names of {len(self)} images"
