"""A mkdocs hook: references in docstrings, such as :class:`~mixcollate.MixUp`, become links."""

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Replace references by links if the page documents the name, else by code."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        anchor = f"mixcollate.{name}"
        code = f"<code>{name}</code>"
        return f'<a href="#{anchor}">{code}</a>' if f'id="{anchor}"' in html else code

    return re.sub(r":(?:class|func|meth):<code>~?(?:mixcollate\.)?([\w.]+)</code>", link, html)
