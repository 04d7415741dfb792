/**
 * The relay's own notices: once a day what runs out, to our postmaster and, where a partner's file says so, to the
 * partner's contact what is its own; and, at most once an hour, what has happened and needs somebody: certificates in
 * quarantine, rollovers that do not come to their end. They go into the spool like any other mail.
 *
 * Promises: a restart tells nobody twice, but for a crash between the notice's commit and the note of it; nothing to tell
 * means no mail; a contact is written to by its own partner's servers alone. Whatever fails is logged, and tried again at
 * the next look: mail goes on all the same.
 */
import { readExpiry, type Expiry } from "../config/expiry.ts";
import type { RelayConfig } from "../config/relay-config.ts";
import type { Log } from "../log/log.ts";
import { parseMailbox, type Mailbox } from "../mail/address.ts";
import { composeNotice } from "../mail/notice.ts";
import type { Partner } from "../partner/partner.ts";
import { pinKey } from "../partner/pin.ts";
import type { RolloverWarning } from "../partner/rollover.ts";
import { readQuarantine } from "../sightings/reader.ts";
import type { DropBox } from "../spool/spool.ts";
import { readNoticeState, writeNoticeState, type NoticeState } from "./notice-state.ts";
import { contactNotice, dailyNotice, eventsNotice, type NoticeText } from "./notice-text.ts";
import { commitOwnMail } from "./report.ts";

export interface ExpiryMailOptions {
  /** The configuration in force, asked for at every look. */
  readonly config: () => RelayConfig;
  readonly dropBox: DropBox;
  readonly log: Log;
  readonly now?: () => Date;
  readonly firstLookMs?: number;
  readonly lookIntervalMs?: number;
}

const dayMs = 86_400_000;
const hourMs = 3_600_000;
/** Not at once: a relay that is started to try something is soon stopped again. */
const usualFirstLookMs = 60_000;
const usualLookIntervalMs = 5 * 60_000;

export class ExpiryMail {
  readonly #options: ExpiryMailOptions;
  readonly #now: () => Date;
  #state: NoticeState | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: ExpiryMailOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => new Date());
  }

  start(): void {
    this.#lookAfter(this.#options.firstLookMs ?? usualFirstLookMs);
  }

  /** Resolves when no notice is being written. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#looking;
  }

  /** Writes what is due. One look at a time; never fails. */
  look(): Promise<void> {
    this.#looking = this.#looking.then(() =>
      this.#look().catch((error: unknown) => {
        const text = error instanceof Error ? error.message : String(error);
        this.#options.log.error({ event: "notice failed", error: text });
      }),
    );
    return this.#looking;
  }

  #lookAfter(ms: number): void {
    this.#timer = setTimeout(() => void this.#lookAndGoOn(), ms);
  }

  async #lookAndGoOn(): Promise<void> {
    await this.look();
    if (this.#timer !== undefined) this.#lookAfter(this.#options.lookIntervalMs ?? usualLookIntervalMs);
  }

  async #look(): Promise<void> {
    const config = this.#options.config();
    if (config.expiry.mail === "off") return;
    this.#state ??= await readNoticeState(config.spool.path);
    const now = this.#now();
    const expiry = await readExpiry(config, now);
    await this.#tellPostmaster(config, expiry, now);
    for (const partner of config.partners) await this.#tellContact(config, partner, expiry, now);
    await this.#tellEvents(config, expiry, now);
  }

  async #tellPostmaster(config: RelayConfig, expiry: Expiry, now: Date): Promise<void> {
    if (!isDue(this.#known.postmasterMs, dayMs, now)) return;
    const notice = dailyNotice(expiry, config, now);
    if (notice === undefined) return;
    await this.#send(config, notice, config.postmaster, null);
    await this.#note(config, { postmasterMs: now.getTime() });
  }

  async #tellContact(config: RelayConfig, partner: Partner, { items }: Expiry, now: Date): Promise<void> {
    const { contactsMs } = this.#known;
    const lastMs = Object.hasOwn(contactsMs, partner.name) ? contactsMs[partner.name] : undefined;
    const to = contactOf(partner);
    if (to === undefined || !isDue(lastMs, dayMs, now)) return;
    const notice = contactNotice(partner, items, config);
    if (notice === undefined) return;
    await this.#send(config, notice, to, partner.name);
    await this.#note(config, { contactsMs: { ...contactsMs, [partner.name]: now.getTime() } });
  }

  async #tellEvents(config: RelayConfig, { rollovers }: Expiry, now: Date): Promise<void> {
    const { told, eventsMs } = this.#known;
    const quarantine = (await readQuarantine(config.spool.path)).map((one) => ({ one, key: `quarantine ${one.id}` }));
    const warnings = rollovers.map((one) => ({ one, key: rolloverKey(one.partner, one.warning) }));
    const isNew = ({ key }: { readonly key: string }): boolean => !told.includes(key);
    const [shown, warned] = [quarantine.filter(isNew), warnings.filter(isNew)];
    // What is over is forgotten: if it comes again, it is told again.
    const current = new Set([...quarantine, ...warnings].map(({ key }) => key));
    const stillSo = told.filter((key) => current.has(key));
    if (shown.length + warned.length === 0 || !isDue(eventsMs, hourMs, now)) {
      if (stillSo.length < told.length) await this.#note(config, { told: stillSo });
      return;
    }
    const ones = <One>(list: ReadonlyArray<{ readonly one: One }>): One[] => list.map(({ one }) => one);
    await this.#send(config, eventsNotice(ones(shown), ones(warned), config, now), config.postmaster, null);
    await this.#note(config, { eventsMs: now.getTime(), told: [...current] });
  }

  get #known(): NoticeState {
    if (this.#state === undefined) throw new Error("the state is read at the beginning of a look");
    return this.#state;
  }

  async #send(
    config: RelayConfig,
    { subject, text }: NoticeText,
    to: Mailbox,
    toPartner: string | null,
  ): Promise<void> {
    const { dropBox, log } = this.#options;
    const { hostname, postmaster } = config;
    const id = await commitOwnMail({ dropBox, now: this.#now, toPartner }, (noticeId) =>
      composeNotice({ id: noticeId, hostname, now: this.#now(), postmaster, to, subject, text }),
    );
    log.info({ event: "notice", id, toPartner, subject });
  }

  /** In memory first: as long as this process lives, a full disk makes no second notice. */
  async #note(config: RelayConfig, change: Partial<NoticeState>): Promise<void> {
    this.#state = { ...this.#known, ...change };
    await writeNoticeState(config.spool.path, this.#state);
  }
}

/** Also where the last time is in the future: that was by a clock that has been set back since. */
function isDue(lastMs: number | undefined, intervalMs: number, now: Date): boolean {
  return lastMs === undefined || now.getTime() - lastMs >= intervalMs || lastMs > now.getTime();
}

/** The configuration has made sure that it is an address in the partner's domains; undefined: nobody is told. */
function contactOf({ notifyContact, contact, deliver }: Partner): Mailbox | undefined {
  if (!notifyContact || contact === undefined || deliver === undefined) return undefined;
  const parsed = parseMailbox(contact, true);
  return parsed.kind === "ok" && deliver.domains.includes(parsed.value.domain) ? parsed.value : undefined;
}

/** What makes a warning the same one as yesterday's: not its dates. */
function rolloverKey(partner: Partner, warning: RolloverWarning): string {
  return ["rollover", partner.name, warning.kind, ...pinsOf(warning)].join(" ");
}

function pinsOf(warning: RolloverWarning): string[] {
  switch (warning.kind) {
    case "unconfirmed":
      return [pinKey(warning.pending)];
    case "nextUnseen":
      return [pinKey(warning.next)];
    case "oldInUse":
    case "retiredInUse":
      return [pinKey(warning.old)];
    case "retiredPins":
      return warning.old.map(pinKey);
  }
}
