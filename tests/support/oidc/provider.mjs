// An OpenID provider that is certified, for the tests: everybody who names themselves is let in. Its
// only argument is its configuration in JSON. `POST /control` changes what it does, and answers with
// what it was asked.

import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const config = JSON.parse(process.argv[2]); // port, pages, seconds, refreshes, ahead
const { now } = Date;
Date.now = () => now() + 1000 * config.ahead;
const flags = { cors: true, nonce: null, end: null, refusals: [] };
const asked = []; // at the token endpoint: the kinds of grants
const codes = []; // that were given
const grants = new Set(); // that have a refresh token

const accountOf = (id) => ({
  accountId: id,
  claims: () => ({
    sub: id,
    preferred_username: `name-of-${id}`,
    email: `${id}@example.org`,
    email_verified: true,
  }),
});

const issuer = `http://127.0.0.1:${config.port}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "parley",
      token_endpoint_auth_method: "none",
      redirect_uris: config.pages,
      post_logout_redirect_uris: config.pages,
      grant_types: ["authorization_code", "refresh_token"],
    },
  ],
  claims: { openid: ["sub"], profile: ["preferred_username"], email: ["email", "email_verified"] },
  conformIdTokenClaims: false, // so that the ID token has them all
  clientBasedCORS: () => flags.cors,
  cookies: { keys: ["of the tests"] },
  findAccount: (_, id) => accountOf(id),
  issueRefreshToken: () => config.refreshes,
  // Nobody is asked whether the client may know them.
  loadExistingGrant: async ({ oidc }) => {
    const grant = new provider.Grant({
      clientId: oidc.client.clientId,
      accountId: oidc.session.accountId,
    });
    grant.addOIDCScope("openid profile email");
    await grant.save();
    return grant;
  },
  ttl: { IdToken: config.seconds, AccessToken: 60, Grant: 3600, Interaction: 600, Session: 3600 },
});
provider.on("refresh_token.saved", ({ grantId }) => grants.add(grantId));
provider.use(async (context, next) => {
  if (context.path === "/auth" && flags.nonce) {
    context.query = { ...context.query, nonce: flags.nonce };
  }
  await next();
  if (context.path === "/token") asked.push(context.oidc?.params?.grant_type);
  const code = /[?&]code=([^&]+)/.exec(context.response.get("Location"));
  if (code) codes.push(code[1]);
});

async function control(request, response) {
  let body = "";
  for await (const part of request) body += part;
  const { revoke, ...changes } = JSON.parse(body);
  Object.assign(flags, changes);
  if (revoke) await Promise.all([...grants].map((id) => provider.RefreshToken.revokeByGrantId(id)));
  response.end(JSON.stringify({ asked, codes }));
}

const answer = provider.callback();
const server = createServer((request, response) => {
  if (request.url === "/control") return control(request, response);
  // Statuses and texts that it answers at first in the place of tokens, with or without CORS.
  const refusal = request.method === "POST" && request.url === "/token" && flags.refusals.shift();
  if (refusal) {
    response.writeHead(refusal.status, refusal.cors ? { "Access-Control-Allow-Origin": "*" } : {});
    return response.end(refusal.text);
  }
  // Nothing that a browser would show in the place of the page.
  if (flags.end && request.url.startsWith("/session/end")) return response.writeHead(204).end();
  return answer(request, response);
});
server.listen(config.port, "127.0.0.1");
