"""The fault rules of OpenAI-compatible vendors, a table a vendor; what they have in common in words of money and quota.

Source: the vendors' documentation of errors and public issue threads. An endpoint that is none of these vendors' own is
read by all of them (`COMPATIBLE`): their codes and sentences do not contradict each other.
"""

from __future__ import annotations

from pool_server.core.enums import FaultKind
from pool_server.providers.evidence.rules import FaultRule, Of, ResetTime

_K = FaultKind
_BEIJING = 8
_LIMITED = (402, 403, 429)

ZAI = (
    FaultRule(_K.QUOTA, Of.ACCOUNT, code=r"1308|1310|131[6-9]|132[01]", reset=ResetTime.DATED, zone_h=_BEIJING),
    FaultRule(_K.PAYMENT, Of.ACCOUNT, code=r"1113|1309"),
    FaultRule(_K.MODEL_UNSUPPORTED, Of.MODEL, code="1311"),
    FaultRule(_K.CAPACITY, Of.MODEL, code="1312"),
    FaultRule(_K.NEEDS_USER, Of.ACCOUNT, code="1313"),
    FaultRule(_K.RATE, Of.MODEL, code="130[2-5]"),
    FaultRule(_K.AUTH, Of.ACCOUNT, status=(401,), code="100[0-4]"),
    FaultRule(_K.REQUEST, code="1211|1261|1301"),
)
KIMI = (
    FaultRule(_K.CLIENT, status=(403,), says="kimi for coding is currently only available"),
    FaultRule(
        _K.QUOTA,
        Of.ACCOUNT,
        status=_LIMITED,
        says=r"you've reached (?:your|kimi)\b.{0,40}usage limit",
        reset=ResetTime.NONE,
    ),
    FaultRule(_K.SUSPENDED, Of.ACCOUNT, status=(403,), says="access terminated"),
    FaultRule(_K.CAPACITY, Of.MODEL, status=(429,), says="the engine is currently overloaded"),
    FaultRule(_K.NOT_FOUND, Of.MODEL, status=(404,), says="not found the model"),
)
MOONSHOT = (
    FaultRule(_K.PAYMENT, Of.ACCOUNT, type="exceeded_current_quota_error"),
    FaultRule(_K.QUOTA, Of.MODEL, status=(429,), says=r"your account .{0,160}\bTPD rate limit", reset=ResetTime.NONE),
    FaultRule(_K.RATE, Of.MODEL, type="rate_limit_reached_error"),
)
MINIMAX = (
    FaultRule(_K.MODEL_UNSUPPORTED, Of.MODEL, says=r"usage limit exceeded, .{0,80}\(0/0 used\)"),
    FaultRule(_K.QUOTA, Of.ACCOUNT, says=r"usage limit exceeded, .{0,120}\(2056\)$", reset=ResetTime.DATED),
    FaultRule(_K.PAYMENT, Of.ACCOUNT, has="base_resp", code="1008"),
    FaultRule(_K.RATE, Of.MODEL, has="base_resp", code="1002"),
    FaultRule(_K.AUTH, Of.ACCOUNT, has="base_resp", code="1004|2049"),
    FaultRule(_K.TRANSIENT, Of.MODEL, has="base_resp", code="1000|1024|1033"),
    FaultRule(_K.REQUEST, has="base_resp"),
)
OPENROUTER = (
    FaultRule(_K.REQUEST, status=(403,), has="metadata.reasons"),
    FaultRule(_K.CAPACITY, Of.MODEL, status=(429,), has="metadata.provider_name", reset="metadata.retry_after_seconds"),
    FaultRule(_K.RATE, Of.MODEL, status=(402,), code="in_flight_budget_exhausted"),
    FaultRule(
        _K.QUOTA,
        Of.MODEL,
        status=(429,),
        says=r"rate limit exceeded: free-models-per-day",
        reset="metadata.headers.X-RateLimit-Reset",
    ),
)
GROQ = (FaultRule(_K.CAPACITY, Of.MODEL, status=(498,)),)
XAI = (
    FaultRule(
        _K.PAYMENT,
        Of.ACCOUNT,
        says=r"your (?:newly created )?team .{0,60}(?:used all available credits|have any credits)",
    ),
)
TOGETHER = (FaultRule(_K.REQUEST, status=(403,), says=r"input token count \+ max_tokens parameter must be less than"),)
DASHSCOPE = (
    FaultRule(_K.PAYMENT, Of.ACCOUNT, name="arrearage"),
    FaultRule(
        _K.QUOTA,
        Of.ACCOUNT,
        status=_LIMITED,
        says=r"(?:hour|week|month) allocated quota exceeded",
        reset=ResetTime.DATED,
        zone_h=_BEIJING,
    ),
    FaultRule(_K.QUOTA, Of.MODEL, code=r"allocationquota\.freetieronly"),
    FaultRule(_K.RATE, Of.MODEL, name=r"limit_requests|limit_burst_rate|limit_tokens|throttling(?:\..*)?"),
    FaultRule(
        _K.MODEL_UNSUPPORTED, Of.MODEL, code=r"model\.accessdenied|accessdenied\.unpurchased|model_not_supported"
    ),
)
ARK = (
    FaultRule(_K.QUOTA, Of.ACCOUNT, code="accountquotaexceeded", reset=ResetTime.DATED, zone_h=_BEIJING),
    FaultRule(_K.PAYMENT, Of.ACCOUNT, code="accountoverdueerror"),
    FaultRule(_K.RATE, Of.MODEL, code=r"ratelimitexceeded(?:\..*)?"),
    FaultRule(_K.CAPACITY, Of.MODEL, code="serveroverloaded"),
)
SILICONFLOW = (FaultRule(_K.PAYMENT, Of.ACCOUNT, status=(403,), code="30001"),)
FIREWORKS = (FaultRule(_K.SUSPENDED, Of.ACCOUNT, status=(412,), says=r".{0,80}\bsuspended\b"),)
BEDROCK = (
    FaultRule(_K.AUTH, Of.ACCOUNT, status=(400, 401, 403), header="x-amzn-errortype: ExpiredToken"),
    FaultRule(_K.CAPACITY, Of.MODEL, header="x-amzn-errortype: ModelNotReady"),
    FaultRule(_K.QUOTA, Of.MODEL, status=(429,), says="too many tokens per day", reset=ResetTime.NONE),
)
LOCAL = (  # llama.cpp while it loads, and what it answers to a picture
    FaultRule(_K.CAPACITY, Of.MODEL, status=(503,), says="loading model"),
    FaultRule(_K.REQUEST, status=(500,), says="image input is not supported"),
)

# Words of money and quota, as they are used everywhere: in the first sentence of an answer that refuses for want of
# either. What stands in quotes does not count, nor does a 400, which may say anything about the request.
MONEY = (
    FaultRule(
        _K.PAYMENT,
        Of.ACCOUNT,
        status=_LIMITED,
        name=r"insufficient[_ ](?:account[_ ])?(?:balance|credits?|funds)|balance_insufficient|payment_required"
        r"|(?:no|not_enough|out_of)_credits?|credit_exhausted|insufficient_user_quota|pre_consume_token_quota_failed",
    ),
    FaultRule(
        _K.PAYMENT,
        Of.ACCOUNT,
        status=_LIMITED,
        says=r"[^.\n]{0,160}(?:\binsufficient (?:account )?(?:balance|credits?|funds)\b"
        r"|\bbalance is (?:insufficient|not enough|too low|negative)\b|\b(?:out of|not enough|no remaining) credits?\b"
        r"|\bused all (?:available|your|of your) credits\b|\bexceeded (?:your )?monthly included credits\b"
        r"|\bplease (?:recharge|top up)\b|\baccount (?:is )?(?:in arrears|overdue)\b|余额不足|额度不足|欠费|请充值)",
    ),
)
QUOTAS = (
    FaultRule(
        _K.QUOTA,
        Of.ACCOUNT,
        status=(403, 429),
        says=r"[^.\n]{0,160}(?:\busage (?:limit|quota) (?:has been )?(?:reached|exceeded|exhausted)\b"
        r"|\b(?:reached|exceeded|exhausted|hit) (?:your |the )?(?:\S{1,20} ){0,3}?usage (?:limit|quota)\b"
        r"|\b(?:hourly|daily|weekly|monthly) (?:usage )?(?:limit|quota) (?:has been )?(?:reached|exceeded|exhausted)\b"
        r"|\b(?:limit|quota) will reset\b|使用上限|限额将在|额度已用)",
        reset=ResetTime.DATED,
    ),
)

VENDORS: dict[str, tuple[FaultRule, ...]] = {
    "zai": ZAI,
    "zhipu": ZAI,
    "kimi": KIMI,
    "moonshot": MOONSHOT,
    "minimax": MINIMAX,
    "openrouter": OPENROUTER,
    "groq": GROQ,
    "xai": XAI,
    "together": TOGETHER,
    "dashscope": DASHSCOPE,
    "ark": ARK,
    "siliconflow": SILICONFLOW,
    "fireworks": FIREWORKS,
    "bedrock": BEDROCK,
    "local": LOCAL,
}
# One request alone is more than a minute's tokens: a smaller one is served, and another account may afford this one.
SIZE = FaultRule(FaultKind.PLAN, status=(413, 429), says=r"request too large for \S")
WORDS = (SIZE, *QUOTAS, *MONEY)
CODED: tuple[FaultRule, ...] = tuple(dict.fromkeys(rule for rules in VENDORS.values() for rule in rules))
COMPATIBLE: tuple[FaultRule, ...] = (*CODED, *WORDS)
