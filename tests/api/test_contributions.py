"""The terms of a contribution through the REST API: windows and caps, and what is refused about them."""

from typing import Any

import pytest

from apps.fleet.models import Contribution
from tests.personas import World

NIGHT = {"days": ["tue", "mon"], "from": "18:00", "to": "08:00"}


def test_windows_and_caps_are_set_changed_and_taken_away(api: Any, world: World) -> None:
    path = f"contributions/{Contribution.objects.get().pk}"
    before = api.provider.get(path).json()
    assert (before["windows"], before["timezone"], before["cap_cpu_millicores"]) == ([], "UTC", None)
    terms = {"windows": [NIGHT], "timezone": "Europe/Zurich", "cap_cpu_millicores": 4000, "cap_gpu_milli": 0}
    answer = api.provider.patch(path, terms)
    assert answer.status_code == 200, answer.content
    assert answer.json()["windows"] == [{**NIGHT, "days": ["mon", "tue"]}]
    after = api.provider.get(path).json()
    assert (after["timezone"], after["cap_cpu_millicores"], after["cap_gpu_milli"]) == ("Europe/Zurich", 4000, 0)
    assert after["cap_memory_bytes"] is None
    answer = api.provider.patch(path, {"windows": [], "cap_cpu_millicores": None})
    assert (answer.json()["windows"], answer.json()["cap_cpu_millicores"]) == ([], None)


@pytest.mark.parametrize(
    ("terms", "field", "said"),
    [
        ({"windows": [{**NIGHT, "days": ["mon", "someday"]}]}, "windows[0].days", "'someday' is not a day: mon, tue"),
        ({"windows": [NIGHT, {**NIGHT, "days": []}]}, "windows[1].days", "a list of days"),
        ({"windows": [{**NIGHT, "to": "18:00"}]}, "windows[0].to", "the same as `from`"),
        ({"windows": [{**NIGHT, "from": "24:00"}]}, "windows[0].from", "'24:00' is not a time"),
        ({"windows": [{**NIGHT, "to": "8:00"}]}, "windows[0].to", "'8:00' is not a time such as 18:00"),
        ({"windows": [{"days": ["mon"], "to": "18:00"}]}, "windows[0].from", "required"),
        ({"windows": [{**NIGHT, "until": "18:00"}]}, "windows[0].until", "no such field"),
        ({"windows": "always"}, "windows", ""),
        ({"windows": [NIGHT] * 51}, "windows", "at most 50"),
        ({"timezone": "Europe/Bern"}, "timezone", "is not a time zone; give a name such as"),
        ({"timezone": "../../etc/passwd"}, "timezone", "is not a time zone"),
        ({"cap_cpu_millicores": -1}, "cap_cpu_millicores", ""),
        ({"cap_memory_bytes": "64Gi"}, "cap_memory_bytes", ""),
        ({"cap_gpu_milli": 2**63}, "cap_gpu_milli", ""),
    ],
)
def test_one_clear_error_names_the_field(
    api: Any, world: World, terms: dict[str, Any], field: str, said: str
) -> None:
    row = Contribution.objects.get()
    answer = api.provider.patch(f"contributions/{row.pk}", terms)
    assert answer.status_code == 422, answer.content
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert said.lower() in error["message"].lower()
    after = Contribution.objects.get()
    assert (after.windows, after.timezone, after.cap_cpu_millicores) == ([], "UTC", None)


def test_strangers_change_no_terms(api: Any, world: World) -> None:
    path = f"contributions/{Contribution.objects.get().pk}"
    assert api.stranger.patch(path, {"cap_cpu_millicores": 0}).status_code == 404
    assert api.member.patch(path, {"windows": [NIGHT]}).status_code in (403, 404)
