"""Tells people: a JSON webhook, tried again when it fails; an e-mail by SMTP and chats through Apprise, from threads.

Nothing here can delay or fail a request. What cannot be delivered is logged without address or password.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import smtplib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from email.message import EmailMessage

import msgspec

from pool_server.alerts.rules import AlertEvent
from pool_server.core.models import HttpRequest, Send
from pool_server.core.origins import origins
from pool_server.core.settings import Alerts

log = logging.getLogger(__name__)

RETRY_AFTER_S = (1.0, 5.0, 30.0, 120.0)  # waits between tries
TIMEOUT_S = 10.0
_HOPELESS = frozenset({400, 401, 403, 404, 405, 410, 413, 422})

Sleep = Callable[[float], Awaitable[None]]


async def deliver(events: Sequence[AlertEvent], settings: Alerts, send: Send, *, sleep: Sleep = asyncio.sleep) -> bool:
    """Tell all events by every way that is set up. True when everything arrived."""
    if not events:
        return True
    ways = [webhook(event, settings.webhook_url, send, sleep=sleep) for event in events if settings.webhook_url]
    if settings.smtp_host and settings.mail_to:
        ways.append(asyncio.to_thread(mail, events, settings))
    if settings.chat_urls:
        ways.append(asyncio.to_thread(chat, events, settings))
    return all(await asyncio.gather(*ways))


async def webhook(event: AlertEvent, url: str, send: Send, *, sleep: Sleep = asyncio.sleep) -> bool:
    """Post one event as JSON; a failing network, 429 and 5xx are tried again. True when it was taken."""
    request = HttpRequest(
        "POST", url, (("Content-Type", "application/json"), ("User-Agent", "pool-server")),
        msgspec.json.encode(event.payload()), timeout_s=TIMEOUT_S, egress=origins(url),
    )  # fmt: skip
    status = 0
    for wait in (*RETRY_AFTER_S, None):
        status = (await send(request)).status
        if 200 <= status < 300:
            return True
        if status in _HOPELESS or wait is None:
            break
        await sleep(wait)
    log.warning("the alert webhook did not take %s (status %d)", event.incident.key, status)
    return False


def mail(events: Sequence[AlertEvent], settings: Alerts) -> bool:
    """One message about all events to the operator. Blocks: for a thread. True when the mail server took it."""
    return send_mail(settings.mail_to, _subject(events), _text(events), settings)


def send_mail(to: Sequence[str], subject: str, body: str, settings: Alerts) -> bool:
    """One message by the operator's mail server. Blocks: for a thread. True when the server took it."""
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = settings.mail_from or settings.smtp_user
    message["To"] = ", ".join(to)
    message.set_content(body + "\n")
    try:
        with smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=TIMEOUT_S) as server:
            if settings.smtp_tls:
                server.starttls(context=ssl.create_default_context())
            if settings.smtp_user:
                server.login(settings.smtp_user, settings.smtp_password)
            server.send_message(message)
    except (OSError, smtplib.SMTPException, ValueError) as exc:
        log.warning("an alert mail could not be sent: %s", type(exc).__name__)
        return False
    return True


def chat(events: Sequence[AlertEvent], settings: Alerts) -> bool:
    """One message about all events to every chat of the operator. Blocks: for a thread. True when each took it."""
    return send_chat(settings.chat_urls, _subject(events), _text(events))


def send_chat(urls: Sequence[str], subject: str, body: str) -> bool:
    """One message to chats, by Apprise. Blocks: for a thread. True when each took it."""
    try:
        apprise = importlib.import_module("apprise")
    except ImportError:
        log.warning('alerts.chat_urls needs Apprise: pip install "pool-server[chats]"')
        return False
    for theirs in ("apprise", "urllib3"):
        logging.getLogger(theirs).setLevel(logging.CRITICAL)  # they would write addresses, which hold tokens
    failed = 0
    for url in urls:
        told = apprise.Apprise()
        try:
            taken = told.add(url) and told.notify(title=subject, body=body, body_format="text")
        except Exception:
            taken = False  # of a service's own code, whose words may hold the address
        failed += not taken
    if failed:
        log.warning("%d of %d chats did not take an alert", failed, len(urls))
    return not failed


def _subject(events: Sequence[AlertEvent]) -> str:
    ended = sum(event.over for event in events)
    return f"pool-server: {len(events) - ended} new, {ended} resolved"


def _text(events: Sequence[AlertEvent]) -> str:
    """A line an event."""
    return "\n".join(("Resolved: " if event.over else "New: ") + event.incident.text for event in events)
