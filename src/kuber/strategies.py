"""Strategies, and the parts that a strategy of your own is made of. Loads neither torch nor numpy."""

from kuber.domain.acceptance import AcceptancePolicy, is_no_worse
from kuber.domain.explanation import reason_for
from kuber.domain.knowledge import Architecture, Artifact, Draft
from kuber.domain.policies import (
    MergePolicy,
    OuterStepPolicy,
    ProxyPolicy,
    PublishPolicy,
    SelectionPolicy,
    WaitingPolicy,
    has_improved,
    is_mergeable,
    is_too_old,
    merge_shares,
    more_are_expected,
    most_recent,
    query_for_teachers,
    select_complementary,
    weak_classes,
)
from kuber.domain.ranking import more_accurate
from kuber.domain.strategies import Exchange, Kuber, Local, LocalBalanced, Merge, Vanilla
from kuber.domain.strategy import Candidate, Choice, Guidance, LocalPhase, Method, Situation, Strategy

__all__ = [
    "AcceptancePolicy",
    "Architecture",
    "Artifact",
    "Candidate",
    "Choice",
    "Draft",
    "Exchange",
    "Guidance",
    "Kuber",
    "Local",
    "LocalBalanced",
    "LocalPhase",
    "Merge",
    "MergePolicy",
    "Method",
    "OuterStepPolicy",
    "ProxyPolicy",
    "PublishPolicy",
    "SelectionPolicy",
    "Situation",
    "Strategy",
    "Vanilla",
    "WaitingPolicy",
    "has_improved",
    "is_mergeable",
    "is_no_worse",
    "is_too_old",
    "merge_shares",
    "more_accurate",
    "more_are_expected",
    "most_recent",
    "query_for_teachers",
    "reason_for",
    "select_complementary",
    "weak_classes",
]
