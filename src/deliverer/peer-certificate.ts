/**
 * What certificate does a host show? Connects to it as to a mail server, says EHLO and STARTTLS, shakes hands, and leaves.
 *
 * Promises: only an address is connected to, never a name; no mail is offered and no certificate of ours is shown; the
 * whole has one deadline, and no more is read than a greeting needs; whatever was said in plaintext behind the reply to
 * STARTTLS is thrown away (RFC 3207 §6), and nothing is believed: who the host is remains for a person to say. Fails
 * with a {@link PeerCertificateFault}, one line.
 */
import type { X509Certificate } from "node:crypto";
import { connect as connectSocket, isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";

export interface PeerCertificatePlan {
  /** An IP literal. */
  readonly address: string;
  readonly port: number;
  /** TLS from the first octet (RFC 8314 §3). */
  readonly implicitTls: boolean;
  /** Our name in EHLO. */
  readonly hostname: string;
  /** For all of it. */
  readonly timeoutMs: number;
}

export interface PeerCertificate {
  /** Leaf first, as the host sent them. */
  readonly chain: readonly X509Certificate[];
  /** As `TLSv1.3`. */
  readonly version: string;
  /** The name that the standard has for it, as `TLS_AES_256_GCM_SHA384`. */
  readonly cipher: string;
  /** The group of the key exchange, as `X25519`; undefined where the TLS library does not tell. */
  readonly group: string | undefined;
}

export class PeerCertificateFault extends Error {
  override readonly name = "PeerCertificateFault";
}

/** Much more than any greeting and list of extensions. */
const plaintextBytesMax = 64 * 1024;
const chainLengthMax = 10;

export async function fetchPeerCertificate(plan: PeerCertificatePlan): Promise<PeerCertificate> {
  const { address, port, implicitTls, hostname, timeoutMs } = plan;
  const place = `${address.includes(":") ? `[${address}]` : address}:${port}`;
  if (isIP(address) === 0) throw new PeerCertificateFault(`${place}: is no IP address: names are not looked up`);
  const socket = connectSocket({ host: address, port });
  // Listened to from the first moment on, so that nothing that goes wrong between two steps ends the program.
  const broken = new Promise<never>((_, reject) => {
    const timer = setTimeout(
      () => reject(new PeerCertificateFault(`no answer within ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    socket.once("close", () => {
      clearTimeout(timer);
      reject(new PeerCertificateFault("the host closed the connection"));
    });
    socket.once("error", (error) => reject(new PeerCertificateFault(faultText(error), { cause: error })));
  });
  broken.catch(() => undefined);
  try {
    return await Promise.race([broken, converse(socket, implicitTls, hostname)]);
  } catch (error) {
    if (error instanceof PeerCertificateFault)
      throw new PeerCertificateFault(`${place}: ${error.message}`, { cause: error });
    throw error;
  } finally {
    socket.destroy();
  }
}

async function converse(socket: Socket, implicitTls: boolean, hostname: string): Promise<PeerCertificate> {
  await new Promise<void>((resolve) => {
    socket.once("connect", resolve);
  });
  if (!implicitTls) await startTls(socket, hostname);
  return shakeHands(socket);
}

/** Up to the reply after which TLS begins. */
async function startTls(socket: Socket, hostname: string): Promise<void> {
  const replies = new ReplyReader(socket);
  try {
    expectCode(await replies.next(), "220", "its greeting");
    socket.write(`EHLO ${hostname}\r\n`);
    const offers = expectCode(await replies.next(), "250", "its reply to EHLO");
    if (!offers.slice(1).some((line) => /^250[ -]STARTTLS\s*$/i.test(line))) {
      throw new PeerCertificateFault("the host does not offer STARTTLS");
    }
    socket.write("STARTTLS\r\n");
    expectCode(await replies.next(), "220", "its reply to STARTTLS");
  } finally {
    replies.stop(); // what it holds unread goes with it
  }
}

function expectCode(reply: readonly string[], code: string, what: string): readonly string[] {
  const last = reply.at(-1) ?? "";
  if (!last.startsWith(code)) throw new PeerCertificateFault(`${what} is '${last.slice(0, 200)}', not ${code}`);
  return reply;
}

/** Reads whole replies (RFC 5321 §4.2.1); what comes behind one that was asked for is thrown away. */
class ReplyReader {
  readonly #socket: Socket;
  #held = "";
  #bytes = 0;
  #waiting: { resolve: (reply: string[]) => void; reject: (error: Error) => void } | undefined;
  readonly #onData = (chunk: Buffer): void => {
    this.#bytes += chunk.length;
    if (this.#bytes > plaintextBytesMax) {
      this.#waiting?.reject(new PeerCertificateFault("the host says more than a mail server would"));
      this.#socket.pause();
      return;
    }
    this.#held += chunk.toString("latin1");
    this.#look();
  };

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", this.#onData);
  }

  /** One at a time. */
  next(): Promise<string[]> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#look();
    });
  }

  stop(): void {
    this.#socket.pause();
    this.#socket.off("data", this.#onData);
  }

  #look(): void {
    const waiting = this.#waiting;
    const reply = /^(?:\d{3}-[^\n]*\n)*\d{3}(?: [^\n]*)?\r?\n/.exec(this.#held)?.[0];
    if (waiting === undefined) return;
    if (reply === undefined) {
      const line = /^[^\n]*\n/.exec(this.#held)?.[0];
      if (line !== undefined && !/^\d{3}[ -]/.test(line)) {
        waiting.reject(new PeerCertificateFault("the host does not speak SMTP"));
      }
      return;
    }
    this.#held = ""; // we speak in turns: what else is there was not asked for
    this.#waiting = undefined;
    waiting.resolve(reply.trimEnd().split(/\r?\n/));
  }
}

function shakeHands(socket: Socket): Promise<PeerCertificate> {
  return new Promise((resolve, reject) => {
    // Whatever it shows is what we are here for: a person compares it (see `pinrelay partner confirm`).
    const secure: TLSSocket = connectTls({ socket, minVersion: "TLSv1.2", rejectUnauthorized: false }, () => {
      const seen = whatIsShown(secure);
      secure.end("QUIT\r\n");
      if (seen === undefined) reject(new PeerCertificateFault("the host shows no certificate"));
      else resolve(seen);
    });
    // A host that will have a certificate of ours breaks the handshake off, with TLS 1.3 behind its end, and has shown
    // its own by then.
    secure.on("error", (error) => {
      const seen = whatIsShown(secure);
      if (seen === undefined) reject(new PeerCertificateFault(`TLS failed: ${faultText(error)}`, { cause: error }));
      else resolve(seen);
    });
  });
}

function whatIsShown(secure: TLSSocket): PeerCertificate | undefined {
  const chain = chainOf(secure.getPeerX509Certificate());
  if (chain.length === 0) return undefined;
  const exchange = secure.getEphemeralKeyInfo();
  const group = exchange !== null && "name" in exchange && exchange.name !== "" ? exchange.name : undefined;
  const { name, standardName } = secure.getCipher();
  return { chain, version: secure.getProtocol() ?? "", cipher: standardName ?? name, group };
}

function chainOf(leaf: X509Certificate | undefined): X509Certificate[] {
  const chain: X509Certificate[] = [];
  for (let next = leaf; next !== undefined && chain.length < chainLengthMax; next = next.issuerCertificate) {
    if (chain.includes(next)) break; // one that issued itself
    chain.push(next);
  }
  return chain;
}

function faultText(error: Error): string {
  const code = "code" in error ? String(error.code) : "";
  switch (code) {
    case "ECONNREFUSED":
      return "nobody listens there";
    case "ECONNRESET":
    case "EPIPE":
      return "the host broke the connection off";
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "ETIMEDOUT":
      return "cannot be reached from here";
  }
  return code.startsWith("ERR_SSL_") ? code.slice("ERR_SSL_".length).toLowerCase().replaceAll("_", " ") : error.message;
}
