// The official TypeScript client signs in by itself: `node oauth.mjs KIND URL ISSUER`, with KIND
//   secret     client credentials of `agent`;
//   assertion  the same, by a key: its PEM in the environment as KEY;
//   code       the code flow of `desktop`: prints `Open: URL`, and reads where that led from standard input.
// Prints one JSON document.
import { createInterface } from "node:readline/promises";
import {
  Client,
  ClientCredentialsProvider,
  PrivateKeyJwtProvider,
  StreamableHTTPClientTransport,
  UnauthorizedError,
} from "@modelcontextprotocol/client";

const [kind, url, expectedIssuer] = process.argv.slice(2);

class CodeProvider {
  redirectUrl = "http://127.0.0.1:9/callback";
  clientMetadata = {
    client_name: "e2e",
    redirect_uris: [this.redirectUrl],
    grant_types: ["authorization_code"],
    token_endpoint_auth_method: "none",
    scope: "tools:read",
  };
  state = () => "e2e-state";
  clientInformation = () => ({ client_id: "desktop", issuer: expectedIssuer });
  tokens = () => this.kept;
  saveTokens = (tokens) => void (this.kept = tokens);
  redirectToAuthorization = (to) => console.error(`Open: ${to}`);
  saveCodeVerifier = (verifier) => void (this.verifier = verifier);
  codeVerifier = () => this.verifier;
}

const providers = {
  secret: () =>
    new ClientCredentialsProvider({ clientId: "agent", clientSecret: "agent-secret", expectedIssuer, scope: "tools:read" }),
  assertion: () =>
    new PrivateKeyJwtProvider({ clientId: "agent", privateKey: process.env.KEY, algorithm: "RS256", expectedIssuer }),
  code: () => new CodeProvider(),
};
const authProvider = providers[kind]();
const client = () => new Client({ name: "e2e", version: "1.0.0" }, { versionNegotiation: { mode: "auto" } });
const transport = () => new StreamableHTTPClientTransport(new URL(url), { authProvider });
let [connected, way] = [client(), transport()];
try {
  await connected.connect(way);
} catch (error) {
  if (kind !== "code" || !UnauthorizedError.isInstance(error)) throw error;
  const lines = createInterface({ input: process.stdin });
  const back = new URL((await lines[Symbol.asyncIterator]().next()).value);
  await way.finishAuth(back.searchParams);
  [connected, way] = [client(), transport()];
  await connected.connect(way);
}
const tools = (await connected.listTools()).tools.map((tool) => tool.name);
const echo = (await connected.callTool({ name: tools[0], arguments: { text: "hello" } })).content[0].text;
await connected.close();
console.log(JSON.stringify({ tools, echo }));
process.exit(0);
