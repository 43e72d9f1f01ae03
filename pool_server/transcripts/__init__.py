"""Transcripts: what a person's programs sent and were sent, kept for that person where operator and person want it."""

from pool_server.transcripts.capture import CaptureHead, CaptureSink, ExchangeCapture, HeldFile
from pool_server.transcripts.service import Transcripts

__all__ = ["CaptureHead", "CaptureSink", "ExchangeCapture", "HeldFile", "Transcripts"]
