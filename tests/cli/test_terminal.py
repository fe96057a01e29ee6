"""Everything that a command prints passes one edge, which lets no control character through."""

import io
import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import kuber.cli
from kuber.cli.console import Console
from kuber.cli.terminal import say, say_error

EVIL = "Fine\x1b[2J\x1b]0;owned\x07 \u202e\x9b1m\r\nall is well"
SOURCES = [path for path in Path(kuber.cli.__file__).parent.glob("*.py") if path.name != "terminal.py"]


def test_a_line_is_one_line(capsys):
    say(EVIL)
    say_error(EVIL)
    for text in capsys.readouterr():
        assert text == "Fine\\x1b[2J\\x1b]0;owned\\x07 \\u202e\\x9b1m\\r\\nall is well\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_no_renderable_of_rich_brings_a_control_character_to_the_terminal(terminal):
    table = Table("one", EVIL, title=EVIL, caption=EVIL)
    table.add_row(EVIL, Text(EVIL))
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, color_system=None, width=200, markup=False)
    for shown in (table, EVIL, Text(EVIL), Text("a").append(EVIL)):
        console.print(shown)
    text = file.getvalue()
    assert "all is well" in text
    assert all(character.isprintable() for character in re.sub(r"\n", "", text))


def test_colours_are_rich_s_own():
    file = io.StringIO()
    Console(file=file, force_terminal=True, color_system="standard").print(Text(EVIL, style="bold red"))
    assert set(re.findall(r"\x1b[^m]*m", file.getvalue())) <= {"\x1b[1;31m", "\x1b[0m"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_command_prints_through_this_edge(path):
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])print\((?!(result|done)\.to_json)|typer\.echo|sys\.std(out|err)\.write", source)
    imported = [name for names in re.findall(r"from rich\.console import (.*)", source) for name in names.split(", ")]
    assert "Console" not in imported
