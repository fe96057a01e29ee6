"""Suspicions by publisher."""

from kuber.domain.suspicion import Suspicion
from kuber.views.suspicion import by_publisher


def suspicious(id, publisher, refused_by=(), **more):
    usual = {"claimed": 0.9, "found": 0.1 if refused_by else None, "agreed": 0}
    names = {"knowledge": id, "entity": f"id of {publisher}", "publisher": publisher}
    return Suspicion(**names, refused_by=refused_by, **(usual | more))


def test_those_whom_most_contradict_come_first():
    copies = [suspicious(f"c{number}", "thief", copy_of="k", first_publisher="victim") for number in range(5)]
    slandered = suspicious("s", "slandered", ("x",), found=0.88, agreed=4)
    lies = [suspicious("l1", "liar", ("a", "b")), suspicious("l2", "liar", ("b", "c", "d", "e"), claimed=1.0)]
    thief, liar, other = by_publisher([*copies, slandered, *lies])
    assert [each.publisher for each in (thief, liar, other)] == ["thief", "liar", "slandered"]
    assert liar.facts == "2 refused by b, a, c and 2 more (100.0% claimed, 10.0% found)"
    assert thief.facts == "5 copied from victim"
    assert other.facts == "1 refused by x (90.0% claimed, 88.0% found)"


def test_names_of_others_are_printable():
    (thief,) = by_publisher([suspicious("c", "thief", copy_of="k", first_publisher="\x1b[2Jvictim")])
    assert "\x1b" not in thief.facts
