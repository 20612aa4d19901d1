"""A contraction's gradients with respect to its operands, in pairwise steps that share what they compute with the contraction itself."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod

from bayestt.algebra.einsum import Axes, Step, StepCost, halves


@dataclass(frozen=True)
class Adjoint:
    """Steps of a contraction, then of its gradients, and what all of them cost together.

    Operands are numbered as given, then the result's gradient, then the steps: those `forward`, whose last one makes the result, and those
    `backward`. `gradients` says which number has the gradient of an operand or of a step forward, in its axes, where it is needed.
    """

    forward: tuple[Step, ...]
    backward: tuple[Step, ...]
    gradients: Mapping[int, int]
    cost: float


def adjoint(
    axes: Sequence[Axes],
    out: Axes,
    size: Mapping[str, int],
    wanted: Collection[int],
    apart: Collection[int] = (),
    cost: StepCost | None = None,
) -> Adjoint:
    """The cheapest steps of a contraction and its gradients; without a `cost` those with the fewest multiplications.

    The operands and the gradient of the result are the leaves of a tree, whose inner nodes are the contraction's steps. Each node parts
    all leaves in three; what two parts make, summed over what the third lacks, is the gradient of the third one's product. So every node
    takes one step forward, and one backward for either of its operands that has a wanted leaf in it: a message in each direction of an
    edge, each computed once (Shafer & Shenoy 1990). Exact among all such trees, as each node's steps depend on its three parts alone: by
    the best split of every subset of operands (3**operands splits), those being left out that would multiply all of `apart` alone.
    """
    for k in wanted:
        elsewhere = {*out}.union(*(names for other, names in enumerate(axes) if other != k))
        if alone := [axis for axis in axes[k] if axis not in elsewhere]:
            raise ValueError(f"axes {alone} of operand {k} are in no other operand nor in the result: no step makes its gradient")
    whole, forbidden = (1 << len(axes)) - 1, sum(1 << k for k in apart)
    kept = [_kept(axes, out, part) for part in range(whole + 1)]
    wants = [any(part >> k & 1 for k in wanted) for part in range(whole + 1)]
    spent, split = [0.0] * (whole + 1), [0] * (whole + 1)

    def step(left: Axes, right: Axes, made: Axes) -> float:
        return cost(left, right, made) if cost else prod(size[axis] for axis in {*left, *right})

    def node(part: int, half: int) -> float:
        """What the steps of a subset's node cost, and those of all nodes in it."""
        other, found = part ^ half, spent[half] + spent[part ^ half]
        if found < inf:
            found += step(kept[half], kept[other], kept[part])
            found += step(kept[part], kept[other], kept[half]) if wants[half] else 0
            found += step(kept[part], kept[half], kept[other]) if wants[other] else 0
        return found

    for part in range(1, whole + 1):
        if part & (part - 1):
            spent[part], split[part] = min((node(part, half), half) for half in halves(part))
            spent[part] = inf if part == forbidden else spent[part]
    return Adjoint(*_steps(whole, split, kept, wants), spent[whole])


def _kept(axes: Sequence[Axes], out: Axes, part: int) -> Axes:
    """The axes of a product of operands, those left out that nothing else has; the result's own order for all of them."""
    inside = [k for k in range(len(axes)) if part >> k & 1]
    if len(inside) in (1, len(axes)):
        return tuple(axes[inside[0]]) if len(inside) == 1 else tuple(out)
    outside = {*out}.union(*(axes[k] for k in range(len(axes)) if k not in inside))
    return tuple(axis for axis in dict.fromkeys(axis for k in inside for axis in axes[k]) if axis in outside)


def _steps(
    whole: int, split: Sequence[int], kept: Sequence[Axes], wants: Sequence[bool]
) -> tuple[tuple[Step, ...], tuple[Step, ...], dict[int, int]]:
    """The steps of a tree, forward and backward, and the numbers of the gradients."""
    number = {1 << k: k for k in range(whole.bit_length())}
    forward: list[Step] = []
    backward: list[Step] = []
    gradients: dict[int, int] = {}

    def up(part: int) -> int:
        if part not in number:
            pair = sorted((up(split[part]), up(part ^ split[part])))
            forward.append((*pair, kept[part]))
            number[part] = whole.bit_length() + len(forward)
        return number[part]

    def down(part: int, gradient: int) -> None:
        """Hand a product's gradient on to its operands; products of fewer operands first, so that their parts are forgotten soon."""
        gradients[number[part]] = gradient
        for half in sorted((split[part], part ^ split[part]) if part & (part - 1) else (), key=int.bit_count):
            if wants[half]:
                backward.append((number[part ^ half], gradient, kept[half]))
                down(half, whole.bit_length() + len(forward) + len(backward))

    up(whole)
    if wants[whole]:
        down(whole, whole.bit_length())
    return tuple(forward), tuple(backward), gradients
