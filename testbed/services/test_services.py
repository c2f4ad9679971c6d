"""`make services`: a copy of this repository in which the services were made passes `make test`."""

from pathlib import Path

from test_new import changes, copy, make_services, passes  # noqa: F401


def test_make_test_passes_with_the_services(copy: Path) -> None:  # noqa: F811
    make_services(copy)
    assert [change for change in changes(copy) if "testbed/" in change or "Makefile" in change] == []
    passes(copy, "make", "test")
