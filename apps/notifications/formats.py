"""A message in the form that each kind of destination takes. Pure: from the payload of docs/notifications.md.

Slack: https://docs.slack.dev/messaging/formatting-message-text (mrkdwn; & < > escaped; links as <url|text>).
Teams: an adaptive card in a message, as the Workflows app takes it
(https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using).
Mattermost: Markdown in `text` (https://developers.mattermost.com/integrate/webhooks/incoming/).
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

Payload = Mapping[str, Any]
# Mattermost cuts posts at 16,383 characters and Slack shows at most 40,000; ours stay far below.
TEXT_MAX = 6000


def webhook(payload: Payload) -> bytes:
    """The payload itself; the same bytes at each attempt."""
    return json.dumps(payload, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def plain(payload: Payload) -> str:
    """The text of an e-mail."""
    log = f"\n\nFrom the log:\n\n{_indented(payload['log'])}" if payload.get("log") else ""
    more = f"\n\n{_listed(payload, '- {subject}')}" if payload.get("more") else ""
    return f"{payload['text']}{more}{log}\n\n{payload['url']}\n"


def slack(payload: Payload) -> bytes:
    """A message of an incoming webhook of Slack."""
    return _json({"text": _marked(_slack_escaped, payload, "*{}*", "<{url}|Open in RMPortal>")})


def mattermost(payload: Payload) -> bytes:
    """A message of an incoming webhook of Mattermost."""
    return _json({"text": _marked(_markdown_escaped, payload, "**{}**", "[Open in RMPortal]({url})")})


def teams(payload: Payload) -> bytes:
    """A message for a webhook of Teams' Workflows app."""
    body: list[dict[str, Any]] = [
        _block(_markdown_escaped(payload["subject"]), weight="Bolder", size="Medium"),
        *(_block(_markdown_escaped(line)) for line in payload["text"].splitlines() if line),
        *(_block(f"- {_markdown_escaped(item['subject'])}") for item in payload.get("more", ())),
    ]
    if payload.get("log"):
        body.append(_block(payload["log"][-TEXT_MAX:], fontType="Monospace", isSubtle=True))
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "actions": [{"type": "Action.OpenUrl", "title": "Open in RMPortal", "url": payload["url"]}],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return _json({"type": "message", "attachments": [{"contentType": kind, "content": card}]})


FORMATS: dict[str, Callable[[Payload], bytes]] = {
    "webhook": webhook, "slack": slack, "teams": teams, "mattermost": mattermost,
}  # fmt: skip


def _marked(escaped: Callable[[str], str], payload: Payload, strong: str, link: str) -> str:
    parts = [strong.format(escaped(payload["subject"])), escaped(payload["text"])]
    if payload.get("more"):
        parts.append(_listed(payload, "• {subject}", escaped))
    if payload.get("log"):
        # A fence inside of the log would end ours.
        log = payload["log"][-TEXT_MAX:].replace("```", "'''")
        parts.append(f"```\n{_slack_escaped(log) if escaped is _slack_escaped else log}\n```")
    return "\n".join([*parts, link.format(url=payload["url"])])


def _listed(payload: Payload, line: str, escaped: Callable[[str], str] = str) -> str:
    rows = [line.format(subject=escaped(item["subject"])) for item in payload["more"]]
    left = payload["count"] - 1 - len(rows)
    return "\n".join([*rows, f"and {left} more"] if left > 0 else rows)


def _slack_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown_escaped(text: str) -> str:
    for sign in "\\`*_[]<>#|~":
        text = text.replace(sign, f"\\{sign}")
    # Nobody is to be called by a task's name.
    return text.replace("@", "@\u200b")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _block(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text, "wrap": True, **more}


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode()
