/**
 * Private instances of Postfix, started and stopped by a test: a partner's server that sends, a partner's that receives,
 * and a company's internal one. Each has its own configuration, queue, data, log and mailboxes in its own temporary
 * directory, listens on its own loopback address, and knows nothing of the machine's own Postfix.
 *
 * `startPostfix` returns once the servers answer. `stop` ends the master process by its id, waits until its whole process
 * group is gone and removes the directory; a guard does the same if the test process dies. Needs root, as Postfix does.
 *
 * Fails with the instance's log in the message, because that is where Postfix says why.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { Maildir } from "./maildir.ts";
import { startPolicyServer, type PolicyRequest, type PolicyServer } from "./policy-server.ts";
import { paths, type Listener, type PostfixLayout } from "./postfix-config.ts";
import { layOut, type PostfixOptions } from "./postfix-layout.ts";
import { groupIsAlive, Guard, output, portIsTaken, run, temporaryDirectory, until } from "./processes.ts";
import { submit, type Submission } from "./submission.ts";

/** One message in the queue, as `postqueue -j` prints it. */
export interface QueueEntry {
  queue_name: "active" | "deferred" | "hold" | "incoming" | "maildrop" | "corrupt";
  queue_id: string;
  arrival_time: number;
  message_size: number;
  sender: string;
  recipients: { address: string; delay_reason?: string }[];
}

const readyDeadlineMs = 20_000;
const stopDeadlineMs = 10_000;
/** Another process can take a port between our look and Postfix's bind. */
const startsMax = 3;

class PortTaken extends Error {}

export async function startPostfix(options: PostfixOptions): Promise<PostfixInstance> {
  for (let start = 1; ; start++) {
    try {
      return await PostfixInstance.start(options);
    } catch (error) {
      if (!(error instanceof PortTaken) || start === startsMax) throw error;
    }
  }
}

export class PostfixInstance {
  readonly directory: string;
  readonly hostname: string;
  readonly address: string;
  /** Where other hosts reach it; undefined for one that only sends. */
  readonly listener: Listener | undefined;
  readonly submissionPort: number;
  /** What Postfix asked at RCPT, DATA and END-OF-MESSAGE of its public server, oldest first. */
  readonly requests: PolicyRequest[];
  readonly #maildir: Maildir;
  readonly #policy: PolicyServer;
  readonly #refused: Map<string, string>;
  readonly #master: ChildProcess;
  /** The leader of the process group that all its processes belong to. */
  readonly masterPid: number;
  readonly #masterExit: Promise<void>;
  readonly #guard: Guard;
  #stopped: Promise<void> | undefined;

  private constructor(layout: PostfixLayout, policy: PolicyServer, refused: Map<string, string>) {
    this.directory = layout.directory;
    this.hostname = layout.hostname;
    this.address = layout.address;
    this.listener = layout.listener;
    this.submissionPort = layout.submissionPort;
    this.requests = policy.requests;
    this.#maildir = new Maildir(join(layout.directory, paths.mailboxes, "all"));
    this.#policy = policy;
    this.#refused = refused;
    // -d: errors go to our standard error while there is no log. `detached`: when it ends, the master signals its process
    // group, so that has to be its own.
    this.#master = spawn(join(layout.daemonDirectory, "master"), ["-d", "-c", this.#configuration], {
      detached: true,
      stdio: ["ignore", "ignore", "inherit"],
    });
    this.#masterExit = new Promise((resolve) => {
      this.#master.once("exit", () => resolve());
      this.#master.once("error", () => resolve());
    });
    if (this.#master.pid === undefined) throw new Error("the Postfix master cannot be started");
    this.masterPid = this.#master.pid;
    this.#guard = new Guard(this.masterPid, layout.directory);
  }

  static async start(options: PostfixOptions): Promise<PostfixInstance> {
    const refused = new Map(Object.entries("refused" in options ? (options.refused ?? {}) : {}));
    const other = "policy" in options ? options.policy : undefined;
    const policy = await startPolicyServer("127.0.0.1", (request) => {
      const refusal = request["protocol_state"] === "RCPT" ? refused.get(request["recipient"] ?? "") : undefined;
      return refusal ?? other?.(request);
    });
    const directory = await temporaryDirectory(options.role);
    let instance: PostfixInstance | undefined;
    try {
      const layout = await layOut(options, directory, policy);
      instance = new PostfixInstance(layout, policy, refused);
      await instance.#ready();
      return instance;
    } catch (error) {
      if (instance) await instance.stop();
      await policy.close();
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Where a relay or client finds the public server. */
  get endpoint(): { address: string; port: number } {
    if (!this.listener) throw new Error(`${this.hostname} has no public server`);
    return { address: this.listener.address, port: this.listener.port };
  }

  /** Hands a message to the instance over plain SMTP. Returns its queue id; throws if Postfix does not take it. */
  async submit(submission: Submission): Promise<string> {
    return submit(this.submissionPort, submission);
  }

  /** The messages delivered to this address, as stored (see `contentOf`), oldest first. */
  async mailbox(address: string): Promise<Buffer[]> {
    return this.#maildir.read(address);
  }

  /** Waits until at least `count` messages are in the mailbox. */
  async waitForMessages(address: string, count: number, deadlineMs?: number): Promise<Buffer[]> {
    return this.#until(`${count} messages for ${address} at ${this.hostname}`, deadlineMs, async () => {
      return (await this.#maildir.count(address)) >= count ? this.mailbox(address) : undefined;
    });
  }

  /** Waits for the first message that has this value in this header field, `Message-ID` or `Subject` say. */
  async waitForMessage(address: string, field: string, value: string, deadlineMs?: number): Promise<Buffer> {
    return this.#until(`${field}: ${value} for ${address} at ${this.hostname}`, deadlineMs, async () => {
      return this.#maildir.find(address, field, value);
    });
  }

  async queue(): Promise<QueueEntry[]> {
    const text = (await output("postqueue", ["-c", this.#configuration, "-j"])).toString();
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as QueueEntry); // postqueue(1) documents the shape.
  }

  /** Waits until the queue holds nothing: everything was delivered, bounced or expired. */
  async waitForEmptyQueue(deadlineMs?: number): Promise<void> {
    await this.#until(`an empty queue at ${this.hostname}`, deadlineMs, async () => {
      const queue = await this.queue();
      return queue.length === 0 ? true : undefined;
    });
  }

  /** Tries everything deferred again now. */
  async flush(): Promise<void> {
    await output("postqueue", ["-c", this.#configuration, "-f"]);
  }

  /** Has its processes read their configuration, certificates among it, anew. */
  reload(): void {
    process.kill(this.masterPid, "SIGHUP");
  }

  /** The mail log so far. */
  async log(): Promise<string> {
    return readFile(join(this.directory, paths.log), "utf8").catch(() => "");
  }

  async waitForLog(pattern: RegExp, deadlineMs?: number): Promise<RegExpExecArray> {
    return this.#until(`${pattern} in the log of ${this.hostname}`, deadlineMs, async () => {
      return pattern.exec(await this.log()) ?? undefined;
    });
  }

  /** Changes what is answered at RCPT for this address from now on; undefined lets it through again. */
  refuse(recipient: string, reply: string | undefined): void {
    if (reply === undefined) this.#refused.delete(recipient);
    else this.#refused.set(recipient, reply);
  }

  async stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    await this.#stopped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  get #configuration(): string {
    return join(this.directory, paths.configuration);
  }

  async #stop(): Promise<void> {
    // The master hands SIGTERM on to its process group and ends.
    signalGroup(this.masterPid, "SIGTERM");
    try {
      const ended = async () => ((await groupIsAlive(this.masterPid)) ? undefined : true);
      await until(`the end of Postfix ${this.hostname}`, ended, { deadlineMs: stopDeadlineMs });
    } catch (error) {
      signalGroup(this.masterPid, "SIGKILL");
      throw error;
    } finally {
      await this.#masterExit;
      this.#guard.dismiss();
      await this.#policy.close();
      await rm(this.directory, { recursive: true, force: true });
    }
  }

  async #ready(): Promise<void> {
    await this.#until(`the start of Postfix ${this.hostname}`, readyDeadlineMs, async () => {
      if (this.#master.exitCode !== null || this.#master.signalCode !== null) throw await this.#whyNotStarted();
      return (await this.log()).includes("daemon started") || undefined;
    });
  }

  /** Until its log daemon runs, the master complains to syslog alone; so ask again in ways that answer us. */
  async #whyNotStarted(): Promise<Error> {
    const listeners = [...(this.listener ? [this.listener] : []), { address: "127.0.0.1", port: this.submissionPort }];
    for (const { address, port } of listeners) {
      if (await portIsTaken(address, port)) return new PortTaken(`${address}:${port} is taken`);
    }
    const complaints = await Promise.all([
      run("postqueue", ["-c", this.#configuration, "-j"]),
      run("postconf", ["-c", this.#configuration, "-n"]),
    ]);
    const said = complaints.map(({ stderr }) => stderr).join("");
    return new Error(`Postfix ${this.hostname} ended at once:\n${said}${await this.log()}`);
  }

  async #until<Found>(what: string, deadlineMs: number | undefined, look: () => Promise<Found | undefined>) {
    return until(what, look, {
      ...(deadlineMs !== undefined && { deadlineMs }),
      report: async () => (await this.log()).split("\n").slice(-40).join("\n"),
    });
  }
}

function signalGroup(leader: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(-leader, signal);
  } catch {
    // Gone already, which is what is wanted.
  }
}
