"""What a translation keeps: exact, approximated or refused, for each feature and upstream.

The one table: requests are judged by it, and `docs/conformance.md` is written from it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pool_server.core.enums import Dialect
from pool_server.dialects.translation.neutral import MOST_NAMES, NeutralRequest, UpstreamKind

_LONGEST_NAME = 64  # of a field that is left out


class Verdict(StrEnum):
    EXACT = "exact"
    APPROXIMATED = "approximated"
    DROPPED = "dropped"  # approximated by leaving the field out; its name is told to the client
    ALONE = "alone"  # refused where it is all the request offers, left out beside function tools
    REFUSED = "refused"


class Feature(StrEnum):
    """What a request may ask for. The value is what records and docs say."""

    TURNS = "text, turns, system"
    DEVELOPER = "developer role"
    LATE_SYSTEM = "system in mid-conversation"
    PREFILL = "assistant text last (prefill)"
    IMAGE = "inline picture"
    IMAGE_URL = "picture by address"
    DETAIL = "detail of a picture"
    DOCUMENT = "inline PDF"
    DOCUMENT_URL = "document by address"
    TITLE = "name of a document"
    SAID_MEDIA = "picture, sound or document in the assistant's turn"
    SYSTEM_MEDIA = "picture, sound or document in the system text"
    AUDIO = "audio in"
    VIDEO = "video in"
    VENDOR_FILE = "a file id of another vendor"
    TOOLS = "function tools, calls, results"
    STRICT = "strict tools"
    ODD_NAMES = "tool names over 64 characters, names and ids the vendor refuses"
    FAILED_RESULT = "failed result (is_error)"
    RESULT_MEDIA = "picture in a result"
    ORPHAN_RESULT = "result without call"
    OPEN_CALL = "call without result"
    BROKEN_ARGUMENTS = "arguments in the history that are no JSON object"
    CHOICE = "tool choice: auto, none, required, one"
    SUBSET = "a subset of tools"
    SERIAL = "parallel calls off"
    CUSTOM_TOOLS = "free-text (custom) tools"
    NAMESPACES = "tool namespaces"
    WEB_SEARCH = "web search"
    SEARCH_DOMAINS = "domains of a web search"
    SEARCH_PLACE = "place of a web search"
    SEARCH_MOST = "how many web searches at most"
    SERVER_TOOLS = "other server tools (code, files, computer)"
    SERVER_HISTORY = "the vendor's own searches in the history"
    COMPACTION = "a compaction of the conversation"
    COMPACTED = "a conversation that another vendor compacted"
    MAX_OUTPUT = "output limit"
    SAMPLING = "temperature, top_p"
    TOP_K = "top_k"
    STOP = "stop strings"
    RANDOM = "seed, penalties"
    CHOICES = "more than one choice"
    LOGPROBS = "log probabilities"
    SOUND_OUT = "sound out"
    SPEAKERS = "sound out in several voices"
    PICTURES_OUT = "pictures out"
    SCHEMA = "JSON schema"
    SCHEMA_ROOT = "JSON schema whose root is no plain object"
    SCHEMA_NAME = "name and description of a JSON schema"
    JSON = "JSON without schema"
    EFFORT = "reasoning effort, budget"
    OWN_REASONING = "reasoning of the same vendor, replayed"
    OTHER_REASONING = "reasoning of another vendor, replayed"
    CACHE = "prompt cache"
    SESSION = "the client's name of the conversation"
    CACHED_CONTENT = "content cached at the vendor"
    TIER = "service tier"
    VERBOSITY = "verbosity"
    STATE = "previous_response_id, conversation, background, stored prompts"
    UNKNOWN_CONTENT = "unknown role, content part, tool type"
    UNKNOWN_FIELD = "unknown field at the top"
    UNKNOWN_INSIDE = "unknown field within another"
    COUNT = "counting tokens"


class Rule(msgspec.Struct, frozen=True):
    verdict: Verdict
    how: str = ""


_E = Rule(Verdict.EXACT)


def _about(how: str) -> Rule:
    return Rule(Verdict.APPROXIMATED, how)


def _out(how: str = "left out") -> Rule:
    return Rule(Verdict.DROPPED, how)


def _no(how: str) -> Rule:
    return Rule(Verdict.REFUSED, how)


def _row(*rules: Rule) -> dict[UpstreamKind, Rule]:
    """Rules in the order of `UpstreamKind`; Code Assist's is Gemini's where it has none of its own."""
    return dict(zip(UpstreamKind, rules if len(rules) == 6 else (*rules, rules[-1]), strict=True))


def _all(rule: Rule) -> dict[UpstreamKind, Rule]:
    return dict.fromkeys(UpstreamKind, rule)


_LEFT = _about("left out")
_HASH = _about("a hash of it")
_HISTORY = _about("plain history")
_SYSTEM = _about("joins the system text")
_FUNCTION = _about("a function of one text")
_POOL_ENDS = _about("the pool ends the text")
_ONE_CHOICE = _no("a translated answer of this account has one choice")
_NOT_ASKED = _no("no such client asks for it")
_NO_LOGPROBS = _no("a translated answer of this account has no log probabilities")
_TEXT_ONLY = _no("a translated answer of this account is text and tool calls")
_NO_TOOL = Rule(Verdict.ALONE, "the account's vendor has no such tool")
_NO_STATE = "only the vendor that keeps it can know it; send the whole conversation"
_NO_FILE = "a file kept at one vendor cannot be read by another; send its content"

RULES: dict[Feature, dict[UpstreamKind, Rule]] = {
    Feature.TURNS: _row(_E, _E, _E, _about("turns of one role are merged"), _E),
    Feature.DEVELOPER: _row(_E, _E, _about("as system"), _about("as system"), _about("as system")),
    Feature.LATE_SYSTEM: _row(_E, _E, _E, _SYSTEM, _SYSTEM),
    Feature.PREFILL: _row(_HISTORY, _HISTORY, _HISTORY, _E, _about("left out")),
    Feature.IMAGE: _all(_E),
    Feature.IMAGE_URL: _row(
        _E, _E, _E, _E, _about("the vendor fetches it"), _no("this account takes no picture by address; send it inline")
    ),
    Feature.DETAIL: _row(_E, _E, _E, _LEFT, _LEFT),
    Feature.DOCUMENT: _all(_E),
    Feature.DOCUMENT_URL: _row(
        _E,
        _E,
        _no("Chat takes no document by address; send it inline"),
        _E,
        _about("the vendor fetches it"),
        _no("this account takes no document by address; send it inline"),
    ),
    Feature.TITLE: _row(_E, _E, _E, _E, _LEFT),
    Feature.SAID_MEDIA: _row(*[_about("in the next user turn")] * 4, _E),
    Feature.SYSTEM_MEDIA: _all(_about("in the next user turn")),
    Feature.AUDIO: _row(
        _no("this model takes no audio"), _no("Responses takes no audio"), _E, _no("Claude takes no audio"), _E
    ),
    Feature.VIDEO: _row(*[_no("the account's vendor takes no video")] * 4, _E),
    Feature.VENDOR_FILE: _all(_no(_NO_FILE)),
    Feature.TOOLS: _all(_E),
    Feature.STRICT: _row(_E, _E, _E, _about("where model and schema allow it"), _LEFT),
    Feature.ODD_NAMES: _all(_about("shortened or replaced, restored in the answer")),
    Feature.FAILED_RESULT: _row(*[_about("said in its text")] * 3, _E, _E),
    Feature.RESULT_MEDIA: _row(_E, _E, _about("in the next user turn"), _E, _about("beside the result")),
    Feature.ORPHAN_RESULT: _all(_about("left out")),
    Feature.OPEN_CALL: _all(_about("a stand-in result")),
    Feature.BROKEN_ARGUMENTS: _row(_E, _E, _E, *[_about("wrapped in an object")] * 2),
    Feature.CHOICE: _all(_E),
    Feature.SUBSET: _row(_E, _E, _about("the others are left out"), _about("the others are left out"), _E),
    Feature.SERIAL: _row(_E, _E, _E, _E, _out("no such field")),
    Feature.CUSTOM_TOOLS: _row(_E, _E, _FUNCTION, _FUNCTION, _FUNCTION),
    Feature.NAMESPACES: _all(_about("flattened: namespace__tool")),
    Feature.WEB_SEARCH: _row(
        _about("the vendor's own"), _about("the vendor's own"), _NO_TOOL, *[_about("the vendor's own")] * 2
    ),
    Feature.SEARCH_DOMAINS: _row(
        *[_about("allowed domains only")] * 2, _about("left out"), _E, _about("no domain filter")
    ),
    Feature.SEARCH_PLACE: _row(_E, _E, _LEFT, _E, _LEFT),
    Feature.SEARCH_MOST: _row(_LEFT, _LEFT, _LEFT, _E, _LEFT),
    Feature.SERVER_TOOLS: _all(_NO_TOOL),
    Feature.SERVER_HISTORY: _all(_about("left out, the text stays")),
    Feature.COMPACTION: _all(_about("a summary the pool asks for, readable by every model here")),
    Feature.COMPACTED: _all(_about("the model is told that it cannot be read")),
    Feature.MAX_OUTPUT: _row(_out("the backend refuses it"), _E, _E, _E, _E),
    Feature.SAMPLING: _row(
        _out("the backend refuses it"),
        _E,
        _E,
        _about("temperature at most 1; left out with thinking and newer models"),
        _E,
    ),
    Feature.TOP_K: _row(_out(), _out(), _out(), _about("left out with thinking and newer models"), _E),
    Feature.STOP: _row(_POOL_ENDS, _POOL_ENDS, _E, _E, _E),
    Feature.RANDOM: _row(_out(), _out(), _E, _out(), _E),
    Feature.CHOICES: _row(_ONE_CHOICE, _ONE_CHOICE, _E, _ONE_CHOICE, _ONE_CHOICE),
    Feature.LOGPROBS: _row(_NO_LOGPROBS, _NO_LOGPROBS, _E, _NO_LOGPROBS, _NO_LOGPROBS),
    Feature.SOUND_OUT: _row(_TEXT_ONLY, _TEXT_ONLY, _about("in a voice the endpoint has"), _TEXT_ONLY, _TEXT_ONLY),
    Feature.SPEAKERS: _all(_no("a translated answer has one voice")),
    Feature.PICTURES_OUT: _row(_TEXT_ONLY, _TEXT_ONLY, _E, _TEXT_ONLY, _TEXT_ONLY),
    Feature.SCHEMA: _row(_E, _E, _E, _about("objects closed; in words for models without structured output"), _E),
    Feature.SCHEMA_ROOT: _all(_about("references followed, alternatives merged into one object")),
    Feature.SCHEMA_NAME: _row(_E, _E, _E, _LEFT, _LEFT),
    Feature.JSON: _row(_E, _E, _E, _about("asked for in words"), _E),
    Feature.EFFORT: _row(
        *[_about("by level, at most the model's")] * 3,
        _about("a budget or adaptive thinking, by model"),
        _about("a budget or a level, by model"),
    ),
    Feature.OWN_REASONING: _row(_E, _E, _about("as text"), _E, _about("its signature, else the documented stand-in")),
    Feature.OTHER_REASONING: _all(_about("left out")),
    Feature.CACHE: _row(
        *[_about("session as prompt_cache_key")] * 2,
        _about("implicit"),
        _about("marks on tools, system and the last turn"),
        _about("implicit"),
    ),
    Feature.SESSION: _row(_HASH, _HASH, _LEFT, _HASH, _LEFT, _HASH),
    Feature.CACHED_CONTENT: _all(_no("content cached at one vendor cannot be read by another; send it whole")),
    Feature.TIER: _row(_about("fast and priority only"), _E, _E, _about("auto and standard_only only"), _out()),
    Feature.VERBOSITY: _row(_E, _E, _E, _out(), _out()),
    Feature.STATE: _all(_no(_NO_STATE)),
    Feature.UNKNOWN_CONTENT: _all(_no("not known here, so it cannot be translated")),
    Feature.UNKNOWN_FIELD: _all(_out("left out, named")),
    Feature.UNKNOWN_INSIDE: _all(_about("left out, named in the record")),
    Feature.COUNT: _row(_about("an estimate"), _E, _about("an estimate"), _E, _E),
}

# Where a vendor's own endpoint differs from the column of its dialect. Groq: console.groq.com/docs/openai; Mistral
# refuses fields its API does not list.
VENDORS: dict[tuple[str, UpstreamKind], dict[Feature, Rule]] = {
    ("openai", UpstreamKind.CHAT): {
        Feature.SUBSET: _E,
        Feature.PICTURES_OUT: _no("OpenAI's Chat answers without pictures"),
    },
    ("groq", UpstreamKind.CHAT): {
        Feature.CHOICES: _no("Groq answers with one choice"),
        Feature.LOGPROBS: _no("Groq tells no log probabilities"),
        Feature.SOUND_OUT: _no("Groq's Chat answers without sound"),
        Feature.PICTURES_OUT: _no("Groq's Chat answers without pictures"),
    },
    ("mistral", UpstreamKind.CHAT): {
        Feature.LOGPROBS: _no("Mistral tells no log probabilities"),
        Feature.SOUND_OUT: _no("Mistral's Chat answers without sound"),
        Feature.PICTURES_OUT: _no("Mistral's Chat answers without pictures"),
    },
}

# Citations, runs of the vendor's own tools, parts and reasons to stop that nobody here knows.
UNTOLD = "what only this vendor's answers hold (searches, citations, files)"

# What this one endpoint or model takes otherwise than others of its dialect, as its refusals tell.
DEMANDED = "demanded by this endpoint"

# What an answer can be told as, by the client's dialect: (chat, responses, messages, gemini).
ANSWERS: dict[str, tuple[Rule, Rule, Rule, Rule]] = {
    "text, function calls, their order": (_E, _E, _E, _E),
    "streamed, whichever way the upstream answers": (_E, _E, _E, _about("calls arrive whole")),
    "reasoning text": (_about("reasoning_content"), _E, _E, _E),
    "its signature or encryption": (_about("lost"), _E, _E, _E),
    "stop string met": (_about("stop"), _about("completed"), _E, _about("STOP")),
    "cut by length, context full": (_E, _E, _E, _E),
    "filter, blocked prompt": (_E, _E, _about("refusal"), _about("SAFETY")),
    "a refusal in words": (_E, _E, _about("text and stop_reason refusal"), _about("text and SAFETY")),
    "usage: input, cache read, output, reasoning": (_E, _E, _E, _E),
    "cache write": (_E, _E, _E, _about("in the prompt's count")),
    "more than one choice": (_NOT_ASKED, _NOT_ASKED, _NOT_ASKED, _E),
    "log probabilities": (
        _no("no account of another dialect has them"),
        _E,
        _NOT_ASKED,
        _about("without bytes and token ids"),
    ),
    "sound and pictures": (*(_about("left out, named in the record"),) * 3, _E),
    UNTOLD: (_about("left out, named in the record"),) * 4,
    "arguments that are no JSON": (_E, _E, _about("error"), _about("error")),
    "error before the first event": (_E, _E, _E, _E),
    "error after it, upstream breaks off": (_E, _E, _E, _about("error, connection broken")),
}


class TranslationError(Exception):
    """A request cannot be told in the account's dialect. `field` is the client's own name for it, `why` the reason."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


class Notes(msgspec.Struct):
    """What became of a request on its way: fields left out, and features told otherwise than they were asked.

    The client chose the names of its fields: the first few are kept, each so that a header may hold it.
    """

    dropped: list[str] = []
    approximated: dict[str, str] = {}
    _further: int = 0

    def drop(self, field: str) -> None:
        name = _plain(field)
        if name in self.dropped:
            return
        if len(self.dropped) < MOST_NAMES:
            self.dropped.append(name)
        else:
            self._further += 1

    def names(self) -> list[str]:
        """What was left out, and how many more there were."""
        return [*self.dropped, f"{self._further} more"] if self._further else self.dropped

    def about(self, feature: Feature, how: str) -> None:
        self.approximated[feature.value] = how


def _plain(name: str) -> str:
    """A field's name as printable ASCII without commas, cut where it is long."""
    plain = name[: _LONGEST_NAME + 1]
    if not (plain.isascii() and plain.isprintable()):
        plain = plain.encode("unicode_escape").decode("ascii")
    plain = plain.replace(",", "\\x2c")
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[:_LONGEST_NAME]}..."


def rule_for(feature: Feature, upstream: UpstreamKind, vendor: str = "") -> Rule:
    return VENDORS.get((vendor, upstream), {}).get(feature) or RULES[feature][upstream]


def judge(request: NeutralRequest, upstream: UpstreamKind, vendor: str = "") -> Notes:
    """Hold a request's features against the table. Raises TranslationError for the first that is refused."""
    notes = Notes()
    for name, fields in request.asks.items():
        feature = Feature(name)
        rule = rule_for(feature, upstream, vendor)
        if rule.verdict is Verdict.REFUSED or (rule.verdict is Verdict.ALONE and not request.tools):
            raise TranslationError(fields[0], rule.how)
        if rule.verdict in (Verdict.DROPPED, Verdict.ALONE):
            for field in fields:
                notes.drop(field)
        if rule.verdict is not Verdict.EXACT:
            notes.about(feature, rule.how)
    for field in request.unknown:
        notes.drop(field)
    if request.inside:
        names = [_plain(field) for field in request.inside]
        names += [f"{request.inside_further} more"] if request.inside_further else []
        notes.about(Feature.UNKNOWN_INSIDE, f"left out: {', '.join(names)}")
    return notes


def _cell(rule: Rule) -> str:
    signs = {Verdict.EXACT: "=", Verdict.REFUSED: "✗", Verdict.ALONE: "✗ alone, else left out"}
    if rule.verdict is Verdict.ALONE:
        return signs[rule.verdict]
    return f"{signs.get(rule.verdict, '≈')} {rule.how}".strip()


def conformance() -> str:
    """The page `docs/conformance.md`."""
    heads = ("Codex", "Responses", "Chat", "Claude", "Gemini", "Code Assist")
    lines = [*_HEAD, "| from any other dialect | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for feature, rules in RULES.items():
        lines.append(f"| {feature.value} | " + " | ".join(_cell(rules[upstream]) for upstream in UpstreamKind) + " |")
    lines += ["", "## Vendors whose own endpoint differs", "", "| vendor | account | feature | |", "|---|---|---|---|"]
    for (vendor, upstream), differs in VENDORS.items():
        head = heads[list(UpstreamKind).index(upstream)]
        lines += [f"| {vendor} | {head} | {feature.value} | {_cell(rule)} |" for feature, rule in differs.items()]
    clients = ("Chat client", "Responses client", "Claude client", "Gemini client")
    lines += ["", "## Answers: what the client's side can be told", ""]
    lines += ["| from any upstream | " + " | ".join(clients) + " |", "|---" * (len(clients) + 1) + "|"]
    for name, told in ANSWERS.items():
        lines.append(f"| {name} | " + " | ".join(_cell(rule) for rule in told) + " |")
    return "\n".join(lines) + "\n"


_HEAD = [
    "# What translation keeps",
    "",
    "Written by `scripts/conformance`; a test holds it in step with the code.",
    "",
    "Any client dialect works on any account. The same dialect on both sides is never translated: bytes pass",
    "untouched. Across dialects each feature is exact (=), approximated (≈, how is said) or refused (✗: a 400 in the",
    "client's dialect that names the field; nothing is sent). What is left out is named in `X-Pool-Dropped`.",
    "An endpoint that refuses a field or insists on a form (Mistral's call ids, DeepSeek's reasoning) is asked again",
    "as it demands; the record says what had to change under *demanded by this endpoint*.",
    "Chat is any OpenAI-compatible endpoint, Codex the ChatGPT backend. Clients: "
    + ", ".join(d.value for d in Dialect)
    + ".",
    "",
    "## Requests: what the account's side can take",
    "",
]
