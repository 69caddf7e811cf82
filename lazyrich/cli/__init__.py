"""The command line: ``lazyrich VERB ...``, one verb a file.

Nothing heavy is imported before a verb runs, so ``--help`` is instant. Bad input ends with one line and status 2, Ctrl-C with
status 130; finished work is kept either way.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

VERBS = {
    "check": "train a few steps at several widths; verdict, mend and a page",
    "depth": "the same over depth, for networks of residual branches",
    "plan": "the initialisation and learning rates of every tensor",
    "init": "what the initialisation does to signals and gradients, layer by layer, drawn and predicted",
    "scheme": "what a parameterisation does at infinite width",
    "kernel": "the network at infinite width: NNGP and NTK as classifiers, beside finite ones",
    "tangent": "the network beside its tangent: alignment by layer, movement, linearisation error, corrections",
    "limit": "the network at infinite width where its features move, beside finite ones and a kernel that stays",
    "transfer": "does the best learning rate stay put as the width grows?",
    "dial": "from lazy to rich: where the network leaves its linearisation, and what that does to its losses",
    "autoencoder": "starts, schemes and widths of an autoencoder: what it learns early, what it becomes, and what won",
    "sweep": "any function over a grid of settings: kept as it finishes, continued, run here or on a cluster",
    "merge": "bring the stores of several shards or machines together",
    "export": "the trials of a store as a Parquet, CSV or JSON table",
    "forget": "remove trials of a store that failed, or that older code left",
    "report": "draw the page of a run folder again",
    "demo": "the main job on real images: a classifier and an autoencoder",
}

USAGE = """usage: lazyrich VERB ... ; lazyrich VERB --help tells more

Tells where on the lazy-rich axis your network trains, whether it is well-behaved at every width, and the mend.

{verbs}

example:
  lazyrich check lazyrich.zoo:mlp --scheme mup --optimizer adamw
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    from lazyrich.cli.interruption import Interruption
    from lazyrich.errors import LazyrichError, Unfinished

    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from lazyrich import __version__

        print(__version__)
        return 0
    if words[0] not in VERBS:
        return _refuse(f"got '{words[0]}', expected one of {', '.join(VERBS)}; try lazyrich --help")
    ctrl_c = Interruption()
    try:
        with ctrl_c:
            importlib.import_module(f"lazyrich.cli.{words[0]}").run(words[1:])
    except Unfinished as done:
        print(done)
        return 0
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        return _stopped()
    except Exception as error:
        if ctrl_c.asked:  # whatever a library makes of it
            return _stopped()
        if isinstance(error, LazyrichError):
            return _refuse(str(error))
        raise
    return 0


def usage() -> str:
    """The text of ``lazyrich --help``."""
    return USAGE.format(verbs="\n".join(f"  {verb:11} {what}" for verb, what in VERBS.items()))


def _stopped() -> int:
    print("\nlazyrich: stopped; what was finished is kept, the same command continues", file=sys.stderr)
    return 130


def _refuse(message: str) -> int:
    print(f"lazyrich: {' '.join(message.split())}", file=sys.stderr)
    return 2


def script() -> None:
    """Entry point of the ``lazyrich`` script."""
    sys.exit(main())
