import { createServer, connect, type TLSSocket, type SecureVersion } from "node:tls";
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { groupNumber, keyExchangeGroup } from "../../src/receiver/tls-group.ts";
import { acmeAddress } from "../tools/relay-folder.ts";
import { makeCertificate, type Made } from "./certificates.ts";
import { useRelay } from "./support.ts";

let server: Made;
beforeAll(async () => {
  server = await makeCertificate({});
});

/** What the server's side says of a handshake in which the client offers one group only. */
async function groupSeen(offered: string, version: SecureVersion): Promise<string | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
  const listener = createServer(
    {
      key: server.key,
      cert: server.cert,
      ecdhCurve: "X25519MLKEM768:X25519:P-384:P-256:P-521",
      requestCert: true,
      rejectUnauthorized: false,
    },
    (socket: TLSSocket) => resolve(keyExchangeGroup(socket)),
  );
  listener.on("tlsClientError", reject);
  onTestFinished(() => void listener.close());
  await new Promise<void>((done) => void listener.listen(0, "127.0.0.1", done));
  const address = listener.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const client = connect({
    host: "127.0.0.1",
    port,
    ecdhCurve: version === "TLSv1.2" ? `${offered}:P-256` : offered,
    maxVersion: version,
    minVersion: version,
    rejectUnauthorized: false,
    key: server.key,
    cert: server.cert,
  });
  client.on("error", reject);
  onTestFinished(() => void client.destroy());
  return promise;
}

describe("the key exchange that the server saw", () => {
  it.each([
    ["X25519MLKEM768", "TLSv1.3", "X25519MLKEM768"],
    ["X25519", "TLSv1.3", "x25519"],
    ["P-256", "TLSv1.3", "secp256r1"],
    ["P-384", "TLSv1.3", "secp384r1"],
    ["P-521", "TLSv1.3", "secp521r1"],
    ["X25519", "TLSv1.2", "x25519"],
    ["P-384", "TLSv1.2", "secp384r1"],
  ] as const)("is %s over %s", async (offered, version, name) => {
    expect(await groupSeen(offered, version)).toBe(name);
  });
});

describe("a session in a form that is not the known one", () => {
  it.each([
    ["nothing", ""],
    ["no sequence", "020101"],
    ["a sequence without the field", "3003020101"],
    ["a length beyond its end", "30ff"],
    ["a length of lengths", "3084ffffffff"],
    ["a field that is cut off", "3005b304020211"],
    ["a field with something else in it", "3005b303040111"],
    ["a field with nothing in it", "3002b300"],
  ])("tells no group: %s", (_what, hex) => {
    expect(groupNumber(Buffer.from(hex, "hex"))).toBeUndefined();
  });
});

describe("the receiver", () => {
  const start = useRelay();

  it("names the key exchange in its log and in the Received field", async () => {
    const relay = await start();
    const client = await relay.connect(acmeAddress);
    await client.reply();
    await client.say("EHLO mx.acme.example");
    await client.say("STARTTLS");
    await client.secure(relay.certificates.acme, { ecdhCurve: "X25519MLKEM768" });
    await client.say("EHLO mx.acme.example");
    expect(await client.send("Subject: x\r\n\r\nx\r\n")).toMatch(/^250 /);
    expect((await relay.spooled())[0]?.content).toContain("group X25519MLKEM768");
    expect(relay.log().find(({ event }) => event === "identified")).toMatchObject({ group: "X25519MLKEM768" });
  });
});
