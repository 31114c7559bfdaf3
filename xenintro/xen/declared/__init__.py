"""The calls of each release as cffi keeps them: ``xen_4_17``, made by ``build_declared.py``."""
