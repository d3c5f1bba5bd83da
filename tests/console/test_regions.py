"""The page of regions: what operators say of them, and what everybody reads."""

from apps.fleet.models import Region

from .conftest import People


def test_an_operator_says_what_is_known_of_a_region(people: People) -> None:
    operator = people.operator
    saved = operator.post("/regions/new/", {"name": "eu", "carbon": "300", "round_trips": "us=90.5\nasia = 210"})
    assert saved.status_code == 302
    row = Region.objects.get()
    assert (row.name, row.carbon, row.round_trips) == ("eu", 300.0, {"us": 90.5, "asia": 210.0})
    again = operator.get("/regions/eu/").content.decode()
    assert "us=90.5" in again and 'value="300"' in again
    operator.post("/regions/new/", {"name": "us", "carbon": "", "round_trips": "eu=80"})
    read = people.member.get("/regions/").content.decode()
    assert "us 80 ms" in read and "asia 210 ms" in read and "eu 80 ms" in read
    assert "Add a region" not in read


def test_what_cannot_be_read_is_said_beside_its_field(people: People) -> None:
    wrong = (("us=far", "is not a number of milliseconds"), ("eu=1", "no way from itself"), ("us", "is not"))
    for typed, told in wrong:
        answer = people.operator.post("/regions/new/", {"name": "eu", "carbon": "", "round_trips": typed})
        assert answer.status_code == 422 and told in answer.content.decode()
    assert not Region.objects.exists()


def test_only_operators_change_them(people: People) -> None:
    people.operator.post("/regions/new/", {"name": "eu", "carbon": "300", "round_trips": ""})
    for who in ("member", "provider", "auditor"):
        assert people.as_(who).post("/regions/eu/", {"carbon": "1", "round_trips": ""}).status_code in (302, 403)
        assert people.as_(who).post("/regions/eu/forget").status_code in (302, 403)
    assert Region.objects.get().carbon == 300.0
    assert people.operator.post("/regions/eu/forget").status_code == 302
    assert not Region.objects.exists()
