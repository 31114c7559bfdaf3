"""Layouts and constants of every vm_event and mem_event interface: data, not code."""

from xenintro.abi.constants import (
    BITS,
    CAPABILITIES,
    CTRLREGS,
    DESCRIPTORS,
    MSR_NAMES,
    MSRS,
    Access,
    Flag,
)
from xenintro.abi.interface import (
    ARCHITECTURES,
    INTERFACE_IDS,
    RING_INDICES,
    SLOT0,
    Field,
    Interface,
    interface,
    interface_of_version,
)

__all__ = [
    "ARCHITECTURES",
    "BITS",
    "CAPABILITIES",
    "CTRLREGS",
    "DESCRIPTORS",
    "INTERFACE_IDS",
    "MSRS",
    "MSR_NAMES",
    "RING_INDICES",
    "SLOT0",
    "Access",
    "Field",
    "Flag",
    "Interface",
    "interface",
    "interface_of_version",
]
