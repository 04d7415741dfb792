/**
 * The receiver compartment: listens for partners, and can do nothing with a message but put it into the drop-box. It never
 * dials out, runs no program, and reads no message back.
 */
import { readFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import type { RelayConfig } from "../config/relay-config.ts";
import type { Log } from "../log/log.ts";
import { DirectoryDropBox } from "../spool/directory/drop-box.ts";
import { prepareFolders } from "../spool/directory/folders.ts";
import { UsageReader } from "../spool/directory/usage.ts";
import type { DropBox } from "../spool/spool.ts";
import { ConnectionCensus } from "./census.ts";
import { OpenWork, usualTimeouts, type ReceiverContext, type Timeouts } from "./context.ts";
import { PolicyInForce } from "./policy-in-force.ts";
import { RelayServer } from "./server.ts";

export interface Receiver {
  /** Where it listens, in the order of the configuration; ports as the system gave them. */
  readonly addresses: ReadonlyArray<{ readonly address: string; readonly port: number; readonly implicitTls: boolean }>;
  /** Connections that are open now. */
  connections(): number;
  /** Stops listening, lets messages in flight end, and resolves when all is on stable storage and all are gone. */
  stop(): Promise<void>;
}

export interface ReceiverOptions {
  readonly now?: () => Date;
  /** Where messages go in place of the configured spool. */
  readonly dropBox?: DropBox;
  readonly timeouts?: Partial<Timeouts>;
}

/** Starts to listen; fails with the system's error if an address cannot be had, and then listens nowhere. */
export async function startReceiver(config: RelayConfig, log: Log, options: ReceiverOptions = {}): Promise<Receiver> {
  const { now = () => new Date() } = options;
  const key = await readFile(config.tls.keyFile, "utf8");
  const usage = new UsageReader(config.spool.path, (error) =>
    log.error({
      event: "fault",
      during: "looking at the spool",
      err: error instanceof Error ? error : new Error(String(error)),
    }),
  );
  const dropBox = options.dropBox ?? (await openDropBox(config, log, now, usage));
  const context: ReceiverContext = {
    policy: new PolicyInForce(config),
    dropBox,
    usage,
    log,
    now,
    census: new ConnectionCensus(),
    timeouts: { ...usualTimeouts, ...options.timeouts },
    work: new OpenWork(),
  };
  const servers: RelayServer[] = [];
  try {
    const addresses = [];
    for (const { address, port, implicitTls } of config.listen) {
      const server = new RelayServer(context, key, implicitTls);
      servers.push(server);
      addresses.push({ address, port: await listen(server, address, port), implicitTls });
    }
    log.info({ event: "listening", addresses });
    let stopped: Promise<void> | undefined;
    return {
      addresses,
      connections: () => context.census.connections,
      stop: () => (stopped ??= stop(servers, context)),
    };
  } catch (error) {
    await stop(servers, context);
    throw error;
  }
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
async function stop(servers: readonly RelayServer[], { work, dropBox }: ReceiverContext): Promise<void> {
  await Promise.all(servers.filter(({ server }) => server.listening).map((server) => server.drain()));
  await work.idle();
  await dropBox.close();
}

function listen(server: RelayServer, address: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.server.once("error", reject);
    server.listen(port, address, () => {
      server.server.off("error", reject);
      resolve((server.server.address() as AddressInfo).port); // never a pipe: address and port were given
    });
  });
}
