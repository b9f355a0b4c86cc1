"""Providers of language models: what is asked of them, and what their answers mean.

    conversation ─ a prompt that fits ─► protocols (Anthropic's, OpenAI's)
                                            │ a request of base, again where that may help
    answer ◄─ text, usage, the end ─────────┤   think_tags: what of the text is none
    faults ◄─ a status, a body, an end ─────┘   quotations: the provider's own words in it

`faults.toml` has what their failures mean. `llm.py` is their face.
"""
