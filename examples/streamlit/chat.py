"""A chat with Streamlit. Parley keeps the conversation, and the page's URL names it."""

import contextlib

import streamlit as st
from parley_client import Parley, ParleyError

# PARLEY_URL and PARLEY_TOKEN say where the server is, and which user asks.
parley = Parley(on_lost=lambda _: st.toast("The server does not answer. Trying again …"))
st.title("Chat")
if st.button("New chat"):
    st.query_params.clear()
session = st.query_params.get("session")

try:
    turns = parley.session(session)["turns"] if session else []
    in_progress = bool(turns) and turns[-1]["status"] == "in_progress"
    for turn in turns[:-1] if in_progress else turns:
        with st.chat_message(turn["kind"]):
            st.markdown(turn["content"])
            if turn.get("error"):
                st.error(turn["error"]["message"])

    # A disabled field would drop a message that was sent before this page knew of the reply.
    is_disabled = in_progress and not st.session_state.get("message")
    if message := st.chat_input("Message", key="message", disabled=is_disabled):
        st.chat_message("user").markdown(message)
        st.query_params["session"] = parley.send(message, session=session).session
        st.rerun()  # which shows the message, and follows the reply as after a reload

    if in_progress:
        bubble = st.chat_message("assistant")
        st.button("Stop the reply", on_click=parley.cancel, args=[session])
        with contextlib.suppress(ParleyError):  # the turn has the error, too
            bubble.write_stream(parley.follow(session))
        st.rerun()
except ParleyError as error:
    st.error(error.detail)
