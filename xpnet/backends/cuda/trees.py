"""Nested tuples, lists and dicts of arrays, as a compiled step carries them."""

from collections.abc import Callable, Iterator
from typing import Any

from xpnet.arrays import Array


def leaves(tree: Any) -> list[Array]:
    """Return the arrays of nested tuples, lists and dicts, in order."""
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    return [leaf for branch in tree for leaf in leaves(branch)] if isinstance(tree, (tuple, list)) else [tree]


def rebuild(tree: Any, arrays: Iterator[Array]) -> Any:
    """Return a tree of the same form that holds other arrays."""
    if isinstance(tree, dict):
        return {name: rebuild(tree[name], arrays) for name in sorted(tree)}
    if isinstance(tree, (tuple, list)):
        branches = [rebuild(branch, arrays) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return next(arrays)


def form(tree: Any) -> Any:
    """Return what two trees must agree in so that one graph serves both: nesting, names, shapes and dtypes."""
    if isinstance(tree, dict):
        return tuple((name, form(tree[name])) for name in sorted(tree))
    return tuple(map(form, tree)) if isinstance(tree, (tuple, list)) else (tree.shape, tree.dtype.name)


def copies(tree: Any, of: Callable[[Array], bool] = lambda array: True) -> Any:
    """Return a tree of the same form that holds copies of its arrays, or of some of them."""
    return rebuild(tree, iter([array.copy() if of(array) else array for array in leaves(tree)]))


def addresses(tree: Any) -> list[int]:
    """Return where the arrays of a tree lie."""
    return [array.data.ptr for array in leaves(tree)]
