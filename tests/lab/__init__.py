"""The lab: a real Xen, a real dom0 and our own guests inside an emulator (see README.md)."""
