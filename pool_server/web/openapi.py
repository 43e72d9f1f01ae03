"""The operator's API as OpenAPI 3.1, made from the table that routes it. Pure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pool_server.core.enums import TokenScope
from pool_server.web.api_shapes import ProblemAnswer

BASE = "/api/v1"
_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"{(\w+)}")
_ERRORS = {
    "400": "What was sent cannot be read, or a value is not allowed",
    "401": "No credential, or one that is not known any more",
    "403": "The token's scopes do not allow this",
    "404": "There is no such thing",
}


class ApiOperation(NamedTuple):
    """One call. `path` is below `BASE`, with {names}; `scope` None: no admin token may, the operator alone. `choices`:
    what a name of the path is one of."""

    method: str
    path: str
    handler: Any
    scope: TokenScope | None
    summary: str
    answer: Any
    body: Any = None
    status: int = 200
    query: tuple[str, ...] = ()
    choices: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - a NamedTuple's default, never changed

    @property
    def pattern(self) -> str:
        """The path as a regular expression with a group for each name."""
        return BASE + _PARAMETER.sub(self._group, self.path.replace(".", r"\."))

    def _group(self, found: re.Match[str]) -> str:
        return f"({'|'.join(self.choices[found[1]])})" if found[1] in self.choices else "([^/]+)"


def document(operations: Sequence[ApiOperation], version: str) -> dict[str, object]:
    """The description of a table of operations."""
    types = [kind for one in operations for kind in (one.answer, one.body) if kind is not None]
    shapes, components = msgspec.json.schema_components([ProblemAnswer, *types], ref_template=_REF)
    told = dict(zip([ProblemAnswer, *types], shapes, strict=True))
    for component in components.values():
        if "description" in component:  # a docstring, which msgspec before 0.23 leaves indented
            component["description"] = inspect.cleandoc(component["description"])
        for described in component.get("properties", {}).values():
            described.pop("propertyNames", None)  # which msgspec before 0.23 leaves out
    paths: dict[str, dict[str, object]] = {}
    for one in operations:
        paths.setdefault(BASE + one.path, {})[one.method.lower()] = _operation(one, told)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pool server",
            "version": version,
            "description": "What the operator's pages do. Errors are JSON: `error` with `code` and `message`.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An admin token with the scope that a call names, or the admin password.",
                }
            },
        },
    }


def _operation(one: ApiOperation, told: Mapping[Any, object]) -> dict[str, object]:
    problem = {"application/json": {"schema": told[ProblemAnswer]}}
    made: dict[str, object] = {
        "operationId": _name(one),
        "summary": one.summary,
        "security": [{"bearer": [one.scope.value] if one.scope is not None else []}],
        "parameters": [*_named(one), *_queried(one)],
        "responses": {
            str(one.status): {"description": "Done", "content": {"application/json": {"schema": told[one.answer]}}},
            **{status: {"description": words, "content": problem} for status, words in _ERRORS.items()},
            "default": {"description": "Another problem", "content": problem},
        },
    }
    if one.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": told[one.body]}}}
    return made


def _named(one: ApiOperation) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "enum": list(one.choices[name])}
            if name in one.choices
            else {"type": "string"},
        }
        for name in _PARAMETER.findall(one.path)
    ]


def _queried(one: ApiOperation) -> list[dict[str, object]]:
    return [{"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in one.query]


def _name(one: ApiOperation) -> str:
    """ "get_accounts_account" and the like, which programs that write clients take for a function's name."""
    words = [one.method.lower(), *re.findall(r"[a-z_]+", one.path)]
    return "_".join(words)
