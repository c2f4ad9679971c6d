"""`make services`: a copy of this repository passes `make test` with the services made in it, and as a team's with one of its own."""

from pathlib import Path

from test_new import changes, copy, make_services, passes, undo  # noqa: F401
from test_own import committer  # noqa: F401


def test_make_test_passes_with_the_services(copy: Path) -> None:  # noqa: F811
    make_services(copy)
    assert [change for change in changes(copy) if "testbed/" in change or "Makefile" in change] == []
    passes(copy, "make", "test")
    undo(copy)


def test_make_test_passes_in_a_teams_repository(copy: Path) -> None:  # noqa: F811
    passes(copy, "make", "own", "NAME=shop")
    passes(copy, "make", "new", "NAME=bookings", "TABLE=bookings")
    passes(copy, "make", "test")
