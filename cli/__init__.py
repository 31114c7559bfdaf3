"""The command line: one file per verb. Installed as the package xenintro_cli."""
