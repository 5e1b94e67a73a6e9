"""A collector of OTLP over HTTP: takes what it is sent, decodes it by OTLP's own messages, and keeps it.

In: requests to `/v1/traces` and `/v1/metrics`. Out: `spans` and `metrics` as read. `status` is what it answers;
`rejects` how many spans of each request it says it has not taken.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

KIND = "application/x-protobuf"


@dataclass
class Collector:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    rejects: int = 0
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)
    resource: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        take = (("/v1/traces", self._take_traces), ("/v1/metrics", self._take_metrics))
        self.app = Starlette(routes=[Route(path, one, methods=["POST"]) for path, one in take])

    async def _body(self, request: Request) -> bytes:
        self.asked.append({"path": request.url.path, **request.headers})
        body = gzip.decompress(await request.body())
        self.bodies.append(body)
        return body

    async def _take_traces(self, request: Request) -> Response:
        body = await self._body(request)
        if self.status == 200:
            try:
                read = ExportTraceServiceRequest.FromString(body)
            except DecodeError:
                return Response(status_code=400)
            for resource in read.resource_spans:
                self.resource = {one.key: one.value.string_value for one in resource.resource.attributes}
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        answer = ExportTraceServiceResponse()
        if self.rejects:
            answer.partial_success.rejected_spans = self.rejects
        return Response(answer.SerializeToString(), self.status, self.headers, KIND)

    async def _take_metrics(self, request: Request) -> Response:
        body = await self._body(request)
        if self.status == 200:
            read = ExportMetricsServiceRequest.FromString(body)
            for resource in read.resource_metrics:
                self.metrics |= {one.name: one for scope in resource.scope_metrics for one in scope.metrics}
        return Response(b"", self.status, self.headers, KIND)


def said(span: Span) -> dict[str, Any]:
    """A span's attributes as values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
