"""A chat with Gradio. Parley keeps the conversation, and the page's URL names it."""

from collections.abc import Iterator

import gradio as gr
from parley_client import Parley, ParleyError

# PARLEY_URL and PARLEY_TOKEN say where the server is, and which user asks.
parley = Parley(on_lost=lambda _: gr.Warning("The server does not answer. Trying again …"))
BUSY = {"interactive": False, "submit_btn": False, "stop_btn": True}
IDLE = {"interactive": True, "submit_btn": True, "stop_btn": False}


def answer(message: str, history: list, session: str) -> Iterator[tuple]:
    """The reply to a message as it grows, and its session, which the first message creates."""
    text = ""
    try:
        reply = parley.send(message, session or None)
        session = reply.session
        yield text, session
        for piece in reply:
            text += piece
            yield text, session
    except ParleyError as error:
        yield f"{text}\n\n**{error.detail}**", session


def open_chat(request: gr.Request) -> Iterator[tuple]:
    """The chat that the URL names, and the reply that is in progress there, as it grows."""
    session, messages = request.query_params.get("session"), []
    try:
        turns = parley.session(session)["turns"] if session else []
        for turn in turns:
            error = f"\n\n**{turn['error']['message']}**" if turn.get("error") else ""
            messages.append({"role": turn["kind"], "content": turn["content"] + error})
        if turns and turns[-1]["status"] == "in_progress":
            yield messages, messages, session, gr.Textbox(**BUSY)
            messages[-1]["content"] = ""
            for piece in parley.follow(session):
                messages[-1]["content"] += piece
                yield messages, messages, session, gr.Textbox(**BUSY)
    except ParleyError as error:
        messages.append({"role": "assistant", "content": f"**{error.detail}**"})
    yield messages, messages, session, gr.Textbox(**IDLE)


def stop(session: str) -> None:
    parley.cancel(session)


with gr.Blocks(title="Chat", fill_height=True) as page:
    with gr.Row():
        gr.Markdown("# Chat")
        gr.Button("New chat", link=".", size="sm", scale=0)
    session = gr.Textbox(visible="hidden")
    chat = gr.ChatInterface(
        answer,
        additional_inputs=session,
        additional_outputs=session,
        concurrency_limit=None,  # by default, one reply at a time
    )
    # These buttons would change the page, and not the conversation.
    chat.chatbot._retryable = chat.chatbot._undoable = False
    chat.chatbot.clear(lambda: "", None, session)
    chat.textbox.stop(stop, session)
    shown = [chat.chatbot, chat.chatbot_state, session, chat.textbox]
    page.load(open_chat, None, shown, concurrency_limit=None)
    show_in_url = "(id) => history.replaceState(null, '', id ? `?session=${id}` : '.')"
    session.change(None, session, js=show_in_url)

page.launch()
