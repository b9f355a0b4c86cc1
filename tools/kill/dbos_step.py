"""A reply as a workflow of DBOS, written as https://docs.dbos.dev/ai/streaming recommends: the step
that calls the model writes each token to a durable stream.

    python dbos_step.py MODEL_URL DATABASE_URL [MESSAGE]

Without a message, it only starts again: DBOS recovers the workflow when it is launched.
"""

import sys
import threading

from dbos import DBOS, SetWorkflowID
from openai import OpenAI

model_url, database, *message = sys.argv[1:]
DBOS(config={"name": "kill", "system_database_url": database})
client = OpenAI(base_url=model_url, api_key="none")


@DBOS.step()
def stream_completion(prompt):
    text = ""
    response = client.chat.completions.create(
        model="stub", messages=[{"role": "user", "content": prompt}], stream=True
    )
    for chunk in response:
        token = chunk.choices[0].delta.content
        if token:
            DBOS.write_stream("tokens", token)
            text += token
    return text


@DBOS.workflow()
def chat(prompt):
    answer = stream_completion(prompt)
    DBOS.close_stream("tokens")
    return answer


DBOS.launch()
if message:
    with SetWorkflowID("reply"):
        DBOS.start_workflow(chat, *message)
threading.Event().wait()
