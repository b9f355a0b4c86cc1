// Flue's reader: the SDK's `observe()`, which its documentation recommends to applications. It
// connects again by itself, and keeps the conversation as it is to be shown.
//
//     node reader.mjs CONVERSATION_URL

import { createFlueClient } from '@flue/sdk';

const chat = createFlueClient({ url: process.argv[2] });
const { submissionId } = await chat.send({ message: { kind: 'user', body: 'Count.' } });
const observation = chat.observe({ live: 'sse' });
let shown = '';

observation.subscribe(() => {
  const { conversation } = observation.getSnapshot();
  if (!conversation) return;
  const text = conversation.messages
    .filter((message) => message.role === 'assistant')
    .flatMap((message) => message.parts)
    .filter((part) => part.type === 'text')
    .map((part) => part.text)
    .join('');
  if (text !== shown) {
    shown = text;
    console.log(JSON.stringify(text));
  }
  if (conversation.settlements.some((settled) => settled.submissionId === submissionId)) {
    observation.close();
  }
});
