/**
 * One connection's conversation, apart from sockets and from the SMTP library: commands and messages come in, replies go
 * out, one for each. What may be done is decided in `session.ts`; messages are received by `intake.ts`.
 *
 * Promises: whatever fails on our side ends at most this conversation, with a temporary reply and a line in the log; a
 * conversation that ends, however it does, leaves nothing of a message behind.
 */
import { replies, replyLine, type ReplyName } from "../mail/reply.ts";
import type { PeerIdentity } from "../partner/identity.ts";
import { answerLine, sessionTag } from "./answer-line.ts";
import type { Seat } from "./census.ts";
import { messageTimeoutMs, type ReceiverContext } from "./context.ts";
import { decisionOf } from "./decision.ts";
import { Intake, replyToFault } from "./intake.ts";
import { intakeRequest } from "./intake-request.ts";
import { Journal } from "./journal.ts";
import { Session, type Answer, type Greeting, type SecuredBy, type Transaction } from "./session.ts";
import { verbOf } from "./verb.ts";
import type { WireFault } from "./wire-reader.ts";

/** What a conversation can do to its connection. */
export interface Wire {
  /** 421 closes the connection, too. */
  send(code: number, lines: string | string[]): void;
  close(): void;
  /** 220 has been sent: what comes next is TLS. */
  startTls(): void;
  /** What comes next is the content of a message. */
  receiveContent(intake: Intake): void;
}

/** Is a message that is coming in waited for? One that is being committed always is: its client waits for us. */
export type Patience = "patient" | "impatient";

/** What the client sends now. */
type Phase =
  | { readonly kind: "commands" }
  | { readonly kind: "content"; readonly intake: Intake; readonly transaction: Transaction }
  /** Nothing: it waits for us. */
  | { readonly kind: "commit" }
  | { readonly kind: "closed" };

const commandsMaxTurnedAway = 5;

export class Conversation {
  readonly journal: Journal;
  readonly #id: string;
  readonly #address: string;
  readonly #wire: Wire;
  readonly #context: ReceiverContext;
  readonly #session: Session;
  #phase: Phase = { kind: "commands" };
  /** Why it ends as soon as no message is coming in. */
  #ending: ReplyName | undefined;
  /** Commands of a client that is turned away; undefined for one that is not. */
  #commandsTurnedAway: number | undefined;
  #messageTimer: NodeJS.Timeout | undefined;
  #partnerSeat: Seat | undefined;

  constructor(id: string, address: string, wire: Wire, context: ReceiverContext) {
    this.#id = id;
    this.#address = address;
    this.#wire = wire;
    this.#context = context;
    this.#session = new Session(id, address, context, (identity) => this.#takeSeat(identity));
    this.journal = new Journal(context.log, id, address);
  }

  /** Says so instead of the greeting, and takes nothing but QUIT from then on (RFC 5321 §3.1). */
  turnAway(reply: ReplyName): void {
    this.#commandsTurnedAway = 0;
    this.#answer(ours(reply));
  }

  /** TLS is up. */
  secure(by: SecuredBy): void {
    this.#session.secure(by);
  }

  /** Is it we who are waited for? */
  get isCommitting(): boolean {
    return this.#phase.kind === "commit";
  }

  /** A line without its CRLF. */
  onCommand(line: Buffer): void {
    if (this.#commandsTurnedAway !== undefined) this.#onCommandTurnedAway(line, (this.#commandsTurnedAway += 1));
    else if (this.#ending !== undefined) this.#answer(ours(this.#ending));
    else this.#execute(line);
  }

  onFault(fault: WireFault): void {
    this.#answer(ours(fault));
  }

  /** The content is complete: commits it, and says so. */
  async onEndOfData(): Promise<void> {
    clearTimeout(this.#messageTimer);
    if (this.#phase.kind !== "content") return; // the client has gone
    const { intake, transaction } = this.#phase;
    this.#phase = { kind: "commit" };
    const result = await intake.finish(this.#context.timeouts.commitMs);
    this.journal.message(result, transaction, transaction.policy.config.version.slice(0, 12));
    if (!this.#isOver()) this.#phase = { kind: "commands" };
    this.#session.endOfMessage(result.kind === "accepted");
    if (result.kind === "accepted") this.#send("queued", result.meta.id);
    else this.#send(result.reply, this.#tag);
    if (this.#ending !== undefined) this.#answer(ours(this.#ending));
  }

  /** Ends it with this reply: now, or after the message that is coming in. */
  end(reply: ReplyName, patience: Patience): void {
    if (this.#isOver()) return;
    this.#ending ??= reply;
    const isAwaited = this.isCommitting || (this.#phase.kind === "content" && patience === "patient");
    if (isAwaited) return;
    clearTimeout(this.#messageTimer);
    this.#answer(ours(this.#ending));
  }

  /** Something of ours went wrong: it ends, so that the client tries again. */
  fail(during: string, error: unknown): void {
    this.journal.fault(during, error);
    this.#send("sessionFault", this.#tag);
  }

  /** The connection is gone. */
  closed(): void {
    clearTimeout(this.#messageTimer);
    this.#partnerSeat?.leave();
    const phase = this.#phase;
    this.#phase = { kind: "closed" };
    if (phase.kind !== "content") return;
    this.journal.abandoned(phase.transaction);
    const abandoned = this.#context.work.track(phase.intake.abandon());
    abandoned.catch((error: unknown) => this.journal.fault("discard", error));
  }

  #onCommandTurnedAway(line: Buffer, commands: number): void {
    if (verbOf(line) === "QUIT") this.#quit();
    else if (commands > commandsMaxTurnedAway) this.#wire.close();
    else this.#send("quitOnly");
  }

  #execute(line: Buffer): void {
    try {
      const step = this.#session.perform(line);
      switch (step.kind) {
        case "answer":
          this.#answer(step.answer);
          this.#record(line, step.answer);
          break;
        case "hello":
          this.#wire.send(250, [...step.lines]);
          break;
        case "startTls":
          this.#startTls();
          break;
        case "content":
          this.#receive(step.transaction, step.greeting);
          break;
        case "quit":
          this.#quit();
          break;
      }
    } catch (error) {
      this.fail("command", error);
    }
  }

  /** A handshake is the dearest thing a stranger can ask for: before it begins it is counted. */
  #startTls(): void {
    const { handshakes, policy, now } = this.#context;
    if (!handshakes.take(this.#address, policy.config.limits.handshakesPerMinute, now().getTime())) {
      this.#answer(ours("tooManyHandshakes"));
      return;
    }
    this.#send("readyForTls");
    this.#wire.startTls();
  }

  #receive(transaction: Transaction, greeting: Greeting): void {
    const request = intakeRequest(this.#context, this.#session, transaction, greeting);
    let intake: Intake;
    try {
      intake = new Intake(request);
    } catch (error) {
      this.journal.fault("DATA", error);
      this.#answer(ours(replyToFault(error)));
      return;
    }
    this.#phase = { kind: "content", intake, transaction };
    this.#wire.receiveContent(intake);
    const timeoutMs = messageTimeoutMs(this.#context.timeouts, request.messageBytesMax);
    this.#messageTimer = setTimeout(() => this.end("messageTimeout", "impatient"), timeoutMs);
    this.#send("startData");
  }

  #quit(): void {
    this.#send("goodbye");
    this.#wire.close();
  }

  /** One of the partner's own places, from its first MAIL on: before, nobody knows whose connection this is. */
  #takeSeat(identity: PeerIdentity): boolean {
    const { name, limits } = identity.partner;
    if (this.#partnerSeat?.key === name) return true;
    const seat = this.#context.census.enterAs(name, limits.connectionsMax);
    if (seat === undefined) return false;
    this.#partnerSeat?.leave();
    this.#partnerSeat = seat;
    this.journal.identified(identity, this.#session.secured, this.#session.greeting?.name ?? "");
    return true;
  }

  #isOver(): boolean {
    return this.#phase.kind === "closed";
  }

  /** What the rules said is kept, to be asked again of other rules. */
  #record(line: Buffer, answer: Answer): void {
    const decision = decisionOf(this.#session, line, answer, this.#context.policy.config);
    if (decision !== undefined) this.#context.decisions.note(decision);
  }

  #answer(answer: Answer): void {
    this.journal.answer(answer);
    this.#wire.send(replies[answer.reply].code, answerLine(answer, this.#id).slice(4));
  }

  #send(name: ReplyName, detail?: string): void {
    const { code } = replies[name];
    this.#wire.send(code, replyLine(replies[name], detail).slice(4));
  }

  get #tag(): string {
    return sessionTag(this.#id);
  }
}

function ours(reply: ReplyName): Answer {
  return { reply, reason: {} };
}
