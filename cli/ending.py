"""How a command ends: errors become three lines on stderr and the documented exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from xenintro.errors import XenintroError
from xenintro_cli.output import ReaderGoneError, cannot_write
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where help, a list or a summary cannot be written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


#: Made beforehand: little is left when it is needed.
_NO_MEMORY = XenintroError(
    "out of memory",
    why="this process may not have more (ulimit -v, MemoryMax= of a service), or the host has none",
    hint="a policy that keeps what it sees grows for ever: let it forget",
)


def guarded(function: Callable[[], object]) -> int:
    """Call a function; its exit code, 0 if it gave none. Errors are printed, never raised."""
    try:
        code = function()
        sys.stdout.flush()
    except XenintroError as error:
        with suppress(OSError):  # nobody reads stderr: the exit code remains
            show(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 0
    except (ReaderGoneError, BrokenPipeError):
        _discard_the_rest()
        return 0
    except MemoryError:
        with suppress(OSError):
            show(_NO_MEMORY)
        return _NO_MEMORY.exit_code
    except OSError as error:
        with suppress(OSError):
            show(cannot_write(error) if error.errno in _FULL else _bug(error))
        return XenintroError.exit_code
    except Exception as error:
        with suppress(OSError):
            if "--debug" in sys.argv:
                traceback.print_exc()
            else:
                show(_bug(error))
        return XenintroError.exit_code
    return code if isinstance(code, int) else 0


def show(error: XenintroError) -> None:
    """Print an error."""
    style = Style.of(sys.stderr)
    first, *rest = error.lines()
    click.echo(style.alarm("error:") + first.removeprefix("error:"), err=True)
    for line in rest:
        click.echo(line, err=True)


def _bug(error: Exception) -> XenintroError:
    return XenintroError(
        f"unexpected {type(error).__name__}: {error}",
        why="this is a bug in xenintro; if a guest does not run now: xenintro rescue --domid N",
        hint="for the traceback: xenintro --debug ...",
    )


def _discard_the_rest() -> None:
    """What is still buffered for a reader that has gone has nowhere to go."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
