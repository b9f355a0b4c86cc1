// A chat agent of Flue on SQLite, served by its own router.
//
//     node flue.mjs MODEL_URL PORT DATABASE_FILE
//
// `start()` does what Flue's built server does at its start, but listens to nothing. The package that
// builds servers, @flue/vite 2.0.3, brings the runtime 2.0.3; such a server went on in the same way.

import { createProvider } from '@earendil-works/pi-ai';
import { openAICompletionsApi } from '@earendil-works/pi-ai/api/openai-completions.lazy';
import { setProvider, useModel } from '@flue/runtime';
import { sqlite, start } from '@flue/runtime/node';
import { createAgentRouter } from '@flue/runtime/routing';
import { serve } from '@hono/node-server';
import { Hono } from 'hono';

const [modelUrl, port, file] = process.argv.slice(2);

const model = {
  id: 'stub',
  name: 'stub',
  provider: 'stub',
  api: 'openai-completions',
  baseUrl: modelUrl,
  reasoning: false,
  input: ['text'],
  cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
  contextWindow: 32000,
  maxTokens: 4000,
};
setProvider(
  createProvider({
    id: 'stub',
    auth: { apiKey: { name: 'stub', resolve: async () => ({ auth: { apiKey: 'none' } }) } },
    models: [model],
    api: openAICompletionsApi(),
  }),
);

function Chat() {
  useModel('stub/stub');
  return 'You are a helpful assistant.';
}

await start({ agents: [{ agent: Chat, name: 'Chat' }], db: sqlite(file) });
const app = new Hono();
app.route('/agents/chat', createAgentRouter(Chat));
serve({ fetch: app.fetch, hostname: '127.0.0.1', port: Number(port) });
