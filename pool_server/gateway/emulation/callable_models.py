"""Which of an account's models a client of some dialects can call there, and whether by translation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from pool_server.accounts import serves_natively, upstream_kind
from pool_server.core.enums import Dialect
from pool_server.dialects import SPECS, ModelInfo, ModelsShape, converses
from pool_server.providers import Credential, family_of, provider_module

# The fields by which an entry names its model, with what stands before the name there.
_NAMES: dict[ModelsShape, dict[str, str]] = {
    ModelsShape.OPENAI: {"id": ""},
    ModelsShape.ANTHROPIC: {"id": "", "display_name": ""},
    ModelsShape.GEMINI: {"name": "models/", "displayName": ""},
    ModelsShape.CODEX: {"slug": "", "display_name": ""},
}


class Asker(msgspec.Struct, frozen=True):
    """What the client of a list speaks, all that is known of it. `strict` leaves out what it could not call: a path's
    prefix leads to the vendor's own list in any case. `translate`: other dialects are translated here."""

    dialects: tuple[Dialect, ...]
    translate: bool
    strict: bool = True


def callable_models(cred: Credential, models: Iterable[ModelInfo], asker: Asker) -> list[ModelInfo]:
    """The account's models that this client can call, each with its family and whether it is translated. Conversations
    alone are translated: a model of speech, vectors … is its own dialect's."""
    media = any(SPECS[dialect].shows_media for dialect in asker.dialects)
    found = []
    for model in models:
        own = cred.own_name(model.id)
        translated = _translated(cred, own, asker)
        if (translated is not None and (not translated or converses(own, media=media))) or not asker.strict:
            family = family_of(model.id) or cred.provider
            found.append(msgspec.structs.replace(model, family=family.value, translated=bool(translated)))
    return found


def _translated(cred: Credential, model: str, asker: Asker) -> bool | None:
    """None where the account cannot serve the model to this client at all."""
    serves = provider_module(cred.provider).serves
    for dialect in asker.dialects:
        native = serves_natively if asker.translate else serves
        if native(cred, SPECS[dialect].asked_with, dialect, model):
            return False
    if asker.translate and any(upstream_kind(cred, SPECS[one].asked_with, one, model) for one in asker.dialects):
        return True
    return None


def once_each(models: Iterable[ModelInfo]) -> list[ModelInfo]:
    """Every model once, where it came first; untranslated if some account serves it so."""
    unique: dict[str, ModelInfo] = {}
    for model in models:
        known = unique.setdefault(model.id, model)
        if known.translated and not model.translated:
            unique[model.id] = msgspec.structs.replace(known, translated=False, family=model.family)
    return list(unique.values())


def with_aliases(models: Iterable[ModelInfo], aliases: Mapping[str, str]) -> list[ModelInfo]:
    """The list as clients call it: an alias stands for the model it leads to, where that is served, and takes the place
    of a model of its own name, which nobody reaches here."""
    if not aliases:
        return list(models)
    served = {model.id: model for model in models}
    found = [model for model in served.values() if model.id not in aliases]
    for name, target in aliases.items():
        if (model := served.get(target)) is not None:
            found.append(msgspec.structs.replace(model, id=name, name=name, entries=_renamed(model.entries, name)))
    return found


def _renamed(entries: Mapping[ModelsShape, msgspec.Raw], name: str) -> dict[ModelsShape, msgspec.Raw]:
    """A vendor's entries under another name; the fields that name a model are its clients' to choose by."""
    renamed = {}
    for shape, raw in entries.items():
        entry = msgspec.json.decode(raw)
        for field, said in _NAMES[shape].items():
            entry[field] = said + name
        renamed[shape] = msgspec.Raw(msgspec.json.encode(entry))
    return renamed
