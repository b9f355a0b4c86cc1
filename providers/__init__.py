"""Providers of language models: the requests to them, and how their answers and errors are read.

    conversation ─ a prompt that fits ─► protocols (Anthropic's, OpenAI's)
                                            │ base sends the request, with retries
    answer ◄─ text, usage, the end ─────────┤   think_tags: thoughts within the text
    faults ◄─ a status, a body, an end ─────┘   learned: what refusals teach, for one user or all
    nearby ─ a model server on this machine that is not set up

`faults.toml` maps their errors to ours. The rest of Parley reaches providers through `llm.py`.
"""
