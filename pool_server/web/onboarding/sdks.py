"""What a program that calls a model through a vendor's SDK, or with curl, has to say. Pure."""

from __future__ import annotations

import json

from pool_server.language import gettext as _
from pool_server.web.onboarding.quoting import ps, sh
from pool_server.web.onboarding.steps import Client, Step, Usable, named


def sdks(base: str, key: str, usable: Usable) -> tuple[Client, ...]:
    text, chat, claude, google = json.dumps, usable.chat, usable.messages, usable.gemini
    openai = (
        "from openai import OpenAI\n\n"
        f"client = OpenAI(base_url={text(base + '/v1')}, api_key={text(key)})\n"
        f"answer = client.chat.completions.create(\n    model={text(named(chat))},\n"
        '    messages=[{"role": "user", "content": "say hi"}],\n)\nprint(answer.choices[0].message.content)'
    )
    anthropic = (
        "from anthropic import Anthropic\n\n"
        f"client = Anthropic(base_url={text(base)}, auth_token={text(key)})\n"
        f"answer = client.messages.create(\n    model={text(named(claude))},\n    max_tokens=200,\n"
        '    messages=[{"role": "user", "content": "say hi"}],\n)\nprint(answer.content[0].text)'
    )
    genai = (
        "from google import genai\n\n"
        f"client = genai.Client(api_key={text(key)}, http_options={{{text('base_url')}: {text(base)}}})\n"
        f'answer = client.models.generate_content(model={text(named(google))}, contents="say hi")\nprint(answer.text)'
    )
    nodes = zip((openai, anthropic, genai), _node(base, key, usable), strict=True)
    by_openai, by_anthropic, by_genai = ((Step("Python:", python), node) for python, node in nodes)
    return (
        Client("openai-sdk", "OpenAI SDK", by_openai, "", chat),
        Client("anthropic-sdk", "Anthropic SDK", by_anthropic, "", claude),
        Client("genai-sdk", "Google Gen AI SDK", by_genai, "", google),
        Client("curl", "curl", _curl(base, key, named(chat)), "", chat),
    )


def _node(base: str, key: str, usable: Usable) -> tuple[Step, Step, Step]:
    """The same in JavaScript, each an ES module (`.mjs`)."""
    text, say = json.dumps, "Node:"
    chat, claude, google = (text(named(one)) for one in (usable.chat, usable.messages, usable.gemini))
    openai = (
        'import OpenAI from "openai";\n\n'
        f"const client = new OpenAI({{ baseURL: {text(base + '/v1')}, apiKey: {text(key)} }});\n"
        f"const answer = await client.chat.completions.create({{\n  model: {chat},\n"
        '  messages: [{ role: "user", content: "say hi" }],\n});\nconsole.log(answer.choices[0].message.content);'
    )
    anthropic = (
        'import Anthropic from "@anthropic-ai/sdk";\n\n'
        f"const client = new Anthropic({{ baseURL: {text(base)}, authToken: {text(key)} }});\n"
        f"const answer = await client.messages.create({{\n  model: {claude},\n  max_tokens: 200,\n"
        '  messages: [{ role: "user", content: "say hi" }],\n});\nconsole.log(answer.content[0].text);'
    )
    genai = (
        'import { GoogleGenAI } from "@google/genai";\n\n'
        f"const client = new GoogleGenAI({{ apiKey: {text(key)}, httpOptions: {{ baseUrl: {text(base)} }} }});\n"
        f'const answer = await client.models.generateContent({{ model: {google}, contents: "say hi" }});\n'
        "console.log(answer.text);"
    )
    return Step(say, openai), Step(say, anthropic), Step(say, genai)


def _curl(base: str, key: str, model: str) -> tuple[Step, ...]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "say hi"}]})
    posix = (
        f"curl -sS {sh(base + '/v1/chat/completions')} \\\n  -H {sh('Authorization: Bearer ' + key)} \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d {sh(body)}"
    )
    shell = (
        f"Invoke-RestMethod {ps(base + '/v1/chat/completions')} -Method Post -ContentType 'application/json' `\n"
        f"  -Headers @{{ Authorization = {ps('Bearer ' + key)} }} `\n  -Body {ps(body)}"
    )
    say = _("In a terminal:")
    return Step(say, posix, "posix"), Step(say, shell, "powershell")
