from parley_client import Parley

parley = Parley()  # $PARLEY_URL, $PARLEY_TOKEN
session = None
while message := input("> "):
    reply = parley.send(message, session)
    for text in reply:
        print(text, end="", flush=True)
    print()
    session = reply.session
