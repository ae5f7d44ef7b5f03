"""The texts of pages and figures in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from .. import words
from ..errors import UsageError

__all__ = ["LANGUAGES", "Texts", "check_language"]

LANGUAGES = ("en", "zh")
OF_PAGES = {"en": "en", "zh": "zh-CN"}  # as HTML has it


def check_language(language: str) -> str:
    """Return a language that texts exist in.

    Raises:
        UsageError: It is another one.
    """
    if language not in LANGUAGES:
        raise UsageError(f"{words.option('lang', language)}: texts exist in {' and '.join(LANGUAGES)}")
    return language


class Texts:
    """A table of texts by language and key; called with a key it returns the text.

    Args:
        table: ``{"en": {key: text}, "zh": {key: text}}``, equal keys in both; a text may hold fields, ``{n} runs``.
        language: ``en`` or ``zh``.

    Raises:
        UsageError: There are no texts in this language.
    """

    def __init__(self, table: Mapping[str, Mapping[str, str]], language: str) -> None:
        self.language = check_language(language)
        self._texts = table[language]

    def __call__(self, key: str, /, **fields: object) -> str:
        """Return a text with its fields filled in."""
        return self._texts[key].format(**fields) if fields else self._texts[key]

    @property
    def characters(self) -> str:
        """Every character that occurs, which a font must have."""
        return "".join(sorted(set("".join(self._texts.values()))))
