"""What commands print: tables for people, everything for programs."""

import json

import pytest

from crosslogic.cli.output import print_done, print_fields, print_rows

ROWS = [{"id": "key_1", "limits": {"rpm": 5}, "hidden": 1}, {"id": "[bold]", "limits": None, "hidden": 2}]


def test_a_table_has_a_column_for_each_heading_made_of_a_field_or_of_the_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = {"key": "id", "ceilings": lambda row: len(row["limits"] or ())}
    print_rows(iter(ROWS), columns, nothing="no keys", as_json=False)
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["key", "ceilings"]
    assert [row.split() for row in rows] == [["key_1", "1"], ["[bold]", "0"]]


def test_columns_without_headings_of_their_own_are_named_after_their_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_rows(ROWS, ("id", "hidden"), nothing="no keys", as_json=False)
    assert capsys.readouterr().out.splitlines()[0].split() == ["id", "hidden"]


def test_programs_get_all_fields_of_all_rows_and_an_empty_list_where_people_get_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_rows(iter(ROWS), ("id",), nothing="no keys", as_json=True)
    assert json.loads(capsys.readouterr().out) == ROWS
    print_rows([], ("id",), nothing="no keys", as_json=True)
    assert json.loads(capsys.readouterr().out) == []
    print_rows([], ("id",), nothing="no keys", as_json=False)
    assert capsys.readouterr().out == "no keys\n"


def test_a_change_is_told_in_a_line_or_as_the_row_that_it_left(capsys: pytest.CaptureFixture[str]) -> None:
    print_done({"id": "key_1"}, "key_1 is suspended", as_json=False)
    assert capsys.readouterr().out == "key_1 is suspended\n"
    print_done({"id": "key_1"}, "key_1 is suspended", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"id": "key_1"}


def test_one_thing_is_a_line_for_each_field_under_no_heading(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"id": "key_1", "status": None}.items())
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["id", "key_1"], ["status", "-"]]
