/** A deliverer with a real spool in a folder of its own, whose calls can be watched and made to fail. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RelayConfig } from "../../src/config/relay-config.ts";
import { Deliverer } from "../../src/deliverer/deliverer.ts";
import { deliveryLimits, type DeliveryLimits } from "../../src/deliverer/limits.ts";
import type { Route } from "../../src/partner/partner.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { openDirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import type {
  ClaimedMessage,
  ClaimRequest,
  Draft,
  DropBox,
  PutBack,
  RecipientIndex,
  SessionFacts,
  Spool,
  SpoolUsage,
} from "../../src/spool/spool.ts";
import { makeRelayFolder } from "../tools/relay-folder.ts";
import { envelopeOf, untilTrue, watchedLog, type MessageShape, type WatchedLog } from "./support.ts";

export class Clock {
  ms = 1_790_000_000_000;
  readonly now = (): Date => new Date(this.ms);
}

type Fallible = "claimNew" | "claimDue" | "settle" | "putBack" | "setAside" | "report";

/** The spool itself, but for what a test makes of it. */
export class WatchedSpool implements Spool {
  readonly claimed: ClaimedMessage[] = [];
  readonly putBacks: Array<PutBack & { readonly id: string }> = [];
  readonly setAsides: string[] = [];
  readonly dropBox: DropBox;
  /** Faults to come, by call. */
  readonly faults = new Map<Fallible, Error[]>();
  /** Called with each claimed message before it is given out. */
  onClaim: (message: ClaimedMessage) => void = () => undefined;
  scans = 0;
  inHand = 0;
  inHandMax = 0;
  readonly #inner: Spool;
  readonly #watchers = new Set<() => void>();

  constructor(inner: Spool) {
    this.#inner = inner;
    this.dropBox = {
      receive: () => failingDraft(inner.dropBox.receive(), () => this.#fault("report")),
      close: () => inner.dropBox.close(),
    };
  }

  until(condition: () => boolean): Promise<void> {
    const tell = () => `${this.claimed.length} claimed, ${this.putBacks.length} put back, ${this.scans} scans`;
    return untilTrue(condition, this.#watchers, tell);
  }

  /** Resolves when so many more scans have been made, with nothing left in hand. */
  async settledDown(): Promise<void> {
    await this.until(() => this.inHand === 0);
    const from = this.scans;
    await this.until(() => this.scans >= from + 4 && this.inHand === 0);
  }

  fail(call: Fallible, ...faults: readonly Error[]): void {
    this.faults.set(call, [...(this.faults.get(call) ?? []), ...faults]);
  }

  async claimNew(request: ClaimRequest): Promise<ClaimedMessage[]> {
    this.scans += 1;
    this.#happened();
    this.#fault("claimNew");
    return this.#given(await this.#inner.claimNew(request));
  }

  async claimDue(request: ClaimRequest & { busyRoutes: readonly string[] }): Promise<ClaimedMessage[]> {
    this.#fault("claimDue");
    return this.#given(await this.#inner.claimDue(request));
  }

  settle(message: ClaimedMessage, recipients: readonly RecipientIndex[], state: "delivered" | "failed"): void {
    this.#fault("settle");
    this.#inner.settle(message, recipients, state);
  }

  async putBack(message: ClaimedMessage, putBack: PutBack): Promise<void> {
    this.#fault("putBack");
    await this.#inner.putBack(message, putBack);
    this.inHand -= 1;
    this.putBacks.push({ id: message.meta.id, ...putBack });
    this.#happened();
  }

  async setAside(message: ClaimedMessage, reason: string): Promise<void> {
    this.#fault("setAside");
    await this.#inner.setAside(message, reason);
    this.inHand -= 1;
    this.setAsides.push(message.meta.id);
    this.#happened();
  }

  nextDueAtMs(): number | undefined {
    return this.#inner.nextDueAtMs();
  }

  usage(): SpoolUsage {
    return this.#inner.usage();
  }

  watch(onHint: () => void): { close(): void } {
    return this.#inner.watch(onHint);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  #given(messages: ClaimedMessage[]): ClaimedMessage[] {
    this.claimed.push(...messages);
    this.inHand += messages.length;
    this.inHandMax = Math.max(this.inHandMax, this.inHand);
    for (const message of messages) this.onClaim(message);
    this.#happened();
    return messages;
  }

  #fault(call: Fallible): void {
    const fault = this.faults.get(call)?.shift();
    if (fault !== undefined) throw fault;
  }

  #happened(): void {
    for (const watcher of this.#watchers) watcher();
  }
}

function failingDraft(draft: Draft, fail: () => void): Draft {
  return {
    id: draft.id,
    write: (wire) => draft.write(wire),
    async commit(message) {
      try {
        fail();
      } catch (error) {
        await draft.discard(); // as a draft does whose commit fails
        throw error;
      }
      return draft.commit(message);
    },
    discard: () => draft.discard(),
  };
}

export interface TestRelay {
  readonly path: string;
  readonly config: RelayConfig;
  readonly clock: Clock;
  readonly log: WatchedLog;
  readonly fatal: unknown[];
  readonly spool: WatchedSpool;
  readonly deliverer: Deliverer;
  /** Puts a message into the drop-box; gives its id. */
  commit(
    shape?: MessageShape & {
      readonly partner?: string | null;
      readonly toPartner?: string | null;
      readonly session?: SessionFacts;
    },
  ): Promise<string>;
  start(): void;
  /** Stops the deliverer and opens the spool again, with another configuration if one is given. Does not start. */
  reopen(config?: RelayConfig): Promise<void>;
  /** Names of the files that hold messages or batches. */
  files(): Promise<string[]>;
  close(): Promise<void>;
}

export interface TestRelayOptions {
  readonly routes: readonly Route[];
  /** Servers of partners who receive mail. */
  readonly deliver?: Readonly<Record<string, Route>>;
  readonly retry?: Partial<RelayConfig["retry"]>;
  readonly limits?: Partial<DeliveryLimits>;
}

/** The configuration of a folder made by `makeRelayFolder`, with routes of the test's own. */
export async function relayConfig({ routes, deliver = {}, retry = {} }: TestRelayOptions): Promise<RelayConfig> {
  const folder = await makeRelayFolder();
  try {
    const config = await folder.load();
    return {
      ...config,
      routes,
      partners: config.partners.map((partner) => ({ ...partner, deliver: deliver[partner.name] })),
      retry: { ...config.retry, ...retry },
    };
  } finally {
    await folder.remove();
  }
}

export async function openTestRelay(options: TestRelayOptions): Promise<TestRelay> {
  const path = await mkdtemp(join(tmpdir(), "pinrelay-deliverer-"));
  const clock = new Clock();
  const log = watchedLog();
  const fatal: unknown[] = [];
  const limits = { ...deliveryLimits, scanIntervalMs: 10, faultPauseMs: 10, ...options.limits };
  let config = await relayConfig(options);
  let spool = await openSpool();
  /** The receiver's. */
  const dropBox = new DirectoryDropBox({ directory: join(path, "incoming"), now: () => clock.ms });
  let deliverer = newDeliverer();

  async function openSpool(): Promise<WatchedSpool> {
    const report = (problem: object) => log.log.error({ event: "spool problem", ...problem });
    return new WatchedSpool(await openDirectorySpool({ path, now: () => clock.ms, report }));
  }

  function newDeliverer(): Deliverer {
    const { now } = clock;
    const told = (error: unknown) => fatal.push(error);
    return new Deliverer({ config, spool, log: log.log, now, random: () => 0.5, limits, fatal: told });
  }

  return {
    path,
    clock,
    log,
    fatal,
    get config() {
      return config;
    },
    get spool() {
      return spool;
    },
    get deliverer() {
      return deliverer;
    },
    async commit(shape = {}) {
      const content = Buffer.from(shape.content ?? "Subject: test\r\n\r\nHello.\r\n");
      const headerEnd = content.indexOf("\r\n\r\n");
      const partner = shape.partner === undefined ? "acme" : shape.partner;
      // Nobody but the deliverer puts in what comes from no partner.
      const draft = (partner === null ? spool.dropBox : dropBox).receive();
      await draft.write(Buffer.from(content));
      const { id } = await draft.commit({
        receivedAtMs: clock.ms,
        partner,
        toPartner: shape.toPartner ?? null,
        envelope: envelopeOf(shape),
        sizeBytes: content.length,
        headerBytes: headerEnd < 0 ? content.length : headerEnd + 2,
        session: shape.session ?? { id: "s1", address: "127.0.0.11", helo: "mx.acme.example" },
        eightBit: content.some((octet) => octet > 127),
      });
      return id;
    },
    start: () => deliverer.start(),
    async reopen(other) {
      await deliverer.stop();
      await spool.close();
      config = other ?? config;
      spool = await openSpool();
      deliverer = newDeliverer();
    },
    async files() {
      const names = await readdir(path, { recursive: true, withFileTypes: true });
      return names.flatMap(({ name }) => (/\.(?:batch|content|part|tmp)$/.test(name) ? [name] : []));
    },
    async close() {
      await deliverer.stop();
      await dropBox.close();
      await spool.close();
      await rm(path, { recursive: true, force: true });
    },
  };
}
