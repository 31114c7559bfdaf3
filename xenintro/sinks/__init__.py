"""One file per output: what an event looks like to programs and to people."""
