"""Texts by which a reply may harm the page: some run or load something, others keep a browser busy
for long.

`hostile_texts(length)` returns some two hundred, by their kinds. Repeated texts have about this
length.
"""

EVIL = "document.title = 'run'"


def displayed(formula):
    return f"$$ {formula} $$"


def fenced(language, code):
    return f"```{language}\n{code}\n```"


# Formulas that link to something, load something, or give an element a class, a style or an id.
REACHING = [
    rf"\href{{javascript:{EVIL}}}{{x}}",
    r"\href{https://evil.example}{x}",
    r"\url{https://evil.example}",
    r"\includegraphics{https://evil.example/a.png}",
    r"\includegraphics[height=9em]{data:image/svg+xml,<svg/onload=x>}",
    r"\class{main panel}{x}",
    r"\id{log}{x}",
    r"\style{position: fixed; background: url(//evil.example)}{x}",
    r"\data{onclick=x,src=//evil.example}{x}",
    r"\htmlClass{main}{x} \htmlStyle{color: red}{x}",
    rf"\text{{<img src=x onerror=\"{EVIL}\">}}",
    r"\texttip{x}{https://evil.example} \mathtip{x}{y} \toggle{x}{y}\endtoggle",
    r"\label{log}\ref{log}\eqref{javascript:x}",
    r"\color{url(//evil.example)}{x}\textcolor{var(--ink)}{x}\colorbox{red;}{x}",
    r"\unicode{60}script\unicode{62} \char`<script>",
    r"\require{html} \bbox[url(//evil.example)]{x}",
]

# Formulas that define commands, which could grow without a limit.
DEFINING = [
    r"\def\a{\a}\a",
    r"\def\a{\b\b}\def\b{\c\c}\def\c{\d\d}\def\d{\e\e}\def\e{xxxxxxxxxx}\a\a\a\a",
    r"\def\a#1!{\a#1#1!}\a xx!",
    r"\gdef\a#1{#1#1}\a{\a{\a{\a{\a{\a{\a{\a{\a{\a{\a{\a{x}}}}}}}}}}}}",
    r"\newcommand{\a}[1]{#1#1#1#1#1#1#1#1}\a{\a{\a{\a{\a{\a{\a{x}}}}}}}",
    r"\renewcommand{\frac}[2]{\frac{#1}{#2}}\frac{1}{2}",
    r"\edef\a{xxxxxxxx}\edef\a{\a\a\a\a\a\a}\edef\a{\a\a\a\a\a\a}\edef\a{\a\a\a\a\a\a}\a",
    r"\let\a=\frac\let\frac=\a\a12",
    r"\futurelet\a\b\c",
    r"\tag{\df@tag\df@tag}\df@tag",
    r"\def\proto{__proto__}\let\__proto__\x",
]

# Nested formulas: the opening, the content, the closing, and the depth.
NESTING = [
    ("{", "x", "}", 900),
    (r"\frac{1}{", "x", "}", 190),
    (r"\sqrt{", "x", "}", 240),
    (r"\left(", "x", r"\right)", 120),
    ("x^{", "x", "}", 400),
    ("x_{a}^{", "x", "}", 240),
    (r"\begin{matrix}", "x", r"\end{matrix}", 60),
    (r"\text{$", "x", "$}", 180),
    (r"\mathllap{", "x", "}", 150),
    (r"\cancelto{0}{", "x", "}", 120),
    (r"\mathchoice{a}{b}{c}{", "x", "}", 80),
    (r"\overbrace{", "x", "}^n", 120),
    (r"\boxed{\hat{", "x", "}}", 100),
    (r"\xrightarrow{", "x", "}", 120),
    (r"\left\{\frac{\sqrt{", "x", r"}}{2}\right.", 50),
    (r"\raisebox{1em}{$", "x", "$}", 90),
    (r"\Huge{", "x", "}", 200),
]

# Large formulas: absurd lengths, and many cells, lines and letters.
LARGE = [
    r"\rule{1e9em}{1e9em}",
    r"\rule{99999em}{99999em}x",
    r"\kern{1e9em}x\kern-99999em y",
    r"\hspace{99999cm}x\mkern99999mu y",
    r"\raisebox{-99999em}{over the page}",
    r"\kern-90em\text{Sign in at evil.example}",
    r"\begin{matrix}" + "&" * 900 + r"\\" * 450 + r"\end{matrix}",
    r"\begin{matrix}" + r"x\\[900em]" * 150 + r"\end{matrix}",
    r"\begin{array}{" + "c|" * 900 + "}x" + r"\end{array}",
    r"\begin{align}" + r"a&=b\\" * 270 + r"\end{align}",
    r"\begin{CD}" + r"A @>a>> B @>b>> C\\ @VVV @VVV @VVV\\" * 40 + r"\end{CD}",
    "x" * 1_990,
    "x^" * 990 + "x",
    "'" * 1_900,
    r"\big(" * 390,
    r"\overset{a}{b}" * 130,
    r"\displaystyle\sum_{i=0}^n\int_0^1" * 55,
]

# Many formulas, and many that only begin.
MANY_FORMULAS = ["$x$ ", "$$x$$ ", r"\(x\) ", "$$\nx\n$$\n\n", "\\[x\\]\n", r"$\frac{a}{b}$", "$"]
BEGINNINGS = ["$$ ", r"\[ ", r"\( ", "$x ", "$$\na\n", "\\[\na\n", "$`$ ", r"\\( ", "| $x$ "]
MANY_FORMULAS += [r"$\bad{x}$ ", r"$\sqrt{$ ", "> $$\n> x\n> $$\n\n", "- $x_1$\n", "# $x$\n"]

# Texts that begin something in a language, or look like it.
UNITS = {
    "bash": ['"', "$(", "<<a\n"],
    "c": ["#a ", '"\\\n', "/*"],
    "cpp": ["0'a ", "a<a<", 'R"(', "a::a "],
    "csharp": [".a", "a<a, ", '$@"{', "(a, "],
    "css": ["@a ", "a{", "url(", "--a:"],
    "dart": ['"${', "a<a<"],
    "diff": ["+a\n", "@@ -1 "],
    "docker": ["RUN a\\\n", "FROM a "],
    "elixir": ['"#{', "~s("],
    "go": ["`", "a."],
    "graphql": ['"""', "a(b:"],
    "haskell": ["{-", "A.a "],
    "hcl": ["<<a\n", '"${'],
    "ini": ["[a\n", "a="],
    "java": ["@A(", "A<A<", '"""'],
    "javascript": ["/[", "`${", "(a,", "=/a", "a=>("],
    "json": ['"a":', "[", '"\\'],
    "jsx": ["<a b={", "<A>{", "{/*"],
    "julia": ['"$(', "a'"],
    "kotlin": ['"${', '"""$'],
    "latex": ["\\a{", "$$"],
    "lua": ["[==[", "--[["],
    "makefile": ["$(", "a:\n"],
    "markdown": ["[a](", "**a ", "![", "```\n", "|a|"],
    "markup": ["<a ", "<script>", "<!--", '<a b="', "<!DOCTYPE ["],
    "matlab": ["a' ", "%{\n"],
    "nginx": ["a {", "${a"],
    "perl": ["q(", "m{", "=~/", "<<a\n"],
    "php": ["<?php ", '"$a[', "#[a("],
    "powershell": ['"$(', '@"\n', "[a"],
    "protobuf": ["a.b.c ", "map<"],
    "python": ['f"{', "'''", 'r"', "@a."],
    "r": ["`", "%a "],
    "ruby": ['"#{', "%w[", "/#{", "<<~A\n"],
    "rust": ['r#"', "'a", "#![a", "|a,"],
    "scala": ['s"${', "a[a["],
    "scss": ["#{", "@a $", "a:b("],
    "sql": ["'a''", "/*", "@a"],
    "swift": ['"\\(', '#"', "@a("],
    "toml": ['"""', "[[a."],
    "tsx": ["<A<", "a as "],
    "typescript": ["a<A, ", "@A("],
    "yaml": ["&a ", "- |\n ", "a: [", "!!a "],
}

# Code whose language has a name that does not exist, or that is read as something else.
ODD_NAMES = [
    "constructor",
    "__proto__",
    "toString",
    "extend",
    "<img/src=x/onerror=x>",
    "javascript:x",
    "JavaScript onclick=x",
    "&#106;s",
    "\u202ejs",
    "python" * 2_000,
]

# HTML that runs or loads something.
HTML = [
    f'<details open ontoggle="{EVIL}"><summary onclick="{EVIL}">x</summary>\n\nx\n\n</details>',
    f"<details><summary><script>{EVIL}</script></summary><img src=x onerror={EVIL}></details>",
    "<details style='position: fixed; inset: 0' class=panel id=log popover>\n\nx\n\n</details>",
    f"<details>\n\n```html\n</details><script>{EVIL}</script>\n```\n\n</details>",
    f"<details>\n\n[x](javascript:{EVIL})\n\n$$\\href{{javascript:x}}{{y}}$$\n\n</details>",
    f"<details open {'a ' * 9_000}>\n\nx\n\n</details>",
    f"<script>{EVIL}</script>",
    f'<svg onload="{EVIL}"><animate onbegin="{EVIL}"/></svg>',
    f'<math><mi xlink:href="javascript:{EVIL}">x</mi></math>',
    f"<math><annotation-xml encoding=text/html><script>{EVIL}</script></annotation-xml></math>",
    "<style>@import url(//evil.example);</style><link rel=stylesheet href=//evil.example>",
]


# HTML that is never closed, or closes what was never open.
UNCLOSED = [
    "<details>\n\n",
    "<details><summary>a</summary>\n\n- b\n",
    "<details>a</details>\n",
    "> <details>\n> a\n\n",
    "- <details>\n",
    "</details>\n\n",
    "<details ",
    "`<details>` </details> ",
]


def hostile_texts(length):
    """The texts, by their kinds."""

    def repeated(unit):
        return unit * (length // len(unit))

    texts = {f"a formula that reaches: {formula}": displayed(formula) for formula in REACHING}
    texts |= {f"a formula that defines: {formula}": displayed(formula) for formula in DEFINING}
    for opening, inner, closing, depth in NESTING:
        formula = opening * depth + inner + closing * depth
        texts[f"{depth} times {opening}"] = displayed(formula)
    texts |= {f"a large formula: {formula[:40]}": displayed(formula) for formula in LARGE}
    for unit in (*MANY_FORMULAS, *BEGINNINGS, *UNCLOSED):
        texts[f"a text of {unit!r}"] = repeated(unit)
    for language, units in UNITS.items():
        for unit in units:
            texts[f"{language} of {unit!r}"] = fenced(language, repeated(unit))
    code = f"</code></pre><script>{EVIL}</script>"
    texts |= {f"code in {name[:30]!r}": fenced(name, code) for name in ODD_NAMES}
    texts |= {f"HTML: {text[:60]!r}": text for text in HTML}
    return texts
