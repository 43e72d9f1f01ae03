"""What a client is told of a call nobody serves: in its own shape, with the base URL it should have used. Pure."""

from __future__ import annotations

from pool_server.core.enums import Dialect, ErrorKind, Provider
from pool_server.core.models import ClientError
from pool_server.dialects import SPECS

_SHOWN = 200  # characters of a path


def not_served(method: str, path: str, dialect: Dialect, forced: Provider | None, origin: str) -> ClientError:
    """`origin` is the pool's address as the client sees it, `forced` the provider prefix of the path."""
    shown = "".join(c for c in path[:_SHOWN] if c.isprintable())
    base, client = base_url(path, dialect, forced, origin)
    why = "."
    if "/publishers/" in path or path.startswith("/model/"):
        why = ": it speaks the vendors' own APIs, not Vertex AI's or Bedrock's. Switch that mode of the client off."
    message = f"The pool does not serve {method} {shown}{why} The base URL of {client} is {base} here."
    return ClientError(ErrorKind.NOT_FOUND, message, 404)


def no_such_model(model: str) -> ClientError:
    """A model that is not in the list this client gets."""
    shown = "".join(c for c in model[:_SHOWN] if c.isprintable())
    return ClientError(
        ErrorKind.NOT_FOUND,
        f"No account here serves '{shown}'; /v1/models lists what does.",
        404,
        code="model_not_found",
    )


def base_url(path: str, dialect: Dialect, forced: Provider | None, origin: str) -> tuple[str, str]:
    """The base URL for the client that asked for `path`, and what kind of client that is."""
    if forced is not None:
        origin = f"{origin}/{forced.value}"
    if path.startswith(("/backend-api", "/api/codex", "/ps/")):
        return f"{origin}/backend-api/codex", "Codex"
    spec = SPECS[dialect]
    return (origin if spec.fixed_base else f"{origin}/v1"), spec.client
