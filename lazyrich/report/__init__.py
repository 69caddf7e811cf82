"""What a person looks at: figures and one self-contained page, drawn from results and never from models."""

from lazyrich.report.page import render

__all__ = ["render"]
