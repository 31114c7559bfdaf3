"""Captures: pcapng files of requests with their responses; written, read, replayed."""
