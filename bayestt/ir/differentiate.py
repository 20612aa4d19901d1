"""From a network to its training step: scores, and the gradient of every constant, as contractions that share what they compute."""

from dataclasses import dataclass, field

from bayestt.algebra.adjoint import Adjoint, adjoint
from bayestt.algebra.einsum import Axes, StepCost
from bayestt.ir.graph import Graph, Op, inferring, verify

DIFFERENTIABLE = ("INPUT", "CONST", "CONTRACT", "ADD", "RELU", "VIEW")
"""The kinds that have a backward."""


def differentiate(graph: Graph, images: int = 1, dense: bool = False, cost: StepCost | None = None) -> Graph:
    """The training step of a float graph: its ops, then those that make the gradient of every constant that the scores depend on.

    A contraction of an activation with several constants (a factorized layer as `trace` draws it, so: before `fold`) becomes the pairwise
    steps with which it and its gradients are cheapest together for a batch of so many `images`: by multiplications, or by the `cost` of a
    step. Gradients of cores stay compressed: no step makes the product of all cores of a layer, the dense weight, or that one's gradient,
    unless `dense` allows it and it is cheapest. The images have no gradient. The loss is the sum of the images' cross-entropies;
    `interpret.gradients` is what the step means. An op of a kind that has no backward is refused by name.
    """
    if inferring(graph, "differentiate").integer:
        raise ValueError("an integer graph has no gradients: differentiate the float graph that it was made of")
    for op in graph.ops:
        if op.kind not in DIFFERENTIABLE or op.window:
            what = f"{op.kind} through windows" if op.window else op.kind
            raise ValueError(f"op {op.name!r} ({what}) has no backward yet: differentiate a graph of {', '.join(DIFFERENTIABLE)}")
    learning = _learning(graph)
    plans = {op.name: _plan(op, graph, learning, images, dense, cost) for op in graph.ops if op.kind == "CONTRACT"}
    forward = [made for op in graph.ops for made in (_steps(op, graph, plans[op.name]) if op.name in plans else [op])]
    tape = _Tape(graph, learning, forward)
    scores, labels = graph.output, tape.add("labels", "LABELS", ("n",))
    tape.hand(scores.name, tape.add(f"{scores.name}.gradient", "ERROR", scores.axes, scores.name, labels))
    made = {}
    for op in reversed(graph.ops):
        if parts := tape.parts.get(op.name):
            gradient = _summed(op, parts, tape)
            if op.kind == "CONST":
                made[op.name] = _in_order(op, gradient, tape)
            elif op.kind == "CONTRACT":
                _contraction_back(op, gradient, plans[op.name], tape)
            else:
                _back(op, gradient, tape)
    gradients = {name: made[name] for name in graph.consts if name in made}
    return verify(Graph(tuple(tape.ops), graph.size, graph.consts, gradients))


@dataclass(frozen=True)
class _Plan:
    """The operands of a contraction, its activation first, and the steps that it and its gradients take."""

    args: tuple[str, ...]
    steps: Adjoint


@dataclass
class _Tape:
    """A training step as far as it is written, and for each value of the graph the parts of its gradient, one from each reader."""

    graph: Graph
    learning: frozenset[str]
    ops: list[Op]
    parts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, kind: str, axes: Axes, *args: str) -> str:
        """Add an op; its name."""
        self.ops.append(Op(name, kind, axes, args))
        return name

    def part_name(self, value: str) -> str:
        """A name for the next part of a value's gradient."""
        count = len(self.parts.get(value, ()))
        return f"{value}.gradient{count + 1 if count else ''}"

    def hand(self, value: str, part: str) -> None:
        """Let a value have a part of its gradient."""
        self.parts.setdefault(value, []).append(part)

    def axes(self, name: str) -> Axes:
        """The axes of an op on the tape."""
        return next(op.axes for op in self.ops if op.name == name)


def _learning(graph: Graph) -> frozenset[str]:
    """The values that depend on a constant."""
    found: set[str] = set()
    for op in graph.ops:
        found |= {op.name} if op.kind == "CONST" or found & {*op.args} else set()
    return frozenset(found)


def _plan(op: Op, graph: Graph, learning: frozenset[str], images: int, dense: bool, cost: StepCost | None) -> _Plan:
    """The steps of a contraction, forward and backward."""
    args = tuple(sorted(op.args, key=lambda name: "n" not in graph[name].axes))
    cores = [k for k, name in enumerate(args) if "n" not in graph[name].axes]
    wanted = [k for k, name in enumerate(args) if name in learning]
    apart = () if dense or len(cores) == len(args) else cores
    try:
        return _Plan(args, adjoint([graph[name].axes for name in args], op.axes, {**graph.size, "n": images}, wanted, apart, cost))
    except ValueError as fault:
        raise ValueError(f"op {op.name!r} ({op.kind}) has no backward yet: {fault}") from fault


def _steps(op: Op, graph: Graph, plan: _Plan) -> list[Op]:
    """A contraction as its steps forward: `fc1.step1`, ..., products of cores `fc1.core0.core1`, and `fc1` itself at the end."""
    names = _forward_names(op, plan)
    made = [
        Op(names[len(plan.args) + 1 + k], "CONTRACT", _batch_first(axes), (names[left], names[right]))
        for k, (left, right, axes) in enumerate(plan.steps.forward)
    ]
    return made or [op]


def _forward_names(op: Op, plan: _Plan) -> list[str]:
    """The names of a contraction's operands, of its gradient, and of its steps forward, as the plan numbers them."""
    short = [*(name.rpartition(".")[2] for name in plan.args), ""]
    names, activations = [*plan.args, f"{op.name}.gradient"], 0
    for left, right, axes in plan.steps.forward:
        short.append(f"{short[left]}.{short[right]}")
        activations += "n" in axes
        names.append(f"{op.name}.step{activations}" if "n" in axes else f"{op.name}.{short[-1]}")
    return [*names[:-1], op.name] if plan.steps.forward else names


def _batch_first(axes: Axes) -> Axes:
    """The same axes, the batch before all others."""
    return tuple(sorted(axes, key=lambda axis: axis != "n"))


def _summed(op: Op, parts: list[str], tape: _Tape) -> str:
    """The gradient of a value: the sum of its parts."""
    total = parts[0]
    for number, part in enumerate(parts[1:], 1):
        total = tape.add(f"{op.name}.gradient.sum{number}", "ADD", op.axes, total, part)
    return total


def _in_order(op: Op, gradient: str, tape: _Tape) -> str:
    """The gradient of a value in the order of its axes."""
    return gradient if tape.axes(gradient) == op.axes else tape.add(f"{op.name}.gradient.ordered", "CONTRACT", op.axes, gradient)


def _contraction_back(op: Op, gradient: str, plan: _Plan, tape: _Tape) -> None:
    """The steps backward of a contraction, and what each operand gets of them."""
    names = _forward_names(op, plan)
    names[len(plan.args)] = gradient
    whose = {number: operand for operand, number in plan.steps.gradients.items()}
    for left, right, axes in plan.steps.backward:
        operand = whose[len(names)]
        name = tape.part_name(names[operand])
        names.append(tape.add(name, "CONTRACT", _batch_first(axes), names[left], names[right]))
        if operand < len(plan.args):
            tape.hand(plan.args[operand], name)
    if not plan.steps.backward:
        tape.hand(plan.args[0], gradient)


def _back(op: Op, gradient: str, tape: _Tape) -> None:
    """What the operands of an op that is no contraction get of its gradient."""
    for arg in (tape.graph[name] for name in op.args if name in tape.learning):
        match op.kind:
            case "ADD" if "n" in arg.axes:
                tape.hand(arg.name, gradient)
            case "ADD":
                tape.hand(arg.name, tape.add(tape.part_name(arg.name), "CONTRACT", arg.axes, gradient))
            case "RELU":
                tape.hand(arg.name, tape.add(tape.part_name(arg.name), "MASK", arg.axes, gradient, op.name))
            case "VIEW":
                tape.hand(arg.name, tape.add(tape.part_name(arg.name), "VIEW", arg.axes, _in_order(op, gradient, tape)))
