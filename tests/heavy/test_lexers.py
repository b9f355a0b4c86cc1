"""The colours of code in a terminal, with every lexer of Pygments: some have bugs."""

import pygments.lexers

from painted import seen, written


def test_every_language_of_pygments_leaves_the_text_unchanged():
    text = "if (x) { y = 'a' /* b */ }\n# c\n\n  <d e=\"f\">\n1.5 -- g\n"
    for _, names, *_ in pygments.lexers.get_all_lexers(plugins=False):
        if names:
            shown = written(f"```{names[0]}\n{text}```", 80, [30, 45])
            assert seen(shown, 80) == seen(f"```{names[0]}\n{text}```", 80), names
