/**
 * The relay's own certificate and key: read as a pair, and taken anew when the files change, without a reload.
 *
 * Promises: a pair is used only if both parts parse and belong together; while one of the files is half-written, or the
 * certificate is there and its key is not yet, the old pair stays in use, and the log says so once. New handshakes get
 * the new pair; sessions go on.
 */
import { createPrivateKey, X509Certificate, type KeyObject } from "node:crypto";
import { stat } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import { parsePem } from "../config/pem.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import { readBounded } from "../config/source.ts";
import type { Log } from "../log/log.ts";
import { spkiDigest, type Digest } from "../partner/pin.ts";

/** Both in PEM. */
export interface ServerPair {
  readonly kind: "pair";
  /** The chain, leaf first. */
  readonly certificate: string;
  readonly key: string;
  /** By which partners may have pinned us. */
  readonly pin: Digest;
  readonly notAfter: Date;
}

/** What is wrong with a pair, with the name of the file. */
export interface PairFault {
  readonly kind: "fault";
  readonly fault: string;
}

type PairFiles = Pick<RelayConfig["tls"], "certificateFile" | "keyFile">;

/** Reads the pair from its files. */
export async function readServerPair({ certificateFile, keyFile }: PairFiles): Promise<ServerPair | PairFault> {
  const certificate = await readBounded(certificateFile);
  if ("fault" in certificate) return faulty(`${certificateFile} ${certificate.fault}`);
  const parsed = parsePem(certificate);
  if (parsed.kind === "fault") return faulty(`${certificateFile} ${parsed.fault}`);
  return pairWith(parsed.pem, { certificateFile, keyFile });
}

/**
 * The pair to begin with: that of the files, or, where the certificate's file is no good at the moment, the certificate of
 * the configuration, if the key is still its key: a receiver that dies must be able to come back meanwhile.
 */
export async function firstServerPair(tls: RelayConfig["tls"], log: Log): Promise<ServerPair | PairFault> {
  const fromFiles = await readServerPair(tls);
  if (fromFiles.kind === "pair") return fromFiles;
  const fromConfig = await pairWith(tls.certificate, tls);
  if (fromConfig.kind === "pair") log.error({ event: "server certificate not usable", error: fromFiles.fault });
  return fromConfig.kind === "pair" ? fromConfig : fromFiles;
}

async function pairWith(certificate: string, { certificateFile, keyFile }: PairFiles): Promise<ServerPair | PairFault> {
  const bytes = await readBounded(keyFile);
  if ("fault" in bytes) return faulty(`${keyFile} ${bytes.fault}`);
  const key = parseKey(bytes);
  if (key === undefined) return faulty(`${keyFile} holds no private key that can be used`);
  const leaf = new X509Certificate(certificate);
  if (!leaf.checkPrivateKey(key)) {
    return faulty(`${keyFile} is not the key of ${certificateFile}: the two must be made together`);
  }
  const pem = bytes.toString("latin1");
  try {
    createSecureContext({ cert: certificate, key: pem });
  } catch (error) {
    return faulty(`${certificateFile} cannot be used: ${error instanceof Error ? error.message : String(error)}`);
  }
  return { kind: "pair", certificate, key: pem, pin: spkiDigest(leaf), notAfter: leaf.validToDate };
}

function parseKey(pem: Buffer): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined; // also one that is encrypted: there is nobody to ask
  }
}

function faulty(fault: string): PairFault {
  return { kind: "fault", fault };
}

export interface CertificateWatchOptions {
  readonly files: PairFiles;
  readonly pair: ServerPair;
  readonly log: Log;
  readonly onRenewed: (pair: ServerPair) => void;
  readonly pollMs?: number;
}

const usualPollMs = 2_000;

/** Looks at the files now and then: renewed ones come by rename, by symbolic link or by copy, and all of them are seen. */
export class CertificateWatch {
  readonly #log: Log;
  readonly #onRenewed: (pair: ServerPair) => void;
  readonly #timer: NodeJS.Timeout;
  #files: PairFiles;
  #pair: ServerPair;
  /** What the files looked like when they were last read, and at the last look; undefined: not yet. */
  #read: string | undefined;
  #seen: string | undefined;
  #looking = false;
  #closed = false;

  constructor({ files, pair, log, onRenewed, pollMs = usualPollMs }: CertificateWatchOptions) {
    this.#files = files;
    this.#pair = pair;
    this.#log = log;
    this.#onRenewed = onRenewed;
    this.#timer = setInterval(() => this.#tick(), pollMs).unref();
  }

  get pair(): ServerPair {
    return this.#pair;
  }

  /** Other files from now on; the pair is the one that was read from them. */
  move(files: PairFiles, pair: ServerPair): void {
    this.#files = files;
    this.#pair = pair;
    this.#read = undefined;
    this.#seen = undefined;
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
  }

  #tick(): void {
    if (this.#looking) return;
    this.#looking = true;
    this.#look()
      .catch((error: unknown) => {
        this.#log.error({ event: "bug", error: error instanceof Error ? error.message : String(error) });
      })
      .finally(() => {
        this.#looking = false;
      });
  }

  async #look(): Promise<void> {
    const files = this.#files;
    const looks = await signatureOf(files);
    if (looks === this.#read) return;
    // Whoever writes them may not be done: they are read when they have been left alone for one turn.
    if (looks !== this.#seen) {
      this.#seen = looks;
      return;
    }
    const pair = await readServerPair(files);
    if ((await signatureOf(files)) !== looks || files !== this.#files || this.#closed) return;
    this.#read = looks;
    if (pair.kind === "fault") {
      this.#log.error({ event: "server certificate not usable", error: pair.fault, kept: this.#pair.pin });
      return;
    }
    const before = this.#pair;
    if (pair.certificate === before.certificate && pair.key === before.key) return;
    this.#pair = pair;
    this.#onRenewed(pair);
    logRenewal(this.#log, before, pair);
  }
}

/** Partners may have pinned the key: when it is another, their mail stops until they know. */
export function logRenewal(log: Log, before: ServerPair, { pin, notAfter }: ServerPair): void {
  const event = { event: "server certificate renewed", pin, notAfter: notAfter.toISOString() };
  if (pin === before.pin) log.info(event);
  else log.warn({ ...event, pinBefore: before.pin, note: "the key is another: partners may have pinned the old one" });
}

async function signatureOf({ certificateFile, keyFile }: PairFiles): Promise<string> {
  const parts = await Promise.all(
    [certificateFile, keyFile].map((file) =>
      stat(file, { bigint: true }).then(
        ({ dev, ino, size, mtimeNs, ctimeNs }) => [dev, ino, size, mtimeNs, ctimeNs].join(":"),
        (error: unknown) => (error instanceof Error && "code" in error ? String(error.code) : "unknown"),
      ),
    ),
  );
  return parts.join(" ");
}
