"""Numbers as a person reads them: a true minus sign, few digits, and a word where there is no number."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EM DASH}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def signed(value: float | None, absent: str = DASH) -> str:
    """A slope with its sign and two decimals; `absent` where there is none.

    Example:
        >>> signed(0.021), signed(-0.5), signed(-0.001), signed(None, "diverged")
        ('+0.02', '−0.50', '0.00', 'diverged')
    """
    if value is None:
        return absent
    text = f"{value:+.2f}" if abs(value) < 1000 else f"{value:+.1e}"
    if float(text) == 0:
        return "0.00"
    return text.replace("-", MINUS)


def margin(half: float | None) -> str:
    """The half-width of an interval, as the part of a cell behind the slope.

    Example:
        >>> margin(0.07), margin(None)
        ('± 0.07', '')
    """
    if half is None:
        return ""
    return f"± {half:.2f}" if half >= 0.005 else "± <0.01"


def brief(value: float | None, absent: str = DASH, figures: int = 3) -> str:
    """A quantity with three significant digits, or another number, in powers of ten where decimals would be long.

    Example:
        >>> brief(0.123456, figures=4)
        '0.1235'
        >>> brief(2.30259), brief(0.00002), brief(0.000996), brief(128.0), brief(None)
        ('2.3', '2·10⁻⁵', '10⁻³', '128', '—')
    """
    if value is None:
        return absent
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{figures}g}".replace("-", MINUS) if abs(value) < 1000 else f"{value:.0f}".replace("-", MINUS)
    digits, _, exponent = f"{value:.{max(1, figures - 2)}e}".partition("e")
    factor = f"{float(digits):g}".replace("-", MINUS)
    return f"10{superscript(int(exponent))}" if factor == "1" else f"{factor}·10{superscript(int(exponent))}"


def digits(value: float | None, absent: str = DASH) -> str:
    """A number with three significant digits kept, for a column whose decimals should line up.

    Example:
        >>> digits(2.3), digits(0.9931), digits(128.2)
        ('2.30', '0.993', '128')
    """
    if value is None or not 1e-2 <= abs(value) < 1e5:
        return brief(value, absent)
    return brief(value) if abs(value) >= 100 else f"{value:#.3g}".rstrip(".").replace("-", MINUS)


def superscript(power: int) -> str:
    """An integer written as an exponent.

    Example:
        >>> "10" + superscript(-3)
        '10⁻³'
    """
    return str(power).translate(_SUPERSCRIPT)


def shorten(name: str, most: int) -> str:
    """A name of at most `most` characters: the middle gives way, since both ends of a module path tell.

    Example:
        >>> shorten("transformer.h.0.attn.c_proj", 17)
        'transfor…n.c_proj'
    """
    name = " ".join(name.split())
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}…{name[len(name) - (most - head - 1) :]}"
