"""Tables for people: aligned text that is also Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """One row of the results: a network by name, its test accuracy (0 to 1), all its parameters, and the bits they take."""

    name: str
    accuracy: float
    parameters: int
    bits: int


def models(rows: Sequence[Model]) -> str:
    """The results table; compression divides the first row's parameters, and its bits, by each row's."""
    first = rows[0]
    cells = [
        (
            row.name,
            f"{100 * row.accuracy:.2f} %",
            f"{row.parameters:,}",
            f"{row.bits:,}",
            f"{first.parameters / row.parameters:.1f}x",
            f"{first.bits / row.bits:.1f}x",
        )
        for row in rows
    ]
    return table(("model", "test accuracy", "parameters", "bits", "fewer parameters", "fewer bits"), cells)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])], *rows]
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]) + " |"
        for line in lines
    )
