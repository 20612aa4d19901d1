"""Tables: ratios divide the first row, columns line up."""

from bayestt.report.table import Model, models, table


def test_compression_divides_the_first_row() -> None:
    text = models([Model("dense", 0.9, 1000, 32_000), Model("integer", 0.8812, 40, 320)])
    assert "| integer |       88.12 % |" in text
    assert "25.0x" in text and "100.0x" in text


def test_columns_line_up() -> None:
    lines = table(("name", "n"), [("a", "1"), ("longer", "1,000")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ------ | ----: |"
