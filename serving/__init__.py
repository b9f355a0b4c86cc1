"""The gunicorn worker: one event loop receives and sends for all clients, and threads make the
responses.

    worker ─ starts, runs and stops the loop
       │
    dispatcher ─ takes each connection from step to step ─► thread_pool, which makes the answers
       │
    listeners ─ accept connections
       │
    loop ─ waits for the sockets of all clients, within limits of time, number and bytes
       │
    connection ─ what has arrived from a client, and what is to be sent to it

`refusals` makes the error responses that the application does not make itself. `gunicorn.conf.py`
names the worker; nothing else in Parley knows gunicorn.
"""
