"""Captures: pcapng files of requests with their responses; written, read, replayed."""

from xenintro.capture.info import CaptureInfo
from xenintro.capture.reader import Capture
from xenintro.capture.records import CapturedPage, CaptureTotals, RecordedRule
from xenintro.capture.writer import CaptureWriter

__all__ = [
    "Capture",
    "CaptureInfo",
    "CaptureTotals",
    "CaptureWriter",
    "CapturedPage",
    "RecordedRule",
]
