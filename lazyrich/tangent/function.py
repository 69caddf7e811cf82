"""A network as a function of its named parameters, which can be differentiated any number of times."""

from __future__ import annotations

import copy
import functools
import math
import numbers
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.errors import RAISED, TangentError, first_line
from lazyrich.family.law import refuse_complex
from lazyrich.functional import as_they_were, functional_call
from lazyrich.tangent.plain import is_plain
from lazyrich.tangent.refusals import refuse_lazy, refuse_mixing, refuse_rows, refuse_sharded, refuse_untensored, refuse_wrapped
from lazyrich.tangent.written import smooth

Parameters = Mapping[str, Tensor]
NO_ROW = 2**64 - 1  # torch's word for the row of an embedding without padding
TRIED = 16  # samples a pass where it is tried whether anything moves the outputs
RANDOM = "it draws at random, so it is no fixed function; call model.eval(), or draw outside of the network"
COUNTS = (
    "it draws at random or keeps a count, so it is no fixed function; call model.eval(), or do either outside of the network"
)
WRITE_OUT = "write it out in plain operations. ntk_of, which needs backward derivatives alone, may take it as it is"
CHECKPOINTS = "it is run under torch.utils.checkpoint; switch checkpointing off where tangents are taken"
OWN = (
    "write the autograd.Function in plain operations (a sign with the gradient of none is h + (h.sign() - h).detach()). ntk_of, "
    "which needs backward derivatives alone, takes it as it is"
)
SPARSE = "multiply by the dense form of a sparse matrix (to_dense()), or add rows up with index_add. ntk_of takes it as it is"
STORAGE = (
    "of a packed sequence (pack_padded_sequence), run the layer on the padded one and take each sample's output at its own last "
    f"step; of a sparse matrix, {SPARSE}"
)
INPUTS = (
    "take derivatives in the inputs with torch.func.grad, vjp or jvp instead of torch.autograd.grad. ntk_of, which needs backward "
    "derivatives alone, takes it as it is"
)
STILL = (
    "the outputs do not depend on any parameter in a way that can be differentiated (a sign, a rounding, a comparison, detach() or "
    "no_grad() in the forward pass); a tangent kernel does not exist"
)
MIXES = "so a kernel of two samples does not exist; use a layer that treats samples one by one (layer or group norm)"
UNREACHED = (
    "the outputs depend on none of its parameters, but on tensors that it does not register or puts in their places; register "
    "what trains (nn.Parameter, nn.ModuleList instead of a list), and give the network without what wraps it"
)
COPIES = ("ToCopyBackward", "CloneBackward")  # other dtypes, and the same
JUMPS = ("SignBackward", "SgnBackward", "RoundBackward", "FloorBackward", "CeilBackward", "TruncBackward")
# torch's words where it lacks a derivative, and the mend
UNDIFFERENTIABLE = {
    "Sparse tensors": SPARSE,
    "Sparse CSR tensors": SPARSE,
    "_sparse_": SPARSE,
    "from the 'Sparse": SPARSE,
    "storage of Sparse": SPARSE,
    "saved tensor hooks": CHECKPOINTS,
    "use_reentrant=True": CHECKPOINTS,
    "implement the jvp function": OWN,
    "does not have vmap support": OWN,
    "flat_bdims must not be None": OWN,  # of what makes its own batched form (generate_vmap_rule) and has no jvp
    "forward AD": WRITE_OUT,
    "derivative for": WRITE_OUT,
    "doesn't have storage": STORAGE,
    "Tensor.requires_grad_()": INPUTS,
    "functorch transforms": f"switch torch.utils.checkpoint off, if that is it, or {WRITE_OUT}",
}

# torch's words where a change in place is in the way
IN_PLACE = (
    "ZeroTensors are immutable",
    "vmap: inplace arithmetic",
    "modified by an inplace operation",
    "is being modified inplace",
)


class NetworkFunction:
    """f(theta, x): outputs of a module, (N, K), as a function of its trainable parameters by name.

    The module is only read. Its parameters and buffers are detached views, so later training of the module shows in them;
    ``parameters`` of a frozen copy is ``{name: p.clone() for name, p in function.parameters.items()}``.

    Args:
        model: any module that treats samples one by one; outputs (N, ...) are flattened to (N, K).

    Raises:
        TangentError: for BatchNorm in training mode, active dropout, or nothing to train, naming the module.

    Example:
        >>> function = NetworkFunction(nn.Linear(3, 2))
        >>> sorted(function.parameters)
        ['bias', 'weight']
        >>> function(function.parameters, torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TangentError(f"got {type(model).__name__}, expected an nn.Module")
        model = uncompiled(model)
        refuse_wrapped(model)
        refuse_lazy(model)
        refuse_mixing(model)
        trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise TangentError(f"{type(model).__name__} has no trainable parameters; a tangent needs some (requires_grad=True)")
        self.model, self._compiled = model, is_compiled(model)
        self.parameters: dict[str, Tensor] = trained
        frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
        self._constants = {**frozen, **dict(model.named_buffers())}

    def __call__(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Outputs (N, K); parameters that are left out keep the module's own values."""
        with differentiable(self.model):
            return self._run({**self._constants, **self.parameters, **parameters}, x)

    def _run(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        with smooth(), eager(self._compiled), as_they_were(list(self.model.modules())):
            out = _tensor_of(functional_call(self.model, dict(tensors), (x,)), self.model)
        if out.dim() == 0:
            raise TangentError(
                f"{type(self.model).__name__} returns a tensor without axes, expected outputs (N, ...), one row a sample; let it "
                "sum over the other axes alone, as y.flatten(1).sum(1)"
            )
        return out.flatten(1) if out.dim() > 1 else out.unsqueeze(1)

    def one(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Outputs (K,) of a single sample without a batch axis: what ``torch.func.vmap`` takes."""
        return self(parameters, x.unsqueeze(0)).squeeze(0)

    def rates(self, rates: Mapping[str, float] | None) -> dict[str, float]:
        """The learning-rate factor of every trainable tensor, 1 where none is given; those of frozen tensors do not count.

        Raises:
            TangentError: for names that are no tensors of the module, and factors that are negative or not finite.
        """
        if rates is not None and not isinstance(rates, Mapping):
            raise TangentError(f"got rates {type(rates).__name__}, expected numbers by tensor name, as {{'0.weight': 1.0}}")
        given = {n: r.item() if isinstance(r, Tensor) and r.dim() == 0 else r for n, r in (rates or {}).items()}
        for name, rate in given.items():
            if not isinstance(rate, numbers.Real):
                raise TangentError(f"got rate {rate!r} for '{name}', expected a number (of a plan's settings, their lr)")
            if name not in self.parameters and name not in self._constants:
                raise TangentError(f"got a rate for '{name}', expected a tensor of the module: {', '.join(self.parameters)}")
            if not 0 <= rate < math.inf:
                raise TangentError(f"got rate {rate} for '{name}', expected a learning-rate factor: finite and not negative")
        return {name: float(given.get(name, 1.0)) for name in self.parameters}

    @property
    def dtype(self) -> torch.dtype:
        """The widest of the parameters that train."""
        return functools.reduce(torch.promote_types, (p.dtype for p in self.parameters.values()))

    def real(self) -> None:
        """Refuse complex parameters, whose gradients would make complex kernels."""
        refuse_complex(self.parameters.items(), TangentError)

    def check(self, x: Tensor, name: str = "x") -> Tensor:
        """The outputs of a few samples; refuse inputs that are not taken, that are not finite, or that mix with one another."""
        self.check_input(x, name)
        return self.check_outputs(x, name)

    def check_input(self, x: Tensor, name: str = "x") -> None:
        """Refuse inputs that are not taken by themselves, before anything runs."""
        refuse_untensored(x, name)
        if x.dim() < 1 or len(x) == 0:
            raise TangentError(f"{name}: got {tuple(x.shape)}, expected a tensor (N, ...) with at least one sample")
        self._refuse_inference(x, name)
        if x.is_floating_point() and not torch.isfinite(x).all():
            raise TangentError(f"{name} has entries that are not finite; remove those samples")
        known = dict.fromkeys(p.dtype for p in self.model.parameters() if p.is_floating_point())
        if x.is_floating_point() and known and x.dtype not in known:
            dtypes, to = " and ".join(map(str, known)), next(iter(known))
            raise TangentError(f"{name} is {x.dtype} but the parameters are {dtypes}; call x.to({to}) or model.to({x.dtype})")

    def check_outputs(self, x: Tensor, name: str = "x") -> Tensor:
        """Those of a few samples; refuse what a network does not take, or lets mix."""
        some = _some(x.detach())
        try:
            both, *each = self._few(some, name)
            refuse_rows(type(self.model).__name__, both, len(some))
            alone = torch.cat(each) if all(part.shape[1:] == both.shape[1:] for part in each) else each[0]
        except RAISED as error:
            line = first_line(error)
            if "more than 1 value per channel" in line:  # torch.nn.functional.batch_norm, of a single sample
                raise TangentError(
                    f"{type(self.model).__name__} mixes samples: it runs a batch norm in training mode; call it with "
                    "training=False and running statistics (training=self.training, and model.eval()), or use another norm"
                ) from error
            raise TangentError(f"{type(self.model).__name__} does not take {name} of shape {tuple(x.shape)}: {line}") from error
        if not both.is_floating_point():
            raise TangentError(
                f"{type(self.model).__name__} returns {both.dtype}, expected real numbers; return logits or parts"
            )
        if not torch.isfinite(both).all():
            raise TangentError(f"{type(self.model).__name__} gives outputs that are not finite on {name}")
        if both.shape != alone.shape or not torch.allclose(both, alone, rtol=1e-3, atol=1e-5 * float(both.abs().max())):
            if not torch.equal(both, self.tried([some], name)[0]):
                raise TangentError(f"{type(self.model).__name__} gives other outputs each time on the same {name}: {COUNTS}")
            raise TangentError(
                f"{type(self.model).__name__} mixes samples: its outputs on some of {name} are others together than on each alone, "
                f"{MIXES}, and batch_first=True where axis 0 would hold positions"
            )
        return both

    def plain(self, x: Tensor) -> bool:
        """Whether it is known without a trial that the network treats samples one by one, and draws and changes nothing."""
        return is_plain(self.model, x)

    def _few(self, some: Tensor, name: str) -> list[Tensor]:
        """Outputs of a few samples together, and of parts of them."""
        if self.plain(some):
            with torch.no_grad():
                out = self._run({**self._constants, **self.parameters}, some)
            return [out, out]
        return self.tried([some, some[:1], *([some[1:]] if len(some) > 1 else [])], name)

    def refuse_still(self, x: Tensor) -> None:
        """Refuse outputs that move in jumps or not at all: gradients are zero, here and nearby, by an operation without slope.

        Off a saddle they are not zero; those of dead units and of what a zero readout reads are zero rightly.
        """
        if self._moves(self.parameters, x):
            return
        draw = torch.Generator().manual_seed(0)

        def near(t: Tensor) -> Tensor:
            size = 0.1 * (t.abs().mean() + 0.1) if t.is_floating_point() else 0
            return t + size * torch.randn(t.shape, generator=draw).to(t) if size else t

        if self._moves({name: near(p) for name, p in self.parameters.items()}, near(x)):
            return
        found, reached = self._graph(x[:TRIED])
        if found and not reached:
            raise TangentError(f"{type(self.model).__name__}: {UNREACHED}")
        if not found or any(node.name().startswith(JUMPS) for node in found):  # by an operation without slope
            raise TangentError(f"{type(self.model).__name__}: {STILL}")

    def _moves(self, parameters: Parameters, x: Tensor) -> bool:
        """Whether any gradient of any output is not zero."""
        live = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        for some in x.split(TRIED):
            with torch.enable_grad(), differentiable(self.model), unremarked():
                out = self(live, some)
                weights = torch.rand(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
                found = torch.autograd.grad(out, list(live.values()), weights, allow_unused=True) if out.requires_grad else ()
            if any(g is not None and bool(g.any()) for g in found):
                return True
        return False

    def refuse_own(self, x: Tensor) -> None:
        """Refuse forward derivatives of somebody's own: torch takes them for constant where they are derived again."""
        for node in self._graph(x[:1])[0]:
            kind = getattr(node, "_forward_cls", torch.autograd.Function)
            if kind.jvp is not torch.autograd.Function.jvp:
                raise TangentError(
                    f"{type(self.model).__name__}: forward derivatives of {kind.__name__}'s own jvp would come out wrong; {OWN}"
                )

    def refuse_padding(self, x: Tensor) -> None:
        """Refuse tables of which an embedding does not train the row of padding, although something else trains it.

        Of what moves that row, the outputs' own derivatives know all, and backward ones a part: no kernel of theirs is symmetric.
        """
        live = {} if self.plain(x) else {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        names, read = {id(p): name for name, p in live.items()}, dict[str, set[int]]()
        for node in self._graph(x[:1], live)[0] if live else ():
            row = node._saved_padding_idx if node.name().startswith("EmbeddingBackward") else NO_ROW
            for before, _ in () if node.name().startswith(COPIES) else node.next_functions:
                while before is not None and before.name().startswith(COPIES):
                    before = before.next_functions[0][0]
                if name := names.get(id(getattr(before, "variable", None))):
                    read.setdefault(name, set()).add(row)
        for name, rows in read.items():
            if len(rows) > 1:
                raise TangentError(
                    f"'{name}' of {type(self.model).__name__} is a tied table with padding_idx={min(rows)}: its row gets the "
                    "gradients of one use and not of the other, so it has no symmetric kernel; set padding_idx=None, or untie"
                )

    def _graph(self, x: Tensor, live: Parameters | None = None) -> tuple[set[Any], bool]:
        """The operations between parameters and outputs, and whether any parameter is among what they start from."""
        live = live or {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        with torch.enable_grad():
            out = self(live, x).clone()  # whose node holds all others; one of somebody's own lets go of them (torch 2.6)
        ahead: list[Any] = [out.grad_fn] if out.requires_grad else []
        seen: set[Any] = set()
        while ahead:
            node = ahead.pop()
            seen.add(node)
            ahead += [before for before, _ in node.next_functions if before is not None and before not in seen]
        ours = {id(p) for p in live.values()}
        return seen, any(id(getattr(node, "variable", None)) in ours for node in seen)

    def _refuse_inference(self, x: Tensor, name: str) -> None:
        if torch.is_inference_mode_enabled():
            raise TangentError("called under torch.inference_mode(), which allows no derivatives; use torch.no_grad() instead")
        made = {name: x, **self.parameters, **self._constants}
        if odd := [what for what, t in made.items() if t.is_inference()]:
            raise TangentError(
                f"'{odd[0]}' was made under torch.inference_mode(), which allows no derivatives; make it under torch.no_grad(), or "
                "give its clone()"
            )

    def tried(self, parts: Sequence[Tensor], name: str) -> list[Tensor]:
        """The outputs on copies of everything, which the network must leave as they are."""
        copies, parts = {n: t.clone() for n, t in {**self._constants, **self.parameters}.items()}, [x.clone() for x in parts]
        watched = [(f"'{n}'", t, t._version) for n, t in copies.items()] + [(f"its input {name}", x, x._version) for x in parts]
        drawn = _drawn(parts[0])
        with torch.no_grad():
            outs = [self._run(copies, x).detach() for x in parts]  # a network may track derivatives of its own
        if any(not torch.equal(a, b) for a, b in zip(drawn, _drawn(parts[0]), strict=True)):
            raise TangentError(f"{type(self.model).__name__} draws random numbers as it runs on {name}: {RANDOM}")
        for what, t, version in watched:
            if t._version != version:
                raise TangentError(
                    f"{type(self.model).__name__} changes {what} in place as it runs, so it is no fixed function; call "
                    "model.eval(), or work on a copy of the tensor"
                )
        return outs


def uncompiled(model: nn.Module) -> nn.Module:
    """What torch.compile wraps: its names are those that plans and checkpoints know, and it is traced for nobody else's tensors."""
    own = getattr(model, "_orig_mod", None)
    return own if type(model).__name__ == "OptimizedModule" and isinstance(own, nn.Module) else model


def is_compiled(model: nn.Module) -> bool:
    """Whether parts of it run by torch.compile."""
    return any(uncompiled(module) is not module or module._compiled_call_impl is not None for module in model.modules())


def eager(compiled: bool) -> AbstractContextManager[Any]:
    """Within it, compiled parts run as they were written: derivatives would have them compiled again each time."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _some(x: Tensor) -> Tensor:
    """Up to four samples: the first, the first that differs from it, as two that are alike would not show that they mix, and more.

    What takes the best few of a batch, as experts choose their samples, takes all of two.
    """
    other = 1
    while other < len(x) and torch.equal(x[other], x[0]):
        other += 1
    chosen = dict.fromkeys([0, other if other < len(x) else 1, len(x) // 2, len(x) - 1, 1, 2])
    return x[[i for i in chosen if i < len(x)][:4]]


def _drawn(x: Tensor) -> list[Tensor]:
    """How far torch's random numbers have been drawn, on the processor and where x is."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(x.device)] if x.is_cuda else [])]


def copy_of(model: nn.Module) -> nn.Module:
    """The module anew, without what torch.compile wraps around it.

    Raises:
        TangentError: where it holds results that cannot be copied.
    """
    return copied(uncompiled(model))


def copied(model: nn.Module) -> nn.Module:
    """The module anew; results of a forward pass that it holds, as the weights of old weight norms are, as plain numbers.

    Raises:
        TangentError: where it holds results that cannot be copied.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.last = layer(torch.ones(1, 2))  # copy.deepcopy refuses it
        >>> copied(layer).last.requires_grad
        False
    """
    refuse_sharded(model)
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    try:
        return copy.deepcopy(model, {id(value): value.detach().clone() for value in held if not value.is_leaf})
    except (RuntimeError, TypeError, AssertionError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        mend = "let it hold no results of its last forward pass, and nothing that copy.deepcopy refuses, or give what makes it anew"
        mend = SPARSE if "SparseCsr" in said else mend
        raise TangentError(f"{type(model).__name__} cannot be copied ({said}); {mend}") from error


def _tensor_of(out: Any, model: nn.Module) -> Tensor:
    if not isinstance(out, Tensor):
        raise TangentError(
            f"{type(model).__name__} returns {type(out).__name__}, expected one tensor (N, ...); wrap it in a module that "
            "returns the output that you mean"
        )
    return out


def _sentence(error: BaseException) -> str:
    """The first one of torch's words."""
    return str(error).splitlines()[0].split(". ")[0]


@contextmanager
def unremarked() -> Iterator[None]:
    """Within it, torch does not remark on what asks for nothing of a user.

    That backward hooks of somebody's run, as inputs are constants here, and that vectorised passes take some operations one by one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented the batch")
        yield


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Within it, torch's complaint of a missing derivative, or of a change in place, is one of the network."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # NotImplementedError is one
        if any(words in str(error) for words in IN_PLACE):
            raise TangentError(
                f"{type(model).__name__} changes a tensor in place where derivatives need it as it was ({_sentence(error)}); make "
                "a new one, torch.cat([h[:, :3].exp(), h[:, 3:]], 1) in place of h[:, :3].exp_()"
            ) from error
        mend = next((mend for words, mend in UNDIFFERENTIABLE.items() if words in str(error)), None)
        if mend is None:
            raise
        raise TangentError(
            f"{type(model).__name__} has an operation without a forward derivative ({_sentence(error)}); {mend}"
        ) from error
