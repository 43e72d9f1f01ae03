"""Telemetry: a trace of each exchange to an OpenTelemetry collector, where the operator wants it; never its content."""

from pool_server.telemetry.service import Telemetry

__all__ = ["Telemetry"]
