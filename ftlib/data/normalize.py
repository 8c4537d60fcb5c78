r"""Normalising texts: the one repair that training and serving share.

Column operations do the work; values go through Python only where they need ftfy (not plain ASCII) or hold an
entity. The order is: unicode, HTML, white space.

- Unicode: mojibake is repaired and the text brought to NFC. Speer (2019), "ftfy",
  https://doi.org/10.5281/zenodo.2591652. Curly quotes stay as they are: they are not damage.
- HTML: comments, declarations, the content of script and style, and every tag of the HTML standard go. A tag that
  styles words leaves nothing, as in a browser; any other leaves a space. Then entities that end in a semicolon are
  decoded. What only looks like a tag stays: ``a < b``, ``<3``, ``<user>``.
  Tag names: https://html.spec.whatwg.org/multipage/indices.html.
- White space: terminal colours, control characters and invisible marks go (joiners stay: emoji and some scripts
  need them); each run of white space becomes one space; the ends are trimmed.
"""

from __future__ import annotations

import functools
import html
import html.entities
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.errors import DataError

if TYPE_CHECKING:
    import ftfy
    import pyarrow as pa

    from ftlib.data.clean import Cleaning

INLINE = (
    "a abbr acronym b basefont bdi bdo big cite code del dfn em font i ins kbd mark q s samp small span strike "
    "strong sub sup tt u var wbr"
)
BLOCKS = (
    "address area article aside audio base blink blockquote body br button canvas caption center col colgroup "
    "data datalist dd details dialog dir div dl dt embed fieldset figcaption figure footer form frame frameset "
    "h1 h2 h3 h4 h5 h6 head header hgroup hr html iframe img input label legend li link main map marquee menu "
    "meta meter nav noframes noscript object ol optgroup option output p param picture pre progress rp rt ruby "
    "script search section select slot source style summary svg table tbody td template textarea tfoot th "
    "thead time title tr track ul video"
)
FLAGS = (
    "allowfullscreen async autofocus autoplay checked controls default defer disabled hidden ismap loop "
    "multiple muted nowrap open readonly required reversed selected"
)
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"'<>]+)"""
_ATTRIBUTE = rf"""(?:\s+[a-z_:@][\w:.-]*\s*=\s*{_VALUE}|\s+(?:{FLAGS.replace(" ", "|")}))"""
# An attribute needs its "=", so that "a<b and c>d" is not taken for a tag. "o:p" and its like come from Word.
STYLING = rf"(?i)</?(?:{INLINE.replace(' ', '|')}){_ATTRIBUTE}*\s*/?>"
MARKUP = (
    r"(?is)<script\b[^<>]*>.*?</script\s*>|<style\b[^<>]*>.*?</style\s*>"
    r"|<!--.*?-->|<!\[[^<>]*\]>|<!doctype\b[^<>]*>|<\?xml[^<>]*>"
    rf"|</?(?:{BLOCKS.replace(' ', '|')}|[a-z]+:[a-z]+){_ATTRIBUTE}*\s*/?>"
)
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
REPAIRS = ("unicode", "html", "whitespace")
ESCAPED_TWICE = 3
"""How often entities are decoded: feeds escape them again ("&amp;#39;")."""

SPECIAL = "\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06\uff00-\uffef\u3000"
"""Ligatures, and letters of full or half width: what ftfy repairs beside mojibake."""
SUSPECT = rf"[^\x{{0}}-\x{{7f}}]{{2}}|[\x{{80}}-\x{{9f}}ŒœÃÂ{SPECIAL}]"
"""What a text must hold for ftfy to change it: its signs of mojibake are two characters beyond ASCII side by side,
but for these. Most accented words and curly apostrophes are passed by."""

_BLANK = r"\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_INVISIBLE = (
    r"\x{0}-\x{8}\x{e}-\x{1f}\x{7f}-\x{84}\x{86}-\x{9f}\x{ad}\x{200b}\x{200e}\x{200f}"
    r"\x{202a}-\x{202e}\x{2060}-\x{2064}\x{2066}-\x{206f}\x{feff}\x{fff9}-\x{fffb}"
)
INVISIBLE = rf"\x{{1b}}\[[0-9;?]*[A-Za-z]|[{_INVISIBLE}]"
SPACES = rf"[{_BLANK}]{{2,}}|[{_BLANK.replace(' ', '')}]"
UNTIDY = rf"[{_INVISIBLE}{_BLANK.replace(' ', '')}]|^ | $|  "
"""What a text holds that the white space repair would change."""


@dataclass(frozen=True)
class Repaired:
    """Texts and what was done to them.

    Attributes:
        texts: The repaired texts, null where they were null.
        changed: "unicode", "html", "whitespace" -> a boolean array, true where that repair changed the text.
    """

    texts: pa.Array
    changed: dict[str, pa.Array]


def normalize(texts: pa.ChunkedArray | pa.Array, cleaning: Cleaning) -> pa.Array:
    """Return the texts repaired as `cleaning` says. Serving calls this too."""
    import pyarrow as pa

    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    repaired = [repair(chunk, cleaning).texts for chunk in chunks]
    return pa.concat_arrays(repaired) if repaired else pa.array([], pa.string())


def repair(texts: pa.Array, cleaning: Cleaning, column: str = "text") -> Repaired:
    """Return the texts repaired as `cleaning` says, with what changed in which; `column` is for messages."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        texts = texts.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(
            f"the column for {column} is of type {texts.type}, expected text; name another in data.columns.{column}."
        ) from None
    nothing = pa.array([False]).take(pa.array([0] * len(texts), pa.int64()))
    unicode, markup, untidy = nothing, nothing, nothing
    if cleaning.fix_unicode:
        texts, unicode = _where(pc.invert(pc.string_is_ascii(texts)), texts, _fix_unicode)
    if cleaning.collapse_whitespace:
        untidy = pc.match_substring_regex(texts, UNTIDY).fill_null(False)  # before HTML: its spaces are not the user's
    if cleaning.strip_html:
        suspect = pc.or_(pc.match_substring(texts, "<"), pc.match_substring(texts, "&"))
        texts, markup = _where(suspect, texts, _strip_html)
    if cleaning.collapse_whitespace:
        texts, _ = _where(pc.or_(untidy, markup), texts, _collapse)
    return Repaired(texts, {"unicode": unicode, "html": markup, "whitespace": untidy})


def _where(needed: pa.Array, texts: pa.Array, function: Callable[[pa.Array], pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Apply `function` to the texts that need it; return all texts, and which changed."""
    import pyarrow.compute as pc

    needed = needed.fill_null(False)
    repaired = pc.replace_with_mask(texts, needed, function(texts.filter(needed)))
    return repaired, pc.not_equal(repaired, texts).fill_null(False)


def _fix_unicode(texts: pa.Array) -> pa.Array:
    """Repair mojibake where it may be, then bring all to NFC (by Python: Arrow's utf8_normalize gives NFD for NFC)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    repaired, _ = _where(pc.match_substring_regex(texts, SUSPECT), texts, _repair_mojibake)
    return pa.array([unicodedata.normalize("NFC", text) for text in repaired.to_pylist()], pa.string())


def _repair_mojibake(texts: pa.Array) -> pa.Array:
    import ftfy
    import pyarrow as pa
    from ftfy.badness import is_bad

    config, special = _ftfy_config(), re.compile(f"[{SPECIAL}]")
    fixed = [
        ftfy.fix_text(text, config) if is_bad(text) or special.search(text) else text for text in texts.to_pylist()
    ]
    return pa.array(fixed, pa.string())


@functools.cache
def _ftfy_config() -> ftfy.TextFixerConfig:
    """Return ftfy's settings: encoding repair and NFC; entities and control characters have their own switches."""
    import ftfy

    return ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        remove_control_chars=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        normalization="NFC",
    )


def _strip_html(texts: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts, _ = _where(pc.match_substring(texts, "<"), texts, _strip_tags)
    escaped = pc.match_substring(texts, "&")
    decoded = pa.array([_decode_entities(text) for text in texts.filter(escaped).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, escaped, decoded)


def _strip_tags(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.replace_substring_regex(pc.replace_substring_regex(texts, MARKUP, " "), STYLING, "")


def _decode_entities(text: str) -> str:
    for _ in range(ESCAPED_TWICE):
        decoded = ENTITY.sub(_character, text)
        if decoded == text:
            break
        text = decoded
    return text


def _character(entity: re.Match[str]) -> str:
    """Return what an entity stands for; an unknown name stays (`html.unescape` would take "&notit;" for "¬it;")."""
    known = entity[0][1] == "#" or entity[0][1:] in html.entities.html5
    return html.unescape(entity[0]) if known else entity[0]


def _collapse(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    visible = pc.replace_substring_regex(texts, INVISIBLE, "")
    return pc.utf8_trim(pc.replace_substring_regex(visible, SPACES, " "), " ")
