"""A reply of a Pydantic AI agent that is durable by DBOS, written as
https://ai.pydantic.dev/durable_execution/dbos recommends: only the handler that `DBOSDurability`
gets sees the events live. It writes the text to a durable stream.

    python pydantic_dbos.py MODEL_URL DATABASE_URL [MESSAGE]

Without a message, it only starts again: DBOS recovers the workflow when it is launched.
"""

import asyncio
import sys

from dbos import DBOS, SetWorkflowID
from pydantic_ai import Agent
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model_url, database, *message = sys.argv[1:]
DBOS(config={"name": "kill", "system_database_url": database})


async def write_text(_, events):
    async for event in events:
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
            await DBOS.write_stream_async("tokens", event.part.content)
        elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
            await DBOS.write_stream_async("tokens", event.delta.content_delta)


agent = Agent(
    OpenAIChatModel("stub", provider=OpenAIProvider(base_url=model_url, api_key="none")),
    name="chat",
    capabilities=[DBOSDurability(event_stream_handler=write_text)],
)


@DBOS.workflow()
async def chat(prompt):
    result = await agent.run(prompt)
    await DBOS.close_stream_async("tokens")
    return result.output


async def main():
    DBOS.launch()
    if message:
        with SetWorkflowID("reply"):
            await DBOS.start_workflow_async(chat, *message)
    await asyncio.Event().wait()


asyncio.run(main())
