"""Tables are Markdown and line up."""

from kamcl_jax.evaluate import markdown


def test_columns_line_up():
    table = markdown.table(("name", "mR"), [["a", "3.00"], ["longer", "12.50"]])
    assert table.splitlines() == [
        "| name   |    mR |",
        "|--------|-------|",
        "| a      |  3.00 |",
        "| longer | 12.50 |",
    ]


def test_a_table_may_have_no_rows():
    assert markdown.table(("a", "b"), [], left=2).splitlines() == ["| a | b |", "|---|---|"]
