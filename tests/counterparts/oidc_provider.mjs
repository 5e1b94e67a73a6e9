// An OpenID provider for one test run: `node oidc_provider.mjs`. Says `Listening on: URL` once it serves; the issuer is
// that URL. Access tokens are opaque; for a resource below `/mcp` they are JWTs, unless its path ends with `opaque`. Any
// name signs in with any password.
// Clients: `agent` (client credentials, code), `narthex` (may introspect); the secret of NAME is `NAME-secret`. Others
// may register themselves.
import { createServer } from "node:http";
import Provider, { errors } from "oidc-provider";

const client = (name, more = {}) => ({
  client_id: name,
  client_secret: `${name}-secret`,
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
  ...more,
});
const configuration = (issuer) => ({
  clients: [
    client("agent", {
      grant_types: ["client_credentials", "authorization_code", "refresh_token"],
      redirect_uris: ["http://127.0.0.1/callback"],
      response_types: ["code"],
      application_type: "native",
    }),
    client("narthex"),
  ],
  scopes: ["openid", "offline_access", "tools:read", "tools:write"],
  claims: { openid: ["sub"] },
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (ctx, asking) => asking.clientId === "narthex" },
    revocation: { enabled: true, allowedPolicy: () => true },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => {
        const path = new URL(resource).pathname;
        if (!path.startsWith("/mcp")) throw new errors.InvalidTarget();
        const accessTokenFormat = path.endsWith("opaque") ? "opaque" : "jwt";
        return { scope: "tools:read tools:write", audience: resource, accessTokenFormat, accessTokenTTL: 600 };
      },
    },
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  ttl: { AccessToken: 600, ClientCredentials: 600, Grant: 600, Interaction: 600, Session: 600, IdToken: 600 },
  issuer,
});

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  server.on("request", new Provider(issuer, configuration(issuer)).callback());
  console.log(`Listening on: ${issuer}`);
});
