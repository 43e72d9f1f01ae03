"""What a program that calls a model through a vendor's SDK, or with curl, has to say. Pure."""

from __future__ import annotations

import json

from pool_server.language import gettext as _
from pool_server.web.onboarding.quoting import ps, sh
from pool_server.web.onboarding.steps import Client, Step


def sdks(base: str, key: str, model: str) -> tuple[Client, ...]:
    text = json.dumps
    openai = (
        "from openai import OpenAI\n\n"
        f"client = OpenAI(base_url={text(base + '/v1')}, api_key={text(key)})\n"
        f"answer = client.chat.completions.create(\n    model={text(model)},\n"
        '    messages=[{"role": "user", "content": "say hi"}],\n)\nprint(answer.choices[0].message.content)'
    )
    anthropic = (
        "from anthropic import Anthropic\n\n"
        f"client = Anthropic(base_url={text(base)}, auth_token={text(key)})\n"
        'answer = client.messages.create(\n    model="claude-sonnet-5-5",\n    max_tokens=200,\n'
        '    messages=[{"role": "user", "content": "say hi"}],\n)\nprint(answer.content[0].text)'
    )
    genai = (
        "from google import genai\n\n"
        f"client = genai.Client(api_key={text(key)}, http_options={{{text('base_url')}: {text(base)}}})\n"
        'answer = client.models.generate_content(model="gemini-3.8-flash", contents="say hi")\nprint(answer.text)'
    )
    node_openai, node_anthropic, node_genai = _node(base, key, model)
    return (
        Client("openai-sdk", "OpenAI SDK", (Step("Python:", openai), node_openai), "", False),
        Client("anthropic-sdk", "Anthropic SDK", (Step("Python:", anthropic), node_anthropic), "", False),
        Client("genai-sdk", "Google Gen AI SDK", (Step("Python:", genai), node_genai), "", False),
        Client("curl", "curl", _curl(base, key, model), "", False),
    )


def _node(base: str, key: str, model: str) -> tuple[Step, Step, Step]:
    """The same in JavaScript, each an ES module (`.mjs`)."""
    text, say = json.dumps, "Node:"
    openai = (
        'import OpenAI from "openai";\n\n'
        f"const client = new OpenAI({{ baseURL: {text(base + '/v1')}, apiKey: {text(key)} }});\n"
        f"const answer = await client.chat.completions.create({{\n  model: {text(model)},\n"
        '  messages: [{ role: "user", content: "say hi" }],\n});\nconsole.log(answer.choices[0].message.content);'
    )
    anthropic = (
        'import Anthropic from "@anthropic-ai/sdk";\n\n'
        f"const client = new Anthropic({{ baseURL: {text(base)}, authToken: {text(key)} }});\n"
        'const answer = await client.messages.create({\n  model: "claude-sonnet-5-5",\n  max_tokens: 200,\n'
        '  messages: [{ role: "user", content: "say hi" }],\n});\nconsole.log(answer.content[0].text);'
    )
    genai = (
        'import { GoogleGenAI } from "@google/genai";\n\n'
        f"const client = new GoogleGenAI({{ apiKey: {text(key)}, httpOptions: {{ baseUrl: {text(base)} }} }});\n"
        'const answer = await client.models.generateContent({ model: "gemini-3.8-flash", contents: "say hi" });\n'
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
