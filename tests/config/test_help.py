from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time

import pytest

from refusal.config.catalog import Catalog
from tests.commands import ROOT, Pretended, Runner

COMMANDS = ("collect", "train", "discover")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_every_group_choice_and_option(command: str, run: Runner) -> None:
    page = run(command, "--help")
    catalog = Catalog(ROOT / "conf")
    assert (page.status, page.err) == (0, "")
    for group, choices in catalog.groups.items():
        assert re.search(rf"^  {group}  ", page.out, re.MULTILINE), group
        for choice in choices:
            assert f"{choice} " in page.out
    lines = page.out.splitlines()
    for name, option in catalog.options(command).items():
        assert len([line for line in lines if line.startswith(f"  {name}=") and option.text in line]) == 1, name
    assert run(command, "sae.k=3", "-h").out == page.out


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_its_three_examples_run_as_printed(command: str, run: Runner, pipeline: Pretended) -> None:
    page = run(command, "--help").out
    examples = page.partition("\nExamples\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 3
    for example in examples:
        python, script, *arguments = shlex.split(example)
        assert (python, script) == ("python", f"{command}.py")
        assert run(command, "logger=none", *arguments).status == 0
    assert pipeline.calls


def test_it_answers_at_once_and_without_torch() -> None:
    script = (
        "import runpy, sys\n"
        "sys.argv = ['discover.py', '--help']\n"
        "try: runpy.run_path('discover.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pytorch_lightning', 'wandb', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    seconds = []
    for _ in range(3):  # the best of three: other work may share the processor
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2.0


def test_names_are_completed_by_the_tabulator_key() -> None:
    line = "python train.py sampler=cat"
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, "train.py", "-sc", "query=bash"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["sampler=category_balanced"]


def test_a_reader_that_leaves_early_costs_no_traceback() -> None:
    read, write = os.pipe()
    with subprocess.Popen([sys.executable, ROOT / "train.py", "--help"], stdout=write, stderr=subprocess.PIPE) as page:
        os.close(read)
        os.close(write)
        assert page.stderr is not None
        assert page.stderr.read() == b""
