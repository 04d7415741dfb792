/** What a kit gives for one kind of mail server. */
import type { KitFacts } from "./facts.ts";

/** A piece of configuration. */
export interface Snippet {
  /** The name of its file in the kit. */
  readonly name: string;
  /** What is to be done with it. */
  readonly where: string;
  readonly text: string;
}

export interface ServerKit {
  /** The server's name, for people. */
  readonly title: string;
  readonly snippets: readonly Snippet[];
  /** In order, one step each. */
  readonly steps: readonly string[];
  /** How our certificate is verified there, and what to know about it. */
  readonly notes: readonly string[];
  /** Is the snippet started with the real server by our tests? */
  readonly proven: boolean;
}

export interface ServerKind {
  readonly defaults: { readonly certificateFile: string; readonly keyFile: string };
  readonly make: (facts: KitFacts) => ServerKit;
}
