"""What a set-up text is made of. Pure."""

from __future__ import annotations

import json
from typing import NamedTuple

from pool_server.dialects import UsableModel
from pool_server.language import gettext as _
from pool_server.web.onboarding.quoting import ps, sh


class Step(NamedTuple):
    """One thing to copy: what to do with it, and the text. `system` is "", "posix" or "powershell"."""

    say: str
    text: str
    system: str = ""


class Usable(NamedTuple):
    """What somebody can be told to ask for in each dialect that some client of the page speaks, by its name."""

    responses: UsableModel = UsableModel()
    messages: UsableModel = UsableModel()
    chat: UsableModel = UsableModel()
    gemini: UsableModel = UsableModel()
    code_assist: UsableModel = UsableModel()


class Client(NamedTuple):
    """A CLI or an SDK. `script` says whether `/setup/TICKET/NAME` exists; `then` is how to
    try it; `usable` is the model its lines name, `chooses`: it asks for one of its own unless it is told."""

    name: str
    label: str
    steps: tuple[Step, ...]
    then: str
    usable: UsableModel
    script: bool = False
    chooses: bool = False


MODEL_PLACE = "YOUR-MODEL"  # stands for a model whose name the pool does not know


def named(usable: UsableModel) -> str:
    """The model as a line names it."""
    return usable.model or MODEL_PLACE


def pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def exports(variables: dict[str, str]) -> tuple[Step, Step]:
    posix = "\n".join(f"export {name}={sh(value)}" for name, value in variables.items())
    shell = "\n".join(f"$env:{name} = {ps(value)}" for name, value in variables.items())
    say = _("For this terminal only:")
    return Step(say, posix, "posix"), Step(say, shell, "powershell")
