"""For mkdocs: what docstrings call :class:`~mixcollate.MixUp` reads as a link to it."""

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Links where the page has the name, code elsewhere."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        anchor = f"mixcollate.{name}"
        code = f"<code>{name}</code>"
        return f'<a href="#{anchor}">{code}</a>' if f'id="{anchor}"' in html else code

    return re.sub(r":(?:class|func):<code>~?(?:mixcollate\.)?([\w.]+)</code>", link, html)
