"""What the model is sent of a conversation: pure functions of its turns."""


def messages_of(turns):
    """The messages of a request, made of the (kind, content) of turns, oldest first.

    The first is the user's, empty turns are left out and neighbours of one role are joined, since providers refuse all else:
    [("user", "One"), ("assistant", ""), ("user", "Two")] gives the one message {"role": "user", "content": "One\\n\\nTwo"}.
    """
    messages = []
    for role, content in turns:
        if not content.strip() or (role == "assistant" and not messages):
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content
        else:
            messages.append({"role": role, "content": content})
    return messages
