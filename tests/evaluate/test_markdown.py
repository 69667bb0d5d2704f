"""The report as Markdown, read back by a parser of Markdown."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.token import Token

from reasonembed.evaluate.blocks import Bullets, Cell, Fold, Heading, Paragraph, Picture, Section, Table
from reasonembed.evaluate.markdown import render_markdown

HOSTILE = 'a|b <script>alert("x")</script> *bold* _x_ `code` [link](http://x) ![i](y) # & \\ ~~z~~ &lt;\nnext - 1.'


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)


def cells_of(tokens: list[Token]) -> list[str]:
    inside = [tokens[place + 1] for place, token in enumerate(tokens) if token.type in ("td_open", "th_open")]
    return ["".join(child.content for child in token.children or ()) for token in inside]


def test_every_cell_comes_back_as_it_was_whatever_it_holds() -> None:
    table = Table("caption", ("System", "Mean", "Text"), ((Cell(HOSTILE), Cell("1.5"), Cell("")),), prose=(2,))
    tokens = parsed(render_markdown(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, [Section("x", HOSTILE, (table,))]))
    flat = " ".join(HOSTILE.split())
    assert cells_of(tokens) == ["System", "Mean", "Text", flat, "1.5", ""]
    assert not [token for token in tokens if token.type.startswith("html")]
    inline = [child.type for token in tokens for child in token.children or ()]
    assert not {"html_inline", "link_open", "image", "em_open", "code_inline", "s_open"}.intersection(inline)
    headings = [tokens[place + 1] for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert ["".join(child.content for child in token.children or ()) for token in headings] == [flat, flat]


def test_text_that_looks_like_a_list_or_a_rule_stays_a_paragraph() -> None:
    for text in ("- no item", "1. no item", "+ no item", "---", "===", "> no quote"):
        tokens = parsed(render_markdown("t", "", {}, [Section("x", "s", (Paragraph(text),))]))
        assert tokens[-2].content.replace("\\", "") == text and tokens[-3].type == "paragraph_open", text


def test_every_kind_of_block_is_written() -> None:
    table = Table("caption", ("System", "Mean"), ((Cell("a"), Cell("1.5", best=True)),))
    blocks = (
        Paragraph("said"),
        Heading("head"),
        Bullets(("one", "two")),
        table,
        Picture("wide", "narrow", alt="what it shows", caption="c"),
        Fold("folded", (table,)),
    )
    text = render_markdown("title", "summary", {"Date": "today"}, [Section("x", "section", blocks)])
    assert text == (
        "# title\n\nsummary\n\n- Date: today\n\n## section\n\nsaid\n\n### head\n\n- one\n- two\n\n**caption**\n\n"
        "| System | Mean |\n| --- | ---: |\n| a | **1.5** |\n\n*In report.html: what it shows*\n\n### folded\n\n"
        "**caption**\n\n| System | Mean |\n| --- | ---: |\n| a | **1.5** |\n"
    )
