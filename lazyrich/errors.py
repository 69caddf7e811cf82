"""One family of exceptions: each says what was got, what was expected, and the mend."""

from __future__ import annotations


class LazyrichError(Exception):
    """Anything that lazyrich refuses to do; the command line prints it as one line and exits with status 2.

    Example:
        >>> raise LazyrichError("got width 3, expected at least 4; pass a larger base=")
        Traceback (most recent call last):
        ...
        lazyrich.errors.LazyrichError: got width 3, expected at least 4; pass a larger base=
    """


class UsageError(LazyrichError):
    """A command or call whose words do not fit: an unknown name, a bad reference, widths in the wrong order."""


class FamilyError(LazyrichError):
    """A factory that is no family: it crashes, ignores its width, or holds a tensor without a role."""


class PlanError(LazyrichError):
    """A plan that cannot be made, or that does not belong to the model it was given."""


class TrainError(LazyrichError):
    """A training run that cannot be started or watched."""


class DataError(LazyrichError):
    """Data that is missing, unreadable or not what its header says."""


class StoreError(LazyrichError):
    """A run folder that cannot be used: it exists, is read-only, or holds another run."""


class ReportError(LazyrichError):
    """A result that cannot be drawn, or a page that cannot be written."""


class InitError(LazyrichError):
    """A rule of initialisation that is none, or does not fit the weight that it is given."""


class KernelError(LazyrichError):
    """A kernel that cannot be computed: an operation without a rule, inputs that do not fit, a singular Gram matrix.

    ``node`` is the name of the traced operation that has none, where it is one.
    """

    def __init__(self, *words: object, node: str = "") -> None:
        super().__init__(*words)
        self.node = node


class TangentError(LazyrichError):
    """A finite network that cannot be expanded: it mixes samples, draws at random, is not smooth, or does not fit in memory."""


class SweepError(LazyrichError):
    """A sweep that cannot be run: an empty grid, a function that cannot travel, a cluster that does not answer."""


class MetricError(LazyrichError):
    """A metric that is unknown, or features on which it is undefined."""


class AutoencoderError(LazyrichError):
    """An autoencoder that is none, or an experiment on one that cannot be run: halves that do not fit, data without variance."""


class Unfinished(LazyrichError):
    """Not a fault: a part was done as asked, and the result waits for the other parts."""


class RichError(LazyrichError):
    """A rich limit that cannot be computed: a network outside the covered class, too little memory, dynamics that diverge."""


class DivergedError(RichError):
    """A limit whose training diverges at this learning rate."""


RAISED = (  # what a person's own network, loss or metric raises where it is wrong or does not fit
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, NameError, AssertionError, ArithmeticError, ImportError,
)  # fmt: skip


def first_line(error: BaseException) -> str:
    r"""What an error says first, or what it is called where it says nothing.

    Example:
        >>> first_line(ValueError("too wide\nby 2")), first_line(AssertionError())
        ('too wide', 'AssertionError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that there is no memory: then nobody should try another way in silence.

    Example:
        >>> out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"))
        True
        >>> out_of_memory(RuntimeError("Batching rule not implemented"))
        False
    """
    if error is None:
        return False
    said = str(error).lower()
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return (
        known or "out of memory" in said or "not enough memory" in said or "allocate" in said or out_of_memory(error.__cause__)
    )
