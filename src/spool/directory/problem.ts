/** What the driver tells of, for the log, while it goes on. */
export interface SpoolProblem {
  /**
   * `damaged`: set aside in `corrupt/`. `unreadable`: cannot be read now, will be tried again. `leftover`: a file that
   * should be gone. `not written`: the disk does not take what has to be written; it is tried again before anything new is
   * claimed. `clock set back`: waits that began in the future begin now.
   */
  readonly kind: "damaged" | "unreadable" | "leftover" | "not written" | "index rebuilt" | "clock set back";
  readonly file: string;
  readonly reason: string;
}

export type Report = (problem: SpoolProblem) => void;
