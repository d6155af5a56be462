/**
 * Error families. A message starts with a capital, has no full stop and no contraction: the action that failed, strings
 * quoted, then a colon, what is and what should be. `SysError`, for failing system calls, is in `ffi/errno.ts`.
 */

/** Octets that do not follow their format. Thrown by decoders only; the edge counts it and drops the message. */
export class WireError extends Error {
  override readonly name = "WireError";
}

/** A peer broke the rules of the protocol; ends its connection with this message as the reason. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

/**
 * Something the user can mend: a wrong flag, argument or environment variable. Exit status 1, as from Weave Net 2.8; 2 of commands
 * that it does not have.
 */
export class OptionError extends Error {
  override readonly name = "OptionError";
  /** @param option name of the flag without dashes, where one is to blame */
  constructor(message: string, readonly option?: string) {
    super(message);
  }
}

/** An operation that failed half-way: the message says which step, and what was undone or what is left. Exit status 1. */
export class OperationError extends Error {
  override readonly name = "OperationError";
  /** @param exitStatus of the command that ran the operation */
  constructor(message: string, readonly exitStatus = 1, options?: ErrorOptions) {
    super(message, options);
  }
}

/** What has to survive a restart cannot be written, as on a full disk: the message says which file, and why. */
export class NotStoredError extends OperationError {}

/** What an HTTP client exits with where it cannot connect, and commands with it. */
const NOT_CONNECTED = 7;

/** Nobody listens where the router should. */
export class RouterAbsentError extends OperationError {
  constructor(exitStatus = NOT_CONNECTED, options?: ErrorOptions) {
    super("weave is not present. Have you launched it?", exitStatus, options);
  }
}

/** The router is there and does not answer: what it would have said is unknown. */
export class NoAnswerError extends OperationError {}
