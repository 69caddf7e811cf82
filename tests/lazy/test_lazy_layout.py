"""Axes through views: what is batch, position and feature after they split and merge."""

from __future__ import annotations

import pytest

from lazyrich.errors import KernelError
from lazyrich.graph.node import Batch
from lazyrich.lazy.layout import Layout, plain, size_of

B = Batch()


def shown(layout: Layout) -> str:
    return repr(layout)


def test_a_fresh_tensor():
    assert shown(plain((B, 4, 6, 6), feature=1)) == "(B, f4, p6, p6)"
    assert shown(plain((B, 1, 6), feature=2)) == "(B, 1, f6)"


def test_flattening_and_unflattening_bring_the_same_atoms_back():
    layout = plain((B, 4, 3, 5), 1)
    flat, split = layout.viewed((B, 60))
    assert shown(flat) == "(B, f4·p3·p5)" and not split
    back, split = flat.viewed((B, 4, 3, 5))
    assert back == layout and not split


def test_heads_split_the_features():
    layout = plain((B, 6, 8), 2)
    heads, split = layout.viewed((B, 6, 2, 4))
    assert shown(heads) == "(B, p6, f2, f4)"
    (parts,) = split.values()
    assert [a.size for a in parts] == [2, 4]
    swapped = heads.permuted((0, 2, 1, 3))
    assert shown(swapped) == "(B, f2, p6, f4)"
    merged, _ = swapped.swapped(1, 2).viewed((B, 6, 8))
    assert shown(merged) == "(B, p6, f2·f4)" and size_of(merged.axes[-1]) == 8


def test_heads_beside_the_batch_as_in_multihead_attention():
    """(T, B, n) -> (T, B h, d) -> (B h, T, d)."""
    layout = plain((6, B, 8), 2)
    heads, _ = layout.viewed((6, Batch(2), 4))
    assert shown(heads) == "(p6, B·f2, f4)"
    back, _ = heads.swapped(0, 1).swapped(0, 1).viewed((6, B, 8))
    assert shown(back) == "(p6, B, f2·f4)"


def test_positions_join_the_samples():
    layout = plain((B, 6, 8), 2)
    rows, _ = layout.viewed((Batch(6), 8))
    assert shown(rows) == "(B·p6, f8)"
    assert rows.viewed((B, 6, 8))[0] == layout


def test_positions_split_into_groups():
    groups, split = plain((B, 6, 8), 2).viewed((B, 2, 3, 8))
    assert shown(groups) == "(B, p2, p3, f8)"
    ((atom, parts),) = split.items()
    assert atom.size == 6 and groups.positions == parts


def test_a_cut_across_two_axes_cuts_the_outer_one():
    halves, split = plain((B, 4, 6), 2).viewed((B, 2, 12))
    assert shown(halves) == "(B, p2, p2·f6)" and len(split) == 1


def test_axes_of_one_come_and_go():
    layout = plain((B, 6, 8), 2)
    assert layout.viewed((B, 1, 6, 8))[0].axes[1] == ()
    assert layout.viewed((B, 1, 6, 8))[0].viewed((B, 6, 8))[0] == layout


def test_a_position_of_one_is_forgotten_and_reported():
    """Selections leave positions of one, which a view may drop; arrays have to drop them too."""
    layout = Layout((*plain((B, 8), 1).axes, *plain((2,), None).axes))
    one = layout.axes[2][0]
    sliced = layout.replaced(2, (type(one)(one.kind, 1),))
    new, split = sliced.viewed((B, 8))
    assert shown(new) == "(B, f8)" and list(split.values()) == [()]


def test_a_feature_axis_of_one_is_kept_where_the_shape_has_one():
    layout = plain((B, 1), 1)
    assert shown(layout) == "(B, f1)"
    assert shown(layout.viewed((B, 1, 1))[0]) == "(B, f1, 1)"


@pytest.mark.parametrize("shape", [(B, 5, 4), (3, B, 8), (B, 4, 12)])
def test_a_view_that_tears_axes_apart_is_refused(shape):
    with pytest.raises(KernelError, match="cannot follow the view"):
        plain((B, 6, 8), 2).viewed(shape)
