"""A process that outlives the one that watches, and gives the domain back if that one ends badly."""

from xenintro.supervise.front import supervised
from xenintro.supervise.link import Link

__all__ = ["Link", "supervised"]
