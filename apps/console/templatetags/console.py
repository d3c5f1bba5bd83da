"""Small pieces that every page is made of: times that run, states, icons, bars, events."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from apps.jobs.budgets import WARNINGS, Use
from apps.notifications.messages import KIND_WORDS
from apps.notifications.models import Kind
from apps.quotas.queries import QuotaCell
from engine.reasons import TITLES, Reason

from .. import words
from ..pages import PAGING
from ..words import amount, bytes_, compact, duration, fraction, relative, sentence

register = template.Library()
for function in (
    words.amount,
    words.cards,
    words.compact,
    words.cores,
    words.duration,
    words.hours,
    words.hundredths,
    words.initials,
    words.listed,
    words.per,
    words.pretty,
    words.price,
    words.quantity,
    words.query_tags,
    words.sentence,
    words.unit,
    words.words,
):
    register.filter(function.__name__, function)
register.filter("bytes", words.bytes_)

SPRITE = "vendor/lucide-static-1.62.0/icons.svg"
# From this fraction on more of it hurts, and from this one on it is nearly gone (memory, not cpu or allocation:
# there, full is what one wants). In step with `static/js/behaviors/telemetry.js`.
WARN, FULL = 0.85, 0.95
# The tone of a budget's bar by the warning that it has reached.
TONES = {95: "full", 80: "warn", 0: "accent"}


@register.simple_tag
def ago(moment: datetime | None, missing: str = "–") -> SafeString | str:
    """A time relative to now that stays true while the page is open."""
    if moment is None:
        return missing
    return format_html(
        '<time datetime="{}" title="{}" data-behavior="ago">{}</time>',
        moment.isoformat(),
        moment.strftime("%Y-%m-%d %H:%M:%S UTC"),
        relative(moment, timezone.now()),
    )


@register.simple_tag
def took(start: datetime | None, end: datetime | None, missing: str = "–") -> SafeString | str:
    """How long it took; a duration that runs on when it has not ended."""
    if start is None:
        return missing
    if end is not None:
        return duration(max(0.0, (end - start).total_seconds()))
    return format_html(
        '<time datetime="{}" data-behavior="ago" data-count class="num">{}</time>',
        start.isoformat(),
        duration(max(0.0, (timezone.now() - start).total_seconds())),
    )


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """An icon of the sprite, silent for screen readers: the text beside it says what it means."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true"><use href="{}#{}"></use></svg>', extra, static(SPRITE), name
    )


@register.simple_tag
def status(state: str, label: str = "", pill: bool = False) -> SafeString:
    """A state as a coloured dot and its word."""
    return format_html(
        '<span class="status{}" data-state="{}">{}</span>',
        " status--pill" if pill else "",
        state,
        label or sentence(state),
    )


@register.simple_tag
def dot(state: str) -> SafeString:
    """A state's dot alone, for lists whose text says the state."""
    return format_html('<span class="dot" data-state="{}"></span>', state)


@register.simple_tag
def bar(
    value: float | None, most: float | None, tone: str = "", size: str = "", label: str = "", metric: str = ""
) -> SafeString:
    """A bar of value / most. The tone `pressure` warns from 85 % and is red from 95 %."""
    part = fraction(value, most)
    if tone == "pressure":
        tone = "full" if part >= FULL else "warn" if part >= WARN else "running"
    return format_html(
        '<svg class="bar{}" role="img" aria-label="{}"{}><rect width="{}%"{}></rect></svg>',
        f" bar--{size}" if size else "",
        label or f"{part * 100:.0f} %",
        format_html(' data-metric="{}"', metric) if metric else "",
        f"{part * 100:.1f}",
        format_html(' class="is-{}"', tone) if tone else "",
    )


@register.simple_tag
def parts_bar(total: int, size: str = "", **counts: int) -> SafeString:
    """A bar of several parts, each named by its tone (`ok=3 running=1 failed=0`)."""
    position, rects = 0.0, SafeString("")
    for tone, count in counts.items():
        width = fraction(count, total) * 100
        if width:
            rects += format_html(
                '<rect x="{}%" width="{}%" class="is-{}"></rect>', f"{position:.2f}", f"{width:.2f}", tone
            )
        position += width
    spoken = ", ".join(f"{count} {tone}" for tone, count in counts.items() if count) or "nothing yet"
    return format_html(
        '<svg class="bar{}" role="img" aria-label="{}">{}</svg>',
        f" bar--{size}" if size else "",
        spoken,
        rects,
    )


@register.simple_tag
def meter(used: int, most: int, resource: str) -> SafeString:
    """Used of most, in words and as a bar."""
    return format_html(
        '<div class="meter"><div class="meter__text"><span><strong>{}</strong> / {}</span><span>{}</span></div>'
        "{}</div>",
        amount(used, resource),
        amount(most, resource),
        f"{fraction(used, most) * 100:.0f} %",
        bar(used, most),
    )


# Facts that the subject's name says already.
NAMES = ("name", "username", "slug", "of")


@register.filter
def facts_line(facts: Any) -> str:
    """The facts of an event on one line, without what is empty."""
    told = ((key, value) for key, value in facts.items() if key not in NAMES and value not in (None, "", [], {}))
    return "  ".join(f"{key}={value if isinstance(value, str) else compact(value)}" for key, value in told)


@register.filter
def peak_memory(usage: Mapping[str, Any]) -> str:
    """The most memory that a placement used, if its node measured it."""
    return bytes_(usage.get("memory_peak_bytes"))


@register.simple_tag(takes_context=True)
def link_with(context: template.Context, **changes: object) -> str:
    """The present address with some query parameters changed; an empty value takes one away, paging starts anew."""
    query = context["request"].GET.copy()
    for name in PAGING:
        query.pop(name, None)
    for name, value in changes.items():
        if value in ("", None):
            query.pop(name, None)
        else:
            query[name] = str(value)
    encoded = query.urlencode()
    return f"?{encoded}" if encoded else context["request"].path


# The colour of an event: by the last word of its verb, where it says how something went.
EVENT_STATES = {
    "succeeded": "succeeded",
    "failed": "failed",
    "lost": "lost",
    "started": "running",
    "granted": "running",
    "cancelled": "cancelled",
    "cancelling": "cancelling",
    "requeued": "pending",
    "suspended": "suspended",
    "warned": "pending",
    "removed": "removed",
    "revoked": "revoked",
    "cordoned": "cordoned",
    "draining": "draining",
    "returned": "ready",
    "joined": "ready",
    "cached": "succeeded",
    "deadline_missed": "pending",
    "sent": "succeeded",
    "dead": "failed",
    "complete": "succeeded",
    "crash_loop": "failed",
    "crash_loop_ended": "succeeded",
}
SUBJECT_PAGES = {
    name: name.replace("_", "-")
    for name in (
        "approval", "backfill", "dataset", "destination", "job", "node", "run", "service", "slot_pool", "workflow",
    )
}


@register.filter
def told_of(kind: str) -> str:
    """What somebody is told of: `run.deadline` → `Deadline missed`."""
    return sentence(KIND_WORDS[Kind(kind)])


@register.simple_tag
def event_dot(verb: str) -> SafeString:
    """A dot in the colour of what happened."""
    return dot(EVENT_STATES.get(verb.rpartition(".")[2], "none"))


def subject_name(event: Any) -> str:
    """What an event is about, by name where its facts have one, else by number."""
    facts = event.facts
    if event.verb.startswith("state."):
        return str(facts["key"])
    task = facts.get("task") if event.subject_type != "run" else None  # A run is not called by one of its tasks.
    name = facts.get("name") or task or facts.get("username") or facts.get("slug") or facts.get("of")
    return str(name) if name else f"#{event.subject_id}"


@register.simple_tag
def subject(event: Any) -> SafeString | str:
    """The subject's name, as a link where it has a page."""
    page = SUBJECT_PAGES.get(event.subject_type)
    if page is None:
        return subject_name(event)
    url = reverse(f"console:{page}", args=[event.subject_id])
    return format_html('<a class="above" href="{}">{}</a>', url, subject_name(event))


@register.simple_tag
def event_text(event: Any) -> SafeString:
    """One line: what, to what, by whom."""
    noun, _, verb = event.verb.partition(".")
    return format_html(
        '{} {} <span class="muted">{} · {}</span>',
        sentence(noun),
        subject(event),
        words.words(verb),
        event.actor.removeprefix("user:"),
    )


@register.simple_tag
def reason_title(reason: str) -> str:
    """The title of a pending reason for people."""
    return TITLES[Reason(reason)] if reason else ""


@register.simple_tag
def cycle_total(cycle: Any) -> str:
    """Milliseconds of a whole scheduling cycle."""
    return f"{cycle.observe_ms + cycle.decide_ms + cycle.apply_ms:.1f} ms"


@register.simple_tag
def quota_bar(cell: QuotaCell) -> SafeString:
    """Own use, what is borrowed, what could still be had, and a mark where the nominal quota ends.

    The bar ends at the largest of nominal, potential and used.
    """
    scale = max(cell.nominal, cell.potential, cell.used, 1)
    own = 100 * max(0, cell.used - cell.borrowed) / scale
    borrowed = 100 * cell.borrowed / scale
    reach = 100 * max(0, min(scale, cell.used + max(0, cell.available)) - cell.used) / scale
    return format_html(
        '<svg class="bar bar--l" role="img" aria-label="{} used of {} nominal">'
        '<rect width="{}%"></rect><rect x="{}%" width="{}%" class="is-warn"></rect>'
        '<rect x="{}%" width="{}%" class="is-ghost"></rect><rect x="{}%" width="2" class="is-mark"></rect></svg>',
        amount(cell.used, cell.resource),
        amount(cell.nominal, cell.resource),
        f"{own:.2f}",
        f"{own:.2f}",
        f"{borrowed:.2f}",
        f"{own + borrowed:.2f}",
        f"{reach:.2f}",
        f"{min(99.0, 100 * cell.nominal / scale):.2f}",
    )


@register.simple_tag
def slot_bar(pool: Any) -> SafeString:
    """How much of a slot pool is held, with a mark where it ends if more is held than there is."""
    scale = max(pool.size, pool.held, 1)
    return format_html(
        '<svg class="bar bar--l" role="img" aria-label="{} of {} slots held"><rect width="{}%"></rect>'
        '<rect x="{}%" width="{}%" class="is-warn"></rect></svg>',
        pool.held,
        pool.size,
        f"{100 * min(pool.held, pool.size) / scale:.2f}",
        f"{100 * pool.size / scale:.2f}",
        f"{100 * max(0, pool.held - pool.size) / scale:.2f}",
    )


@register.simple_tag
def budget_bar(use: Use) -> SafeString:
    """What is used of a budget, with marks where it warns; it ends at the budget, or where more is used."""
    most = use.budget.amount
    scale = max(most, use.used) or 1
    marks = format_html_join(
        "",
        '<rect x="{}%" width="1.5" class="is-mark"></rect>',
        ((f"{level * most / scale:.2f}",) for level in sorted(WARNINGS)),
    )
    return format_html(
        '<svg class="bar bar--l" role="img" aria-label="{} of {} used"><rect width="{}%" class="is-{}"></rect>{}</svg>',
        words.quantity(use.used),
        words.quantity(most),
        f"{100 * use.used / scale:.2f}",
        TONES[use.level],
        marks if most else "",
    )


@register.simple_tag(takes_context=True)
def subject_link(context: template.Context, event: Any) -> str:
    """The log filtered to what this event is about."""
    return link_with(context, subject=f"{event.subject_type}:{event.subject_id}")


@register.simple_tag
def heat_cells(nodes: Iterable[Any]) -> SafeString:
    """The cells of the fleet map: in one go, since there may be thousands."""
    before, after = reverse("console:node", args=[0]).split("0")
    return format_html_join(
        "",
        '<a class="heat__cell" href="{}{}{}" title="{}: {}, cpu {} %, {} running" data-state="{}" data-level="{}"'
        ' data-node="{}" data-behavior="telemetry"><span class="visually-hidden">{}</span></a>',
        (
            (
                before,
                live.node.pk,
                after,
                live.node.name,
                live.node.state,
                round(live.cpu_percent),
                live.node.running,
                live.node.state,
                live.level,
                live.node.pk,
                live.node.name,
            )
            for live in nodes
        ),
    )
