/**
 * The addresses that the receiver listens on, and how they change while it runs.
 *
 * Promises: an address that stays is not touched; new ones are bound before any is given up, and if one of them cannot be
 * had, all is as it was. Sessions of an address that is given up end in order. Only where a new address is in the way of
 * an old one (another address of the same port, as 192.0.2.1 in place of 0.0.0.0) the old one is closed first, for some
 * milliseconds.
 */
import type { AddressInfo } from "node:net";
import type { ListenAddress } from "../config/relay-config.ts";
import type { RelayServer } from "./server.ts";

/** An address with the port that the system gave. */
export type Listening = ListenAddress;

interface Listener {
  /** As configured: port 0 is any. */
  readonly place: ListenAddress;
  readonly port: number;
  readonly server: RelayServer;
}

export class Listeners {
  readonly #make: (implicitTls: boolean) => RelayServer;
  #open: readonly Listener[] = [];
  readonly #draining = new Map<RelayServer, Promise<void>>();

  constructor(make: (implicitTls: boolean) => RelayServer) {
    this.#make = make;
  }

  /** In the order of the configuration. */
  get addresses(): Listening[] {
    return this.#open.map(({ place: { address, implicitTls }, port }) => ({ address, port, implicitTls }));
  }

  /**
   * Binds what is not bound yet; fails with the system's error, and then nothing has changed.
   * @returns what gives up the others; to be called at once.
   */
  async prepare(wanted: readonly ListenAddress[]): Promise<() => void> {
    const left = [...this.#open];
    const kept = wanted.map((place) => {
      const at = left.findIndex((listener) => isSamePlace(listener.place, place));
      return at < 0 ? undefined : left.splice(at, 1)[0];
    });
    const opened: Listener[] = [];
    const suspended: Listener[] = [];
    const next: Listener[] = [];
    try {
      for (const [index, place] of wanted.entries()) {
        const listener = kept[index] ?? (await this.#bind(place, left, suspended));
        if (kept[index] === undefined) opened.push(listener);
        next.push(listener);
      }
    } catch (error) {
      for (const listener of opened) this.#drain(listener);
      for (const { server, place, port } of suspended) await listen(server, { ...place, port });
      throw error;
    }
    return () => {
      this.#open = next;
      for (const listener of left) this.#drain(listener);
    };
  }

  /** All handshakes from now on, also of sessions on addresses that were given up. */
  renew(pair: Parameters<RelayServer["renew"]>[0]): void {
    for (const server of [...this.#open.map((listener) => listener.server), ...this.#draining.keys()]) {
      server.renew(pair);
    }
  }

  /** Stops listening, and resolves when all sessions have ended. */
  async stop(): Promise<void> {
    for (const listener of this.#open) this.#drain(listener);
    this.#open = [];
    await Promise.all(this.#draining.values());
  }

  async #bind(place: ListenAddress, left: readonly Listener[], suspended: Listener[]): Promise<Listener> {
    const server = this.#make(place.implicitTls);
    try {
      return { place, server, port: await listen(server, place) };
    } catch (error) {
      const inTheWay = left.filter((old) => isInTheWay(old, place) && old.server.server.listening);
      if (inTheWay.length === 0 || !(error instanceof Error && "code" in error && error.code === "EADDRINUSE")) {
        throw error;
      }
      for (const old of inTheWay) {
        old.server.server.close(); // of the socket alone: its sessions go on
        suspended.push(old);
      }
      return { place, server, port: await listen(server, place) };
    }
  }

  #drain({ server }: Listener): void {
    const drained = server.drain().finally(() => this.#draining.delete(server));
    this.#draining.set(server, drained);
  }
}

function isSamePlace(one: ListenAddress, other: ListenAddress): boolean {
  return one.address === other.address && one.port === other.port && one.implicitTls === other.implicitTls;
}

function isInTheWay({ place: { address }, port }: Listener, wanted: ListenAddress): boolean {
  const isAny = (candidate: string): boolean => candidate === "0.0.0.0" || candidate === "::";
  return port === wanted.port && (address === wanted.address || isAny(address) || isAny(wanted.address));
}

function listen(server: RelayServer, { address, port }: Pick<ListenAddress, "address" | "port">): Promise<number> {
  return new Promise((resolve, reject) => {
    const refused = (error: Error): void => reject(error);
    server.server.once("error", refused);
    server.listen(port, address, () => {
      server.server.off("error", refused);
      resolve((server.server.address() as AddressInfo).port); // never a pipe: address and port were given
    });
  });
}
