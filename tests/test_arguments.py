from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import pytest

from refusal import InputError
from refusal.arguments import Parser, command

MODULES = (
    "refusal.activations.inspect",
    "refusal.calibration.__main__",
    "refusal.circuits.export",
    "refusal.circuits.steer",
    "refusal.comparison.compare",
    "refusal.prompts.analyze",
    "refusal.report.build",
    "refusal.report.gallery",
    "refusal.sae.plot",
)


def test_a_mistake_of_the_user_is_one_line_and_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def main(arguments: Sequence[str] | None) -> int:
        """Fail."""
        raise InputError(f"nothing is right in {arguments}")

    assert main(["a"]) == 1
    assert capsys.readouterr().err == "error: nothing is right in ['a']\n"


def test_names_in_a_mistake_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def main(arguments: Sequence[str] | None) -> int:
        """Fail."""
        raise InputError("did you mean \x1b[2Jhate?")

    assert main([]) == 1
    assert capsys.readouterr().err == "error: did you mean \ufffd[2Jhate?\n"


def test_a_command_keeps_its_exit_status_and_texts_their_lines() -> None:
    assert command(lambda _: 3)() == 3
    help_text = Parser("refusal.x", "About\nthis.", "examples:\n  one").format_help()
    assert "About\nthis." in help_text
    assert "examples:\n  one" in help_text
    assert help_text.startswith("usage: python -m refusal.x")


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_argument_of_every_command_is_one_line(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_module(module).main(["--no-such-thing", "x"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.endswith("; see --help\n")
    assert err.count("\n") == 1
