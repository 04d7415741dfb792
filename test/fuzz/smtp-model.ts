/**
 * A model of SMTP as the receiver speaks it inside a session of an identified partner: after each command, which replies
 * are legal and in which state the session is. It knows nothing of the receiver's code: it is RFC 5321, 1870, 3461, 6152
 * and 6531, and the policy of the test's partner.
 */

export interface ModelState {
  readonly greeted: boolean;
  readonly transaction: "none" | "mail" | "recipients";
}

export const initialState: ModelState = { greeted: false, transaction: "none" };

/** One line of a client, and what it would mean. */
export interface Command {
  readonly line: string;
  readonly kind: "EHLO" | "HELO" | "MAIL" | "RCPT" | "DATA" | "RSET" | "NOOP" | "QUIT" | "STARTTLS" | "garbage";
  /** Is the argument one that this partner may use? */
  readonly valid: boolean;
}

const refusal = /^[45]\d\d$/;

/** What the reply to the command may be, and the state behind it. */
export function expectation(
  state: ModelState,
  { kind, valid }: Command,
): { codes: RegExp; next: (code: string) => ModelState } {
  const stay = () => state;
  const ok = (reached: ModelState) => (code: string) => (code === "250" ? reached : state);
  const needs = (condition: boolean, reached: ModelState) =>
    condition && valid ? { codes: /^250$|^4\d\d$/, next: ok(reached) } : { codes: refusal, next: stay };
  switch (kind) {
    case "EHLO":
    case "HELO":
      return valid
        ? { codes: /^250$/, next: () => ({ greeted: true, transaction: "none" }) }
        : { codes: refusal, next: stay };
    case "MAIL":
      return needs(state.greeted && state.transaction === "none", { greeted: true, transaction: "mail" });
    case "RCPT":
      return needs(state.greeted && state.transaction !== "none", { greeted: true, transaction: "recipients" });
    case "DATA":
      return state.greeted && state.transaction === "recipients" && valid
        ? { codes: /^354$/, next: () => ({ greeted: true, transaction: "none" }) }
        : { codes: refusal, next: stay };
    case "RSET":
      // With an argument it may be refused or done: RFC 5321 §4.1.1.5 gives it none, and servers ignore one.
      return {
        codes: valid ? /^250$/ : /^250$|^501$/,
        next: (code) => (code === "250" ? { ...state, transaction: "none" } : state),
      };
    case "NOOP":
      return { codes: /^250$/, next: stay };
    case "QUIT":
      return { codes: /^221$/, next: stay };
    case "STARTTLS":
      return { codes: /^50[13]$/, next: stay };
    case "garbage":
      return { codes: refusal, next: stay };
  }
}
