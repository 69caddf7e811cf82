"""What a kernel does with every operation of a network: its rule, or the lack of one, and its place in the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lazyrich.graph import Graph, Node
from lazyrich.lazy.rule.table import Need, rule_of

PLUMBING = ("input", "parameter", "constant", "output", "sym_size", "getitem")


@dataclass(frozen=True)
class Explanation:
    """Every operation of a traced network with its rule.

    Attributes:
        operations: operation, module path, rule, positions that are kept ('equal', 'all pairs' or ''), source line.
        refusal: why the kernel cannot be computed; empty where it can.
        nngp: whether the NNGP alone can.
    """

    operations: Sequence[dict[str, str]]
    refusal: str = ""
    nngp: bool = False

    @property
    def missing(self) -> list[str]:
        """Operations without a rule."""
        return sorted({row["operation"] for row in self.operations if row["rule"] == NONE})

    def rows(self) -> list[dict[str, str]]:
        """One record an operation."""
        return [dict(row) for row in self.operations]

    def __str__(self) -> str:
        columns = ("operation", "module", "positions", "rule", "source")
        sizes = {c: max([len(c), *(len(row[c]) for row in self.operations)]) for c in columns}
        lines = ["  ".join(c.ljust(sizes[c]) for c in columns).rstrip()]
        lines.append("-" * len(lines[0]))
        lines += ["  ".join(row[c].ljust(sizes[c]) for c in columns).rstrip() for row in self.operations]
        return "\n".join([*lines, "", self.sentence])

    @property
    def sentence(self) -> str:
        """The conclusion."""
        if self.missing and (not self.refusal or self.refusal.startswith("no rule")):
            return f"No kernel: no rule for {', '.join(self.missing)}; teach one with @lazyrich.lazy.register(name)."
        if self.refusal and self.nngp:
            return f"The NNGP can be computed (k.nngp), the tangent kernel not: {self.refusal}."
        if self.refusal:
            return f"No kernel: {self.refusal}."
        return f"Every one of the {len(self.operations)} operations has a rule: the kernel can be computed."


NONE = "none"


def explain(graph: Graph, needs: dict[str, Need], numbers: set[str], refusal: str = "", nngp: bool = False) -> Explanation:
    """The operations of a graph with their rules; ``numbers`` names those that do not fluctuate although weights lie below."""
    random = graph.weighed - numbers
    shown = [node for node in graph if node.op not in PLUMBING]
    return Explanation([_row(node, node.name in random, needs.get(node.name, Need.NONE)) for node in shown], refusal, nngp)


def _row(node: Node, random: bool, need: Need) -> dict[str, str]:
    rule: Any = rule_of(node)
    says = (rule.says if rule else NONE) if random else "computed as it is"
    kept = {Need.NONE: "", Need.EQUAL: "equal", Need.ALL: "all pairs"}[need] if random else ""
    return {"operation": node.op, "module": node.path, "positions": kept, "rule": says, "source": node.source}
