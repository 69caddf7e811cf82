"""From a module to its graph: one node a tensor, in-place operations made plain, only what the output reads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lazyrich.errors import KernelError
from lazyrich.graph import Ref, trace
from lazyrich.graph.node import Batch

X = torch.zeros(2, 3)


class Written(nn.Module):
    """A forward pass given as a function, with layers of its own."""

    def __init__(self, forward):
        super().__init__()
        self.written, self.a, self.b = forward, nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("shift", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x):
        return self.written(self, x)


def ops(graph):
    return [node.op for node in graph if node.op not in ("parameter", "input", "output")]


def reads(graph, name):
    return {graph[i].target if graph[i].op == "parameter" else graph[i].op for i in graph[name].inputs}


def test_nodes_keep_module_kind_line_and_shape():
    graph = trace(nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2))), X)
    linear = [node for node in graph if node.op == "linear"][1]
    assert (linear.path, linear.kind, linear.shape) == ("1.1", "Linear", (Batch(), 2))
    assert reads(graph, linear.name) == {"relu", "1.1.weight", "1.1.bias"}
    assert linear.place == "module '1.1' (Linear)"


def test_lines_of_the_own_forward():
    graph = trace(Written(lambda s, x: torch.tanh(s.a(x))), X)
    tanh = next(node for node in graph if node.op == "tanh")
    assert tanh.path == "" and tanh.place.startswith("the network's own forward (Written), test_graph_trace.py:")


def test_any_number_of_samples_gives_the_same_graph():
    net = Written(lambda s, x: s.a(x).reshape(x.shape[0] * 3, 1).reshape(-1, 3))
    one, many = trace(net, torch.zeros(1, 3)), trace(net, torch.zeros(7, 3))
    assert str(one) == str(many)
    assert (Batch(3), 1) in [node.shape for node in one] and repr(Batch(3)) == "3B"


def test_tied_parameters_are_one_node():
    net = Written(lambda s, x: s.b(s.a(x)))
    net.b.weight = net.a.weight
    graph = trace(net, X)
    targets = [node.target for node in graph if node.op == "parameter"]
    assert sorted(targets) == ["a.bias", "a.weight", "b.bias"]
    first, second = (node for node in graph if node.op == "linear")
    assert first.args[1] == second.args[1]
    assert set(graph.parameters) == {"a.weight", "a.bias", "b.bias"}


def test_a_module_used_twice_keeps_one_set_of_parameters():
    graph = trace(Written(lambda s, x: s.a(s.a(x))), X)
    assert sum(node.op == "parameter" for node in graph) == 2 and ops(graph) == ["linear", "linear"]


def test_buffers_and_literals_are_constants():
    graph = trace(Written(lambda s, x: s.a(x) + s.shift * torch.tensor(2.0)), X)
    assert sorted(v.flatten().tolist() for v in graph.constants.values()) == [[1.0, 2.0, 3.0], [2.0]]


def test_dead_code_is_dropped():
    def forward(s, x):
        torch.tanh(s.b(x))
        return s.a(x)

    graph = trace(Written(forward), X)
    assert ops(graph) == ["linear"]
    assert "b.weight" not in [node.target for node in graph]


def test_in_place_operations_are_plain_and_seen_by_later_readers():
    def forward(s, x):
        h = s.a(x)
        h += s.b(x)
        h.relu_()
        return h * 2

    graph = trace(Written(forward), X)
    assert ops(graph) == ["linear", "linear", "add", "relu", "mul"]
    add, relu, mul = (next(node for node in graph if node.op == op) for op in ("add", "relu", "mul"))
    assert relu.args[0] == Ref(add.name) and mul.args[0] == Ref(relu.name)


def test_names_of_one_tensor_follow_what_is_written_to_it():
    def forward(s, x):
        h = s.a(x)
        kept = h
        F.relu(h, inplace=True)
        return kept + s.b(x)

    graph = trace(Written(forward), X)
    add = next(node for node in graph if node.op == "add")
    assert reads(graph, add.name) == {"relu", "linear"}
    assert graph[add.args[0].name].op == "relu"


def test_two_in_place_operations_on_two_names():
    def forward(s, x):
        h = s.a(x)
        g = h.relu_()
        g.mul_(2.0)
        return h + s.b(x)

    graph = trace(Written(forward), X)
    add = next(node for node in graph if node.op == "add")
    assert graph[add.args[0].name].op == "mul"


@pytest.mark.parametrize(
    "write",
    [
        lambda h: h.view(-1, 1).relu_(),
        lambda h: h[:, :1].zero_(),
        lambda h: h.detach().relu_(),
        lambda h: h.contiguous().view(-1).relu_(),
        lambda h: F.dropout(h, 0.5, False).t().relu_(),
    ],
    ids=["view", "slice", "detach", "view of a view", "view of an eval dropout"],
)
def test_writing_through_a_view_is_refused(write):
    def forward(s, x):
        h = s.a(x)
        write(h)
        return h

    with pytest.raises(KernelError, match="writes in place through a view"):
        trace(Written(forward), X)


def test_a_view_of_what_is_written_later_is_refused():
    def forward(s, x):
        h = s.a(x)
        seen = h.view(-1, 3, 1)
        h.relu_()
        return seen

    with pytest.raises(KernelError, match="in place"):
        trace(Written(forward), X)


def test_writing_over_a_view_that_alone_is_read_on_is_fine():
    """As a flattening followed by an in-place activation."""
    graph = trace(Written(lambda s, x: s.b(s.a(x).view(-1, 3).relu_())), X)
    assert ops(graph) == ["linear", "view", "relu", "linear"]
    net = nn.Sequential(nn.Linear(3, 3), nn.Flatten(), nn.Dropout(), nn.ReLU(inplace=True), nn.Linear(3, 1)).eval()
    assert ops(trace(net, X)) == ["linear", "flatten", "dropout", "relu", "linear"]


def test_writing_over_the_input():
    graph = trace(Written(lambda s, x: s.a(x.mul_(2.0)) + s.b(x)), X)
    assert ops(graph).count("mul") == 1
    assert all(reads(graph, node.name) & {"mul"} for node in graph if node.op == "linear")


def test_shapes_of_lists():
    graph = trace(Written(lambda s, x: torch.cat(s.a(x).split([1, 2], 1), 1)), X)
    split = next(node for node in graph if node.op.startswith("split"))
    assert split.shape is None and split.shapes == ((Batch(), 1), (Batch(), 2))


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda s, x: s.a(x) if x.sum() > 0 else s.b(x), "a branch depends on the data"),
        (lambda s, x: s.a(x[1:]), "does not take any number of samples|no multiple of the number of samples"),
        (lambda s, x: s.a(torch.cat([x, x], 1)), "cannot be traced on inputs of shape"),
    ],
    ids=["branch", "samples", "sizes"],
)
def test_what_cannot_be_traced_is_refused_in_one_line(forward, says, capfd):
    with pytest.raises(KernelError, match=says) as caught:
        trace(Written(forward), X)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_modules_in_other_precisions_and_modes():
    assert ops(trace(Written(lambda s, x: s.a(x)).double(), X)) == ["linear"]
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    for training in (True, False):
        dropout = next(node for node in trace(net.train(training), X) if node.op == "dropout")
        assert dropout.args[2] is training


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("inner", "says", "mend"),
    [
        (
            Branch(),
            r"at module '1.0' \(Branch\), test_graph_trace.py:\d+: a branch depends on the data",
            "branches off tensor values",
        ),
        (nn.Linear(5, 4), r"at module '1.0' \(Linear\): .*\[5, 4\]", "give inputs of the shape that it reads"),
        (nn.Conv2d(1, 4, 3), r"at module '1.0' \(Conv2d\)", "give inputs of the shape that it reads"),
        (nn.Embedding(4, 4), r"at module '1.0' \(Embedding\)", "give inputs of the dtype that it reads"),
    ],
    ids=["branch", "size", "dimensions", "dtype"],
)
def test_a_failed_trace_names_the_module_and_its_line(inner, says, mend):
    with pytest.raises(KernelError, match=says) as caught:
        trace(nn.Sequential(nn.Linear(3, 4), nn.Sequential(inner, nn.ReLU()), nn.Linear(4, 1)), X)
    assert str(caught.value).endswith(mend)


def test_the_source_of_an_operation_is_never_torchs_own_file() -> None:
    graph = trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4)), torch.zeros(2, 3))
    assert {node.source for node in graph} == {""}
    assert "module '0' (Linear)" in next(node for node in graph if node.op == "linear").place


def test_a_network_of_several_inputs_is_told_to_take_one():
    with pytest.raises(KernelError, match="'input2' of its forward; wrap it in a module whose forward takes one tensor"):
        trace(nn.Bilinear(3, 3, 4), X)
