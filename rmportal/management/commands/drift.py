"""`manage.py drift`: whether the sums kept on nodes and quota leaves are exactly those of the live grants."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from apps.jobs.commands.grants import drift


class Command(BaseCommand):
    help = "Compare the ledger's sums with its grants; exit status 1 and a line for each difference."

    def handle(self, *args: Any, **options: Any) -> None:
        problems = drift()
        for problem in problems:
            self.stdout.write(problem)
        sys.exit(1 if problems else 0)
