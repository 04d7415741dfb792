/**
 * A bridge for tools that speak only plaintext SMTP: TCP in, STARTTLS and a client certificate out. What comes in is the
 * inside of an authenticated session: the tool sees a greeting, and then every octet as the relay wrote it.
 */
import { createServer, type Socket } from "node:net";
import { SmtpDialogue, type ClientCertificate } from "./smtp-dialogue.ts";

export interface Bridge {
  readonly address: string;
  readonly port: number;
  close(): Promise<void>;
}

/** @param from the address that the relay sees. */
export async function startBridge(
  to: { readonly address: string; readonly port: number },
  from: string,
  certificate: ClientCertificate,
): Promise<Bridge> {
  const open = new Set<Socket>();
  const server = createServer((tool) => {
    open.add(tool);
    tool.on("error", () => undefined).once("close", () => open.delete(tool));
    tool.pause();
    void cross(tool, to, from, certificate).catch((error: unknown) => {
      tool.end(`421 4.4.0 bridge: ${error instanceof Error ? error.message : String(error)}\r\n`);
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the bridge has no port");
  return {
    address: address.address,
    port: address.port,
    async close() {
      for (const tool of open) tool.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function cross(
  tool: Socket,
  to: { readonly address: string; readonly port: number },
  from: string,
  certificate: ClientCertificate,
): Promise<void> {
  const relay = await SmtpDialogue.open(to, from);
  tool.once("close", () => relay.close());
  const greeting = await relay.reply();
  for (const line of ["EHLO bridge.example", "STARTTLS"]) {
    const reply = await relay.say(line);
    if (!reply.startsWith("2")) throw new Error(`${line}: ${reply}`);
  }
  await relay.secure(certificate);
  const inside = relay.socket;
  inside.removeAllListeners("data");
  inside.on("error", () => tool.destroy()).once("close", () => tool.end());
  tool.write(`${greeting.replaceAll("\n", "\r\n")}\r\n`);
  inside.pipe(tool);
  tool.pipe(inside);
}
