"""Traces and metrics on their way to a collector: OTLP over HTTP, in protobuf."""
