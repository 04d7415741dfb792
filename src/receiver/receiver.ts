/**
 * The receiver compartment: listens for partners, and can do nothing with a message but put it into the drop-box. It never
 * dials out, runs no program, and reads no message back.
 */
import { isDeepStrictEqual } from "node:util";
import { DecisionRecorder, type DecisionLog } from "../audit/decision-log.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import type { Log } from "../log/log.ts";
import { SightingsRecorder } from "../sightings/recorder.ts";
import type { RecordWriterOptions } from "../sightings/record-writer.ts";
import { DirectoryDropBox } from "../spool/directory/drop-box.ts";
import { prepareFolders } from "../spool/directory/folders.ts";
import { UsageReader } from "../spool/directory/usage.ts";
import type { DropBox } from "../spool/spool.ts";
import { ConnectionCensus } from "./census.ts";
import { fixedTimeouts, OpenWork, type ReceiverContext, type Timeouts } from "./context.ts";
import { Listeners, type Listening } from "./listeners.ts";
import { HandshakeRates } from "./handshake-rates.ts";
import { PolicyInForce } from "./policy-in-force.ts";
import { keepRates, type KeptRates } from "./rates-file.ts";
import {
  CertificateWatch,
  firstServerPair,
  logRenewal,
  readServerPair,
  type PairFault,
  type ServerPair,
} from "./server-certificate.ts";
import { RelayServer } from "./server.ts";

export interface Receiver {
  /** Where it listens, in the order of the configuration; ports as the system gave them. */
  readonly addresses: readonly Listening[];
  /** The version of the configuration in force. */
  readonly policy: string;
  /** Connections that are open now. */
  connections(): number;
  /**
   * Works by another configuration from now on, or fails, and then nothing has changed. Sessions are judged by it at
   * their next MAIL; a message that is coming in ends under the one that it began with. Spool, host name and the lowest
   * TLS version must be the same as before.
   */
  reload(config: RelayConfig): Promise<void>;
  /** Stops listening, lets messages in flight end, and resolves when all is on stable storage and all are gone. */
  stop(): Promise<void>;
}

export interface ReceiverOptions {
  readonly now?: () => Date;
  /** Where messages go in place of the configured spool. */
  readonly dropBox?: DropBox;
  /** In place of those that are configured, and of those that are not. */
  readonly timeouts?: Partial<Timeouts>;
  /** How what was seen is written down. */
  readonly sightings?: RecordWriterOptions;
  /** How what partners have sent is written down. */
  readonly rates?: RecordWriterOptions;
  /** Where decisions go in place of the audit folder. */
  readonly decisions?: DecisionLog;
  /** How often the files of the server's certificate are looked at. */
  readonly certificatePollMs?: number;
}

/** The server's certificate or its key cannot be used; the text names the file. */
export class ServerCertificateFault extends Error {
  constructor(fault: string) {
    super(`the server's certificate and key cannot be used: ${fault}`);
    this.name = "ServerCertificateFault";
  }
}

/** Starts to listen; fails with the system's error if an address cannot be had, and then listens nowhere. */
export async function startReceiver(config: RelayConfig, log: Log, options: ReceiverOptions = {}): Promise<Receiver> {
  const { now = () => new Date() } = options;
  const pair = usable(await firstServerPair(config.tls, log));
  const usage = new UsageReader(config.spool.path, (error) =>
    log.error({
      event: "fault",
      during: "looking at the spool",
      err: error instanceof Error ? error : new Error(String(error)),
    }),
  );
  const dropBox = options.dropBox ?? (await openDropBox(config, log, now, usage));
  const sightings = await SightingsRecorder.open(config.spool.path, log, now(), options.sightings);
  sightings.retain(config.partners);
  const kept = await keepRates({
    spoolPath: config.spool.path,
    partners: config.partners,
    log,
    now,
    ...(options.rates === undefined ? {} : { writer: options.rates }),
  });
  const { decisions = await DecisionRecorder.open(config.audit.path, log, { now }) } = options;
  const context: ReceiverContext = {
    policy: new PolicyInForce(config),
    dropBox,
    usage,
    sightings,
    decisions,
    log,
    now,
    census: new ConnectionCensus(),
    handshakes: new HandshakeRates(),
    rates: kept.rates,
    get timeouts() {
      return { ...fixedTimeouts, ...this.policy.config.limits.timeouts, ...options.timeouts };
    },
    work: new OpenWork(),
  };
  const watch = new CertificateWatch({
    files: config.tls,
    pair,
    log,
    onRenewed: (renewed) => listeners.renew(renewed),
    ...(options.certificatePollMs === undefined ? {} : { pollMs: options.certificatePollMs }),
  });
  const listeners = new Listeners((implicitTls) => new RelayServer(context, watch.pair, implicitTls));
  let changing: Promise<void> = Promise.resolve();
  let stopped: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    await changing;
    watch.close();
    await stop(listeners, context, sightings, kept);
    await decisions.close();
  };
  try {
    (await listeners.prepare(config.listen))();
  } catch (error) {
    await end();
    throw error;
  }
  log.info({ event: "listening", addresses: listeners.addresses });
  return {
    get addresses() {
      return listeners.addresses;
    },
    get policy() {
      return context.policy.config.version;
    },
    connections: () => context.census.connections,
    reload(next) {
      const done = changing.then(() => reload(next, context, listeners, watch, kept, sightings));
      changing = done.catch(() => undefined); // who asked hears of it
      return done;
    },
    stop: () => (stopped ??= end()),
  };
}

/** All that can fail comes first; what follows happens at once, between two events. */
async function reload(
  config: RelayConfig,
  context: ReceiverContext,
  listeners: Listeners,
  watch: CertificateWatch,
  { rates }: KeptRates,
  sightings: SightingsRecorder,
): Promise<void> {
  const before = context.policy.config;
  const { certificateFile, keyFile } = before.tls;
  const isMoved = config.tls.certificateFile !== certificateFile || config.tls.keyFile !== keyFile;
  const pair = isMoved ? usable(await readServerPair(config.tls)) : watch.pair;
  const policy = new PolicyInForce(config);
  const commit = await listeners.prepare(config.listen);
  context.policy = policy;
  rates.retain(config.partners);
  sightings.retain(config.partners);
  commit();
  if (isMoved) {
    logRenewal(context.log, watch.pair, pair);
    watch.move(config.tls, pair);
    listeners.renew(pair);
  }
  const changed = isDeepStrictEqual(before.listen, config.listen) ? {} : { addresses: listeners.addresses };
  context.log.info({ event: "reloaded", policy: config.version.slice(0, 12), ...changed });
  await context.decisions.moveTo(config.audit.path);
}

function usable(pair: ServerPair | PairFault): ServerPair {
  if (pair.kind === "fault") throw new ServerCertificateFault(pair.fault);
  return pair;
}

async function openDropBox(config: RelayConfig, log: Log, now: () => Date, usage: UsageReader): Promise<DropBox> {
  const folders = await prepareFolders(config.spool.path);
  const dropBox = new DirectoryDropBox({
    directory: folders.incoming,
    now: () => now().getTime(),
    onCommitted: usage.note,
  });
  const removed = await dropBox.removeLeftovers();
  if (removed > 0) log.info({ event: "leftovers removed", files: removed });
  await usage.refresh();
  return dropBox;
}

/** What is being committed is waited for even if its client has gone: the drop-box forgets what is open when it closes. */
async function stop(
  listeners: Listeners,
  { work, dropBox }: ReceiverContext,
  sightings: SightingsRecorder,
  kept: KeptRates,
): Promise<void> {
  await listeners.stop();
  await work.idle();
  await dropBox.close();
  await sightings.close();
  await kept.close();
}
