"""The rules all vendors share: codes of one meaning everywhere, and the fixed sentences that need no code."""

from __future__ import annotations

from pool_server.core.enums import FaultKind
from pool_server.providers.evidence.rules import FaultRule, Of

_K = FaultKind
_REFUSING = (400, 401, 402, 403)

# A request can be refused by these codes at any status but the ones that are about the account whatever the body says.
_REQUEST_CODES = (
    "context_length_exceeded|cyber_policy|message_too_big|string_above_max_length|invalid_prompt|invalid_value"
    "|unsupported_value|unsupported_parameter|invalid_type|missing_required_parameter|unknown_parameter"
    "|content_policy_violation|content_filter|image_parse_error|invalid_image\\w*|invalid_base64_image|image_\\w+"
    "|unsupported_image_media_type|empty_image_file|failed_to_download_image|bio_policy|input_text_risk_detection"
    "|inputtextriskdetection|data_inspection_failed"
)
_NOT_ABOUT_MONEY = tuple(status for status in range(400, 600) if status not in (401, 402, 429))

SHARED: tuple[FaultRule, ...] = (
    FaultRule(_K.REQUEST, status=_NOT_ABOUT_MONEY, code=_REQUEST_CODES),
    FaultRule(_K.REQUEST, status=_NOT_ABOUT_MONEY, type=_REQUEST_CODES),
    FaultRule(_K.ENCRYPTED_CONTENT, name="invalid_encrypted_content"),
    FaultRule(_K.CONTINUATION, name="previous_response_not_found"),
    FaultRule(_K.OVERLOAD, name="server_is_overloaded|slow_down|overloaded_error"),
    FaultRule(_K.CAPACITY, Of.MODEL, name="engine_overloaded_error|capacity_exceeded"),
    FaultRule(
        _K.AUTH,
        Of.ACCOUNT,
        name="token_invalidated|token_revoked|token_expired|invalid_token|invalid_api_key|incorrect_api_key_error"
        "|invalid_authentication_error",
    ),
    FaultRule(_K.SUSPENDED, Of.ACCOUNT, name="account_deactivated|account_suspended|access_terminated"),
    FaultRule(_K.PAYMENT, Of.ACCOUNT, name="insufficient_quota|billing_not_active|billing_hard_limit_reached"),
    FaultRule(_K.PERMISSION, Of.ACCOUNT, name="unsupported_country_region_territory"),
    FaultRule(_K.NOT_FOUND, Of.MODEL, name="model_not_found|model_decommissioned|deploymentnotfound|modelnotopen"),
    FaultRule(_K.NOT_FOUND, Of.MODEL, name="invalidendpointormodel\\.notfound"),
    FaultRule(_K.CLIENT_GONE, status=(499,)),
    # Sentences.
    FaultRule(
        _K.SUSPENDED,
        Of.ACCOUNT,
        status=_REFUSING,
        says=r"(?:error:\s*)?(?:this|your|the) (?:organization|account|workspace|user|api key|project)"
        r"(?: associated[^.]{0,80})? (?:has been|is|was) (?:\w+ly )?"
        r"(?:disabled|suspended|deactivated|banned|terminated)",
    ),
    # A key that is refused as a bad request is asked about once more, as one that is refused with 401.
    FaultRule(
        _K.AUTH,
        Of.ACCOUNT,
        status=(400, 403),
        says=r"(?:error:\s*|authentication (?:failed|error)[:,.]\s*)?(?:the |your |this )?(?:provided )?"
        r"(?:(?:incorrect|invalid|wrong|expired|revoked|unknown) (?:api|access)[ -]?(?:key|token)\b"
        r"|(?:api|access)[ -]?(?:key|token)(?: you provided| provided)? (?:(?:is|was) )?"
        r"(?:(?:not valid|not found|invalid|incorrect|expired|revoked|disabled|inactive)\b"
        r"|has (?:been (?:revoked|disabled|deleted)|expired)\b))",
    ),
    FaultRule(
        _K.PLAN,
        status=(401, 403),
        says=r"(?:you have )?insufficient permissions for this operation|.{0,40}\bmissing scopes?\b"
        r"|your organization must be verified",
    ),
    # A page of whatever stands before this endpoint: another one may take as much.
    FaultRule(_K.PLAN, status=(413,), header="content-type: ^text/html"),
    # One request is larger than what is left: a smaller one is served, and another account may afford this one.
    FaultRule(
        _K.PLAN,
        status=(402,),
        says=r"this request requires more credits, or fewer max_tokens|prompt tokens limit exceeded",
    ),
    FaultRule(
        _K.MODEL_UNSUPPORTED,
        Of.MODEL,
        status=(400, 403, 404, 422),
        says=r"[^.]{0,120}\bmodel\b.{0,120}\bnot (?:supported|available|included|enabled|allowed)\b.{0,80}"
        r"\b(?:account|plan|tier|subscription|organization|project)\b"
        r"|[^.]{0,120}(?:do(?:es)? not|don't|doesn't) have access to (?:the |this )?(?:model|claude|gpt|gemini|qwen)"
        r"|[^.]{0,120}not available (?:for|on|in) your (?:plan|subscription|tier)",
    ),
    FaultRule(
        _K.ENCRYPTED_CONTENT,
        status=(400, 422),
        # Sealed for another account: OpenAI's, Gemini's and Claude's reasoning. Nothing is cooled for it.
        verbatim=True,
        says=r".{0,400}?(?:encrypted[ _]content.{0,200}(?:could not be|cannot be|failed to)"
        r"|(?:corrupted|invalid|malformed|unknown|expired) `?thought[ _]?signature"
        r"|thought[ _]?signature\S{0,2} (?:is|was) (?:corrupted|invalid|not valid|malformed|expired)"
        r"|invalid `?signature`? in `?(?:redacted_)?thinking`? block)",
    ),
    FaultRule(
        _K.NOT_FOUND, Of.MODEL, status=(404,), says=r"the (?:requested )?model:? '' (?:does not exist|was not found)"
    ),
    FaultRule(_K.NOT_FOUND, Of.MODEL, status=(404,), says=r"model '' not found"),
    FaultRule(_K.REQUEST, status=(404,), says=r"item with id .{1,200} not found"),
)
