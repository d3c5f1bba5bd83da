"""Pages of workflows that wait for datasets."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.workflows import commands
from tests.apps.workflows.driver import bash, definition
from tests.personas import World

from .conftest import People

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("fields", "offered"), [({}, False), ({"datasets": "s3://lake/a"}, True)])
def test_what_runs_by_datasets_can_be_paused(world: World, people: People, fields: Any, offered: bool) -> None:
    pushed = commands.push(actor=SYSTEM, tenant=world.vision, definition=definition(bash("a"), **fields))
    member, path = people.as_("member"), f"/workflows/{pushed.workflow.pk}/"
    page = member.get(path).content.decode()
    assert ('data-testid="pause"' in page) is offered
    commands.pause(actor=world.actor("member"), workflow_id=pushed.workflow.pk)
    assert 'data-testid="resume"' in member.get(path).content.decode()
