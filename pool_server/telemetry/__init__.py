"""Telemetry: a trace of each exchange to an OpenTelemetry collector, where the operator wants it; never its content.

Nothing is imported here: the log reads the trace context before the folder of shared counters is chosen.
"""
