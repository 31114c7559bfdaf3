"""What Linux offers a process about its relatives (prctl(2)), and against the out-of-memory killer."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from xenintro.xen.ring import lib

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_log = logging.getLogger(__name__)


def die_with(parent: int, number: int) -> None:
    """Send this process a signal when its parent ends, however that ends, or if it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def oom_score() -> int:
    """How readily the kernel ends this process when memory runs out: -1000 (never) to 1000."""
    return int(_OOM_SCORE.read_text(encoding="ascii"))


def set_oom_score(score: int) -> None:
    """Set it; less than before needs root."""
    try:
        _OOM_SCORE.write_text(str(score), encoding="ascii")
    except OSError as error:
        _log.debug("the out-of-memory score stays: %s", error)


def _prctl(option: int, value: int) -> None:
    lib.prctl(option, value, 0, 0, 0)
