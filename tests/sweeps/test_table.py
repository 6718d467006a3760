"""Tables for people and for programs."""

from __future__ import annotations

from refusal.sweeps.table import csv_text, markdown, text_table, without_empty

ROWS = [{"job": 0, "fvu": 0.12345, "what": "a|b"}, {"job": 10, "fvu": None, "what": "c,d"}]


def test_text_is_aligned_and_what_is_not_known_is_a_dash():
    assert text_table(ROWS) == "job  fvu    what\n0    0.123  a|b\n10   -      c,d"


def test_markdown_keeps_bars_out_of_its_cells():
    assert markdown(ROWS).splitlines() == [
        "| job | fvu | what |",
        "| --- | --- | --- |",
        "| 0 | 0.123 | a\\|b |",
        "| 10 | - | c,d |",
    ]


def test_csv_has_all_digits_and_quotes_commas():
    assert csv_text(ROWS) == 'job,fvu,what\n0,0.12345,a|b\n10,,"c,d"\n'


def test_columns_that_nobody_has_are_left_out():
    assert without_empty([{"a": None, "b": 0}, {"a": None, "b": None}]) == [{"b": 0}, {"b": None}]
    assert without_empty([]) == []
