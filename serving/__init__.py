"""How clients are served: a worker of gunicorn's, whose loop receives and sends for all of them.

    worker ─ its start and its end
       │
    clients ─ what goes on with each client ─► answer_threads, while an answer is made
       │
     doors ─ by which they come
       │
     loop ─ waits for all of them, within bounds of time, number and bytes
       │
    connection ─ what has arrived from a client, and what is to be sent to it

`refusals` are the answers to what is no request. `gunicorn.conf.py` names the worker; nothing else
knows gunicorn.
"""
