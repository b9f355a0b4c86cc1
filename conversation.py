"""What the model is sent of a conversation: pure functions of its turns."""


def messages_of(turns):
    """The messages of a request, made of the (kind, content) of turns, oldest first.

    The first is the user's, empty turns are left out and neighbours of one role are joined, since providers refuse all else:
    [("user", "One"), ("assistant", ""), ("user", "Two")] gives the one message {"role": "user", "content": "One\\n\\nTwo"}.
    """
    messages = []
    for role, content in turns:
        if content.strip() and (messages or role == "user"):
            if not messages or messages[-1][0] != role:
                messages.append((role, []))
            messages[-1][1].append(content)
    return [{"role": role, "content": "\n\n".join(contents)} for role, contents in messages]
