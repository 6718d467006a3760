"""How a script runs: options from the command line, one task, and every mistake in one line.

A script is ``@command def train(options): ...``; its docstring is the head of its ``--help``. Hydra composes the
options, makes the run's folder and calls the callbacks; this module reads what they wrote down and says the rest: the
comparison of a multirun, the verdict as the last line, or what failed, with an exit status that tells.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.config.catalog import Catalog
from refusal.config.help import help_page
from refusal.config.schemas import Options

Task = Callable[[Options], object]

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C stopped, as shells have it."""


def command(task: Task) -> Callable[[], None]:
    """Make a script's main function of its task, which has the script's name."""

    def main() -> None:
        try:
            status = run(task, sys.argv[1:])
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read the output, such as head, has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 1
        sys.exit(status)

    return main


def run(task: Task, arguments: Sequence[str]) -> int:
    """Run a script's task with these arguments of its command line; return the exit status."""
    # OpenMP threads that wait sleep: spinning, they cost whole scheduler slices as soon as anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = task.__code__  # type: ignore[attr-defined]
    catalog = Catalog(Path(code.co_filename).resolve().parent / "conf")
    if "--help" in arguments or "-h" in arguments:
        docstring = task.__globals__["__doc__"]  # type: ignore[attr-defined]
        print(help_page(code.co_name, docstring, catalog))
        return 0
    try:
        failures = _run_hydra(task, code.co_name, arguments, catalog)
    except InputError as error:
        failures = [str(error)]
    except KeyboardInterrupt:
        _finish_wandb()
        print("\ninterrupted: the same command goes on from what is finished", file=sys.stderr)
        return INTERRUPTED
    sys.stdout.flush()
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _run_hydra(task: Task, name: str, arguments: Sequence[str], catalog: Catalog) -> list[str]:
    """Run the jobs; return what failed, a line each."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from refusal.callbacks import closing
    from refusal.callbacks.handover import one_line
    from refusal.config.mistakes import checked_overrides, explain, parse_arguments
    from refusal.config.options import register

    parsed = parse_arguments(arguments)
    if not parsed.shell_completion:
        overrides = checked_overrides(parsed.overrides, catalog, name, multirun=parsed.multirun)
        flags = [argument for argument in arguments if argument not in parsed.overrides]
        sys.argv[1:] = [*overrides, *flags]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here as they are
    register()
    main = hydra.main(version_base="1.3", config_path=str(catalog.conf), config_name=name)
    failures: list[str] = []
    with _callback_failures() as swallowed:
        try:
            main(_job(task, catalog))()
        except (HydraException, OmegaConfBaseException) as error:
            failures = [explain(error, catalog, name)]
        except OSError as error:  # of the run's folder; those of a job stay in its outcome
            failures = [f"cannot write {error.filename or 'the folder of the run'}: {error.strerror or error}"]
        except Exception as error:  # noqa: BLE001  reported in full, here and in the last line
            traceback.print_exception(error)
            failures = [one_line(error)]
        return [*failures, *swallowed, *closing.close()]


def _job(task: Task, catalog: Catalog) -> Callable[[Any], object]:
    """Return what Hydra calls with the composed configuration of each job."""

    def job(config: Any) -> object:
        from hydra.core.hydra_config import HydraConfig

        from refusal import pipeline
        from refusal.callbacks import handover
        from refusal.config.options import from_config
        from refusal.config.targets import check_targets

        options = from_config(config)
        check_targets(options, catalog)
        if why := handover.read(Path(HydraConfig.get().runtime.output_dir)).get("stop"):
            raise InputError(why)
        if options.plan:
            print(pipeline.plan(options))
            return None
        return task(options)

    return job


@contextmanager
def _callback_failures() -> Iterator[list[str]]:
    """Collect the exceptions of anyone's callbacks, which Hydra turns into warnings, and show their tracebacks."""
    failures: list[str] = []
    show = warnings.showwarning

    def showwarning(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
        if str(message).startswith("Callback ") and Path(filename).parent.name == "_internal":
            traceback.print_exc()
            failures.append(" ".join(str(message).split()))
        else:
            show(message, category, filename, *rest)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message="Callback .* raised")
        warnings.showwarning = showwarning
        yield failures


def _finish_wandb() -> None:
    """Close the W&B run that an interrupted job leaves open."""
    wandb: Any = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.run.finish(exit_code=INTERRUPTED)
