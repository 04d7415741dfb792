/**
 * The receiver's memory of certificates: complete in memory, and on disk for its next life and for the operator.
 *
 * Promises: a sighting costs a session nothing, and whatever becomes of the files, no mail is touched. A pin's first use
 * and a new certificate in quarantine are written at once, further uses within a minute; a crash forgets no more than
 * that. What a peer can make us keep is limited, in number and in size; of the quarantine, what was not seen for longest
 * goes first: of the address that shows too many, or, where there are too many in all, of the partner who has most.
 */
import type { X509Certificate } from "node:crypto";
import { join } from "node:path";
import type { Log } from "../log/log.ts";
import type { PeerIdentity } from "../partner/identity.ts";
import type { Partner } from "../partner/partner.ts";
import { certificateDigest, pinKey, spkiDigest, type Pin } from "../partner/pin.ts";
import { readRecords, sightingsFolders, type SightingsFolders } from "./reader.ts";
import {
  addressesMax,
  certificateBytesMax,
  certificatesPerPinMax,
  decodePinRecord,
  decodeQuarantineRecord,
  encodePinRecord,
  encodeQuarantineRecord,
  pinRecordName,
  quarantineRecordName,
  type CertificateRecord,
  type PinCertificateRecord,
  type PinRecord,
  type QuarantineRecord,
} from "./record.ts";
import { RecordWriter, type RecordWriterOptions } from "./record-writer.ts";
import { firstSeenAs, quarantineId, usageKey, type Witness } from "./sightings.ts";

const quarantineMax = 1000;
const quarantinePerAddressMax = 20;
/** A certificate in quarantine that is not shown for so long is forgotten. */
const quarantineDays = 30;
const dayMs = 86_400_000;
const partnersMax = 20;
const wordsMax = 500;

export class SightingsRecorder implements Witness {
  readonly #folders: SightingsFolders;
  readonly #log: Log;
  readonly #writer: RecordWriter;
  readonly #pins = new Map<string, PinRecord>();
  /** By the name of its file; the one that was not seen for longest is the first. */
  readonly #quarantine = new Map<string, QuarantineRecord>();
  /** A trust anchor's key takes some digests, and is asked for at every MAIL. */
  readonly #keys = new WeakMap<Pin, string>();

  private constructor(folders: SightingsFolders, log: Log, options: RecordWriterOptions) {
    this.#folders = folders;
    this.#log = log;
    this.#writer = new RecordWriter([folders.root, folders.pins, folders.quarantine], log, options);
  }

  /** Never fails: what cannot be read is logged, and is as if it had not been seen. */
  static async open(
    spoolPath: string,
    log: Log,
    now: Date,
    options: RecordWriterOptions = {},
  ): Promise<SightingsRecorder> {
    const recorder = new SightingsRecorder(sightingsFolders(spoolPath), log, options);
    await recorder.#load(now);
    return recorder;
  }

  firstSeen(partner: Partner, pin: Pin): Date | undefined {
    const record = this.#pins.get(usageKey(partner.name, this.#keyOf(pin)));
    return record === undefined ? undefined : firstSeenAs(pin, record.firstSeenMs, record.nextSinceMs);
  }

  noteIdentified({ partner, pin }: PeerIdentity, chain: readonly X509Certificate[], address: string, now: Date): void {
    const leaf = chain[0];
    if (leaf === undefined) return;
    const key = usageKey(partner.name, this.#keyOf(pin));
    const nowMs = now.getTime();
    let record = this.#pins.get(key);
    const isFirst = record === undefined || (pin.state === "next" && record.nextSinceMs === undefined);
    record ??= {
      partner: partner.name,
      pin: this.#keyOf(pin),
      firstSeenMs: nowMs,
      nextSinceMs: undefined,
      certificates: [],
    };
    this.#pins.set(key, record);
    // Once the rollover is over the pin is in use like any other: should it ever be the next one again, time begins anew.
    record.nextSinceMs = pin.state === "next" ? (record.nextSinceMs ?? nowMs) : undefined;
    noteUse(certificateIn(record, leaf, nowMs), address, nowMs);
    record.certificates = latestOf(record.certificates);
    this.#writePin(record, isFirst ? "now" : "later");
    this.#release(quarantineRecordName(leaf.raw));
  }

  /**
   * Another configuration is in force. A pin that stands in it and is not the next one has not been seen as such: a
   * partner that was removed and enrolled anew, with the same key to come, does not lose its old one at once. Of partners
   * that are not in it nothing is forgotten: their files may come back.
   */
  retain(partners: readonly Partner[]): void {
    for (const partner of partners) {
      for (const pin of partner.pins) {
        if (pin.state === "next") continue;
        const record = this.#pins.get(usageKey(partner.name, this.#keyOf(pin)));
        if (record?.nextSinceMs === undefined) continue;
        record.nextSinceMs = undefined;
        this.#writePin(record, "now");
      }
    }
  }

  noteRefused({ partner, pin }: PeerIdentity, [leaf]: readonly X509Certificate[], now: Date): void {
    // Of a pin that was never in use there is nothing to be told but what the log tells.
    const record = this.#pins.get(usageKey(partner.name, this.#keyOf(pin)));
    const used = record?.certificates.find(({ der }) => leaf !== undefined && der.equals(leaf.raw));
    if (record === undefined || used === undefined) return;
    used.refused = { count: (used.refused?.count ?? 0) + 1, lastMs: now.getTime() };
    this.#writePin(record, "later");
  }

  noteUnknown([leaf]: readonly X509Certificate[], addressOf: readonly Partner[], address: string, now: Date): string {
    if (leaf === undefined) return "";
    const id = quarantineId(leaf);
    const name = quarantineRecordName(leaf.raw);
    const partners = addressOf.slice(0, partnersMax).map((partner) => partner.name);
    const known = this.#quarantine.get(name);
    if (known === undefined) this.#alert(id, leaf, partners, address);
    if (leaf.raw.length > certificateBytesMax) return id;
    if (known === undefined) this.#makeRoom(address, partners, now);
    const record = known ?? { ...newCertificate(leaf, now.getTime()), partners };
    record.partners = partners;
    noteUse(record, address, now.getTime());
    this.#quarantine.delete(name); // the latest is the last
    this.#quarantine.set(name, record);
    this.#writeQuarantined(name, record, known === undefined ? "now" : "later");
    return id;
  }

  /** Writes what is not written yet, if the disk takes it; nothing is noted from then on. */
  async close(): Promise<void> {
    await this.#writer.close();
  }

  async #load(now: Date): Promise<void> {
    const damaged = (file: string): void => {
      this.#log.error({ event: "sighting skipped", file, cause: "it is damaged, or not ours to read" });
    };
    const { pins, quarantine } = this.#folders;
    try {
      await this.#writer.removeDrafts();
      for (const record of await readRecords(pins, decodePinRecord, pinRecordName, damaged)) {
        this.#pins.set(usageKey(record.partner, record.pin), record);
      }
      const nameOf = ({ der }: QuarantineRecord): string => quarantineRecordName(der);
      const found = await readRecords(quarantine, decodeQuarantineRecord, nameOf, damaged);
      for (const record of found.toSorted((a, b) => a.lastSeenMs - b.lastSeenMs)) {
        this.#quarantine.set(nameOf(record), record);
      }
    } catch (error) {
      const err = error instanceof Error ? error : new Error(String(error));
      this.#log.error({ event: "fault", during: "reading what was seen before", err });
    }
    this.#forgetOld(now);
    while (this.#quarantine.size > quarantineMax) this.#releaseOldest(() => true);
  }

  /** For one more certificate from this address. */
  #makeRoom(address: string, partners: readonly string[], now: Date): void {
    this.#forgetOld(now);
    const isFrom = (record: QuarantineRecord): boolean => record.addresses.includes(address);
    const fromAddress = [...this.#quarantine.values()].filter(isFrom).length;
    if (fromAddress >= quarantinePerAddressMax) this.#releaseOldest(isFrom);
    if (this.#quarantine.size < quarantineMax) return;
    const groups = Map.groupBy([partners, ...[...this.#quarantine.values()].map((record) => record.partners)], String);
    const [largest] = [...groups].toSorted(([, a], [, b]) => b.length - a.length);
    if (largest !== undefined) this.#releaseOldest((record) => String(record.partners) === largest[0]);
  }

  #forgetOld(now: Date): void {
    const oldestMs = now.getTime() - quarantineDays * dayMs;
    for (const [name, { lastSeenMs }] of this.#quarantine) if (lastSeenMs < oldestMs) this.#release(name);
  }

  #releaseOldest(isMeant: (record: QuarantineRecord) => boolean): void {
    const oldest = [...this.#quarantine].find(([, record]) => isMeant(record));
    if (oldest !== undefined) this.#release(oldest[0]);
  }

  #release(name: string): void {
    if (this.#quarantine.delete(name)) this.#writer.remove(join(this.#folders.quarantine, name));
  }

  #writePin(record: PinRecord, urgency: "now" | "later"): void {
    this.#writer.put(join(this.#folders.pins, pinRecordName(record)), () => encodePinRecord(record), urgency);
  }

  #writeQuarantined(name: string, record: QuarantineRecord, urgency: "now" | "later"): void {
    this.#writer.put(join(this.#folders.quarantine, name), () => encodeQuarantineRecord(record), urgency);
  }

  /** Somebody may have rolled over early: the operator is to ask. */
  #alert(reference: string, leaf: X509Certificate, partners: readonly string[], address: string): void {
    const isKept = leaf.raw.length <= certificateBytesMax;
    this.#log.warn({
      event: "quarantined",
      reference,
      address,
      addressOf: partners,
      spki: spkiDigest(leaf),
      certificate: certificateDigest(leaf),
      ...(isKept ? {} : { notKept: `the certificate has ${leaf.raw.length} octets` }),
      // Typed as text, and undefined in a certificate that has none.
      client: { subject: ((leaf.subject as string | undefined) ?? "").slice(0, wordsMax) },
    });
  }

  #keyOf(pin: Pin): string {
    const known = this.#keys.get(pin);
    if (known !== undefined) return known;
    const key = pinKey(pin);
    this.#keys.set(pin, key);
    return key;
  }
}

function certificateIn(record: PinRecord, leaf: X509Certificate, nowMs: number): PinCertificateRecord {
  const known = record.certificates.find(({ der }) => der.equals(leaf.raw));
  if (known !== undefined) return known;
  const added = { ...newCertificate(leaf, nowMs), refused: undefined };
  record.certificates.push(added);
  return added;
}

function newCertificate(leaf: X509Certificate, nowMs: number): CertificateRecord {
  return { der: leaf.raw, firstSeenMs: nowMs, lastSeenMs: nowMs, count: 0, addresses: [] };
}

function noteUse(record: CertificateRecord, address: string, nowMs: number): void {
  record.lastSeenMs = nowMs;
  record.count += 1;
  record.addresses = [address, ...record.addresses.filter((other) => other !== address)].slice(0, addressesMax);
}

/** The latest first, as many as are kept: the last one always, whatever its size. */
function latestOf(certificates: readonly PinCertificateRecord[]): PinCertificateRecord[] {
  let bytes = 0;
  return certificates
    .toSorted((a, b) => b.lastSeenMs - a.lastSeenMs)
    .slice(0, certificatesPerPinMax)
    .filter(({ der }, index) => (bytes += der.length) <= certificatesPerPinMax * certificateBytesMax || index === 0);
}
