"""The log of a job on its page: where a text stands, and all of it as a file."""

from tests.personas import Objects

from .conftest import People


def test_a_text_is_found_both_ways(objects: Objects, people: People) -> None:
    find = f"/jobs/{objects['job_id']}/log/find"
    told = people.member.get(find, {"q": "LLO", "way": "down", "from": 0}).json()
    assert told == {"at": 2, "further": None, "size": 6}
    assert people.member.get(find, {"q": "l"}).json()["at"] == 3  # Up from the end.
    assert people.member.get(find).json()["at"] is None  # No error is in it.


def test_wrong_questions_are_refused(objects: Objects, people: People) -> None:
    find = f"/jobs/{objects['job_id']}/log/find"
    for query in ({"way": "sideways"}, {"from": "-1"}, {"q": "x" * 201}, {"attempt": "first"}):
        assert people.member.get(find, query).status_code == 400, query
    assert people.member.get(find, {"rank": "7"}).status_code == 404


def test_all_of_it_is_saved(objects: Objects, people: People) -> None:
    saved = people.member.get(f"/jobs/{objects['job_id']}/log/download?attempt=1")
    assert b"".join(saved.streaming_content) == b"hello\n"
    assert saved["Content-Length"] == "6"
    assert "attachment" in saved["Content-Disposition"]
