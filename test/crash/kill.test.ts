/**
 * The whole relay under load, and `kill -9` of its processes at random moments: whatever was answered with 250 arrives,
 * nothing that was refused does, and what arrives twice was in flight at a kill.
 *
 * PINRELAY_KILLS: how often (60 for the proof; 20 where CI is set, 6 otherwise). PINRELAY_SEED: another course of events.
 */
import { readdir } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { collect } from "../spool/tools.ts";
import { readQueue } from "../../src/spool/directory/queue-reader.ts";
import { acmeAddress, makeRelayFolder, usualPartners } from "../tools/relay-folder.ts";
import { startScriptedHop, type ScriptedHop } from "../tools/scripted-hop.ts";
import { SmtpDialogue, type ClientCertificate } from "../tools/smtp-dialogue.ts";
import { chooser } from "./chooser.ts";
import { RelayProcess, type Victim } from "./relay-process.ts";

const kills = Number(process.env["PINRELAY_KILLS"] ?? (process.env["CI"] === undefined ? "6" : "20"));
const seed = Number(process.env["PINRELAY_SEED"] ?? "1");
const clients = 4;
/** A kill comes up to this long after the relay is ready. */
const killAfterMsMax = 800;
/** How far from a kill a message may have been taken by the next hop and still count as in flight. */
const inFlightMs = 3_000;
const deliveryDeadlineMs = 120_000;

/** What became of a message, as its sender knows it. `unknown`: the connection ended before the reply. */
type Fate = "accepted" | "refused" | "unknown";

/** The next hop: takes most messages, defers some, and counts what it has taken. */
class Sink {
  /** When each message was taken. */
  readonly taken = new Map<string, number[]>();
  readonly #choose = chooser(seed + 1);
  #hop: ScriptedHop | undefined;

  static async start(certificate: ClientCertificate, port: number): Promise<Sink> {
    const sink = new Sink();
    const hop = await startScriptedHop({
      ...certificate,
      address: "127.0.0.21",
      port,
      script: (verb) => sink.#answer(verb),
    });
    sink.#hop = hop;
    onTestFinished(() => hop.close());
    return sink;
  }

  #answer(verb: string): string | undefined {
    if (verb === "RCPT" && this.#choose(50) === 0) return "450 4.2.1 not now";
    if (verb !== "CONTENT") return undefined;
    const content = this.#hop?.contents.pop();
    if (this.#choose(30) === 0 || content === undefined) return "451 4.3.0 not now";
    const id = /^X-Test-Id: (\S+)\r$/m.exec(content.toString("latin1"))?.[1] ?? "none";
    this.taken.set(id, [...(this.taken.get(id) ?? []), performance.now()]);
    return undefined;
  }
}

/** Senders that send one message after the other, over new connections whenever one has ended. */
class Senders {
  readonly fates = new Map<string, Fate>();
  readonly #relay: RelayProcess;
  readonly #certificate: ClientCertificate;
  #stopped = false;
  #count = 0;

  constructor(relay: RelayProcess, certificate: ClientCertificate) {
    this.#relay = relay;
    this.#certificate = certificate;
  }

  run(): Promise<unknown> {
    return Promise.all(Array.from({ length: clients }, () => this.#run()));
  }

  stop(): void {
    this.#stopped = true;
  }

  of(fate: Fate): string[] {
    return [...this.fates].flatMap(([id, found]) => (found === fate ? [id] : []));
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      let dialogue: SmtpDialogue | undefined;
      try {
        const address = (await this.#relay.state())?.compartments.flatMap(({ listening }) => listening)[0];
        const [host, port] = address?.split(":") ?? [];
        if (host !== undefined) {
          dialogue = await SmtpDialogue.open({ address: host, port: Number(port) }, acmeAddress);
          await dialogue.begin(this.#certificate);
          while (!this.#stopped) await this.#send(dialogue);
        }
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 50)); // killed, or not there yet
      } finally {
        dialogue?.close();
      }
    }
  }

  async #send(dialogue: SmtpDialogue): Promise<void> {
    const id = `m${(this.#count += 1)}`;
    // Every tenth has a file of its own.
    const lines = this.#count % 10 === 0 ? 1_500 : 3;
    const body = `${"0123456789".repeat(7)}\r\n`.repeat(lines);
    this.fates.set(id, "unknown");
    const reply = await dialogue.send(`X-Test-Id: ${id}\r\nSubject: kill test\r\n\r\n${body}`);
    this.fates.set(id, reply.startsWith("250 ") ? "accepted" : "refused");
  }
}

describe("kill -9 under load", { timeout: 120_000 + kills * 30_000 }, () => {
  it(`loses nothing in ${kills} kills, and repeats only what was in flight`, async () => {
    const port = await freePort("127.0.0.21");
    const folder = await makeRelayFolder({
      hop: { address: "127.0.0.21", port },
      more: "retry: { schedule: [1s], expire: 1h, warn-after: 30m }\nlimits: { handshakes-per-minute: 1000000 }",
      partners: { acme: `${usualPartners.acme}limits: { messages-per-minute: 1000000, connections: 50 }\n` },
    });
    onTestFinished(() => folder.remove());
    const sink = await Sink.start(folder.certificates.inside, port);
    const relay = new RelayProcess(folder);
    onTestFinished(() => relay.end());
    await relay.start();
    const senders = new Senders(relay, folder.certificates.acme);
    const sending = senders.run();

    const choose = chooser(seed);
    /** Kills of the deliverer: only these can make it repeat something. */
    const deliveryKills: number[] = [];
    const victims: Victim[] = [];
    for (let count = 0; count < kills; count += 1) {
      await new Promise((resolve) => setTimeout(resolve, choose(killAfterMsMax)));
      // The supervisor waits longer after each death of a compartment: a new one begins anew.
      const tired = victims.slice(-2).every((victim) => victim !== "everything") && victims.length > 1;
      const victim = tired ? "everything" : (["receiver", "deliverer", "everything"] as const)[choose(3)];
      victims.push(victim ?? "everything");
      const killedAtMs = await relay.kill(victim ?? "everything");
      if (victim !== "receiver") deliveryKills.push(killedAtMs);
    }
    senders.stop();
    await sending;

    const accepted = senders.of("accepted");
    const spool = join(folder.path, "spool");
    const isDone = async () =>
      accepted.every((id) => sink.taken.has(id)) && (await collect(readQueue(spool))).length === 0;
    const deadline = performance.now() + deliveryDeadlineMs;
    while (!(await isDone()) && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await relay.stop()).toBe(0);

    const lost = accepted.filter((id) => !sink.taken.has(id));
    const unasked = senders.of("refused").filter((id) => sink.taken.has(id));
    const repeated = [...sink.taken].filter(([, times]) => times.length > 1);
    const unexplained = repeated.filter(
      ([, times]) => !times.every((at, n) => n === 0 || isExplained(times[n - 1] ?? 0, at)),
    );
    /** Taken about when the deliverer was killed, and again afterwards. */
    function isExplained(first: number, second: number): boolean {
      return deliveryKills.some((killedAt) => Math.abs(first - killedAt) < inFlightMs && second > killedAt);
    }
    const count = (victim: Victim) => victims.filter((name) => name === victim).length;
    console.log(
      `kill test: ${kills} kills (${count("receiver")} receiver, ${count("deliverer")} deliverer, ${count("everything")} all; ` +
        `seed ${seed}), ${accepted.length} accepted, ${senders.of("unknown").length} without an answer, ` +
        `${lost.length} lost, ${repeated.length} delivered twice`,
    );
    expect(accepted.length).toBeGreaterThan(kills * 5);
    expect({ lost, unasked, unexplained }).toEqual({ lost: [], unasked: [], unexplained: [] });

    // Nothing is left of all this.
    expect(await collect(readQueue(spool))).toEqual([]);
    expect(await readdir(join(spool, "corrupt"))).toEqual([]);
    const files = [...(await readdir(join(spool, "incoming"))), ...(await readdir(join(spool, "queue")))];
    expect(files.filter((name) => !/^(?:lock\.sqlite|index\.sqlite|ballast)/.test(name))).toEqual([]);
  });
});

/** A port that was free a moment ago: it has to stand in the configuration before the certificates are made. */
async function freePort(address: string): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  const bound = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (bound === null || typeof bound === "string") throw new Error("the system gave no port");
  return bound.port;
}
