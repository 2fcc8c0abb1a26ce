"""OpenAPI for routes whose bodies FastAPI does not parse."""

from __future__ import annotations

from typing import Any


def body_of(*required: str) -> dict[str, Any]:
    """A JSON body with these fields; docs/worker-protocol.md has their types."""
    schema = {"type": "object", "required": list(required), "properties": {name: {} for name in required}}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def bytes_of(*query: str) -> dict[str, Any]:
    """A body of plain bytes, and these query parameters."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "content": content}, **query_of(*query)}


def query_of(*names: str) -> dict[str, Any]:
    """Query parameters that must be there."""
    return {
        "parameters": [{"name": name, "in": "query", "required": True, "schema": {"type": "string"}} for name in names]
    }
