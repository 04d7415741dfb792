/** What certificate a host shows: asked of scripted hosts, most of which do not behave. */
import { X509Certificate } from "node:crypto";
import { createServer, type AddressInfo } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { describe, expect, it, onTestFinished } from "vitest";
import { fetchPeerCertificate, PeerCertificateFault } from "../../src/deliverer/peer-certificate.ts";
import type { ScriptedHop } from "../tools/scripted-hop.ts";
import { useHops } from "./fixtures.ts";
import { makeCertificates } from "./support.ts";

const { server } = await makeCertificates();
const startHop = useHops(server);

function fetchFrom(at: { address: string; port: number }, more: { implicitTls?: boolean; timeoutMs?: number } = {}) {
  const { address, port } = at;
  return fetchPeerCertificate({
    address,
    port,
    implicitTls: false,
    hostname: "mx.corp.example",
    timeoutMs: 20_000,
    ...more,
  });
}

async function faultOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.catch((thrown: unknown) => thrown);
  if (!(error instanceof PeerCertificateFault)) throw new Error(`no such fault: ${String(error)}`);
  expect(error.message).not.toContain("\n");
  return error.message;
}

describe("fetchPeerCertificate", () => {
  it.each([false, true])("tells the certificate and the session (implicit TLS: %s)", async (implicitTls) => {
    const hop = await startHop({ implicitTls });
    const { chain, version, cipher, group } = await fetchFrom(hop, { implicitTls });
    expect(chain[0]?.raw).toEqual(new X509Certificate(server.cert).raw);
    expect(version).toBe("TLSv1.3");
    expect(cipher).toMatch(/^TLS_/);
    expect(group).toMatch(/^(?:X25519|prime256v1|undefined)/);
  });

  it("says nothing but EHLO, STARTTLS and QUIT, and shuts the connection", async () => {
    const hop: ScriptedHop = await startHop();
    await fetchFrom(hop);
    await hop.until(() => hop.open() === 0);
    expect(hop.lines.filter((line) => line !== "QUIT")).toEqual(["EHLO mx.corp.example", "STARTTLS"]);
  });

  it.each(["TLSv1.2", "TLSv1.3"] as const)(
    "tells the certificate of a server that wants one of ours (%s)",
    async (version) => {
      const only = { minVersion: version, maxVersion: version };
      const closing = createTlsServer({ ...server, ...only, requestCert: true, rejectUnauthorized: true });
      closing.on("tlsClientError", () => undefined);
      onTestFinished(() => void closing.close());
      await new Promise<void>((resolve) => closing.listen(0, "127.0.0.1", resolve));
      const { port } = closing.address() as AddressInfo; // a TCP server that listens
      const seen = await fetchFrom({ address: "127.0.0.1", port }, { implicitTls: true });
      expect(seen).toMatchObject({ version, cipher: expect.stringMatching(/^TLS_/) as string });
      expect(seen.chain).toHaveLength(1);
    },
  );

  it.each([
    { what: "the reply to STARTTLS", at: "STARTTLS", raw: "220 go ahead\r\n250 injected\r\n" },
    { what: "the greeting", at: "CONNECT", raw: "220 hop\r\n250 injected\r\n" },
  ])("throws away what is injected behind $what", async ({ at, raw }) => {
    const hop = await startHop((verb) => (verb === at ? { raw, positive: true } : undefined));
    expect((await fetchFrom(hop)).chain).toHaveLength(1);
  });

  it("reads replies that come octet by octet", async () => {
    const hop = await startHop((verb) =>
      verb === "EHLO" ? { bytewise: "250-hop.example\r\n250-SIZE 1\r\n250 STARTTLS" } : undefined,
    );
    expect((await fetchFrom(hop)).chain).toHaveLength(1);
  });

  it.each([
    {
      what: "greets with a refusal",
      verb: "CONNECT",
      answer: "554 5.7.1 no\u001b[31m",
      says: /its greeting is '554 5\.7\.1 no/,
    },
    { what: "refuses EHLO", verb: "EHLO", answer: "502 what?", says: /its reply to EHLO is '502 what\?', not 250/ },
    { what: "offers no STARTTLS", verb: "EHLO", answer: "250 hop", says: /does not offer STARTTLS/ },
    { what: "refuses STARTTLS", verb: "STARTTLS", answer: "454 4.7.0 no", says: /its reply to STARTTLS is '454/ },
    { what: "speaks something else", verb: "CONNECT", answer: "SSH-2.0-x", says: /does not speak SMTP/ },
    {
      what: "never ends its greeting",
      verb: "CONNECT",
      answer: { raw: "220-x\r\n".repeat(20_000) },
      says: /says more/,
    },
    { what: "never ends its line", verb: "CONNECT", answer: { raw: "x".repeat(100_000) }, says: /says more/ },
    {
      what: "closes",
      verb: "EHLO",
      answer: { close: true } as const,
      says: /closed the connection|broke the connection/,
    },
    {
      what: "speaks no TLS",
      verb: "STARTTLS",
      answer: { last: "220 go\r\n" },
      says: /TLS failed|closed the connection/,
    },
  ])("tells in one line that the host $what", async ({ verb, answer, says }) => {
    const hop = await startHop((said) => (said === verb ? answer : undefined));
    const fault = await faultOf(fetchFrom(hop));
    expect(fault).toMatch(says);
    expect(fault).toContain(`127.0.0.1:${hop.port}: `);
    await hop.until(() => hop.open() === 0);
  });

  it.each(["CONNECT", "EHLO", "STARTTLS"])(
    "waits no longer than told for a host that is silent at %s",
    async (verb) => {
      const hop = await startHop((said) => (said === verb ? { silent: true } : undefined));
      expect(await faultOf(fetchFrom(hop, { timeoutMs: 150 }))).toContain("no answer within 0.15 s");
    },
  );

  it("tells that nobody listens", async () => {
    const gone = createServer();
    await new Promise<void>((resolve) => gone.listen(0, "127.0.0.1", resolve));
    const { port } = gone.address() as AddressInfo; // a TCP server that listens
    await new Promise((resolve) => gone.close(resolve));
    expect(await faultOf(fetchFrom({ address: "127.0.0.1", port }))).toBe(`127.0.0.1:${port}: nobody listens there`);
  });

  it("looks no name up", async () => {
    expect(await faultOf(fetchFrom({ address: "localhost", port: 25 }))).toContain("names are not looked up");
  });
});
