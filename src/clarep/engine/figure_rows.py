"""What is read as rows of figures: in a session, in a notebook, as a pandas frame."""

from abc import ABC, abstractmethod
from html import escape
from typing import Any

from clarep.engine.extras import require_extra
from clarep.engine.printable import one_line


class FigureRows(ABC):
    """Figures that print as a table."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Of what they are, in a line."""

    @abstractmethod
    def to_rows(self) -> list[dict[str, Any]]:
        """Return the rows: name of a column -> its value, the same names in all."""

    def to_frame(self) -> Any:
        """Return the rows as a `pandas.DataFrame`; raises UserError where pandas is missing."""
        return require_extra("pandas", "notebooks").DataFrame(self.to_rows())

    def __repr__(self) -> str:
        table = self._cells()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        return "\n".join([one_line(self.title), *lines])

    def _repr_html_(self) -> str:
        head, *rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._cells()]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        caption = f"<caption>{escape(self.title)}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cells(self) -> list[list[str]]:
        rows = self.to_rows()
        cells = [
            [f"{value:.4g}" if isinstance(value, float) else one_line(str(value)) for value in row]
            for row in (list(row.values()) for row in rows)
        ]
        return [list(rows[0]) if rows else ["no figures"], *cells]
