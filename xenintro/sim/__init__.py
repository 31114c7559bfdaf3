"""The simulated Xen: scripted guests behind libxc's own symbols, and a judge of their monitors."""

from xenintro.sim.launch import Simulation

__all__ = ["Simulation"]
