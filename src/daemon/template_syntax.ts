/**
 * The syntax of Go's text/template, as far as reports need it: fields, variables, literals, function calls, pipelines, `if`, `with`,
 * `range`, `break`, `continue`, comments and trim markers. No `define`, `template` or `block`.
 */

/** A piece of the template, for error messages. */
export interface Place {
  /** Index of its first character. */
  readonly at: number;
  readonly source: string;
}

export type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "action"; readonly pipe: Pipe }
  | {
    readonly kind: "if" | "with" | "range";
    readonly pipe: Pipe;
    readonly body: readonly Node[];
    readonly otherwise: readonly Node[];
  }
  | { readonly kind: "break" | "continue" };

export interface Pipe extends Place {
  /** Variables that take the value; `range` may have two. */
  readonly variables: readonly string[];
  /** They are new ones (`:=`); else they exist already (`=`). */
  readonly declares: boolean;
  readonly commands: readonly Command[];
}

export interface Command extends Place {
  readonly operands: readonly [Operand, ...Operand[]];
}

export type Literal = string | number | bigint | boolean | null;

export type Operand =
  & Place
  & { readonly fields: readonly string[] }
  & (
    | { readonly kind: "dot" }
    | { readonly kind: "literal"; readonly value: Literal }
    | { readonly kind: "variable"; readonly name: string }
    | { readonly kind: "function"; readonly name: string }
    | { readonly kind: "pipe"; readonly pipe: Pipe }
  );

/** What Go says where a template cannot be parsed. */
export class TemplateSyntaxError extends Error {
  override readonly name = "TemplateSyntaxError";
}

const MAX_TEMPLATE_CHARACTERS = 65_536;
/** Of blocks and parentheses within each other. */
const MAX_DEPTH = 100;

const KEYWORDS = new Set(["if", "with", "range", "else", "end", "break", "continue", "define", "template", "block"]);

/** Throws TemplateSyntaxError. */
export function parseTemplate(template: string, functions: ReadonlySet<string>): readonly Node[] {
  if (template.length > MAX_TEMPLATE_CHARACTERS) {
    throw new TemplateSyntaxError(`template: :1: longer than ${MAX_TEMPLATE_CHARACTERS} characters`);
  }
  return new Parser(template, functions).parse();
}

type TokenKind = "space" | "string" | "number" | "variable" | "field" | "dot" | "word" | "mark";

interface Token extends Place {
  readonly kind: Exclude<TokenKind, "space">;
  /** Whether nothing stands between it and the token before. */
  readonly adjacent: boolean;
}

type Segment =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "action"; readonly at: number; readonly tokens: readonly Token[] };

const TOKENS: readonly (readonly [TokenKind, RegExp])[] = [
  ["space", /[ \t\r\n]+/y],
  ["string", /"(?:[^"\\\n]|\\.)*"|`[^`]*`|'(?:[^'\\\n]|\\.)+'/y],
  ["number", /[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\p{L}\p{Nd}_.])/uy],
  ["variable", /\$[\p{L}\p{Nd}_]*/uy],
  ["field", /\.[\p{L}_][\p{L}\p{Nd}_]*/uy],
  ["dot", /\.(?![\p{L}\p{Nd}_.])/uy],
  ["word", /[\p{L}_][\p{L}\p{Nd}_]*/uy],
  ["mark", /:=|[=|,()]/y],
];

/** Cuts a template into text and actions, and actions into tokens. */
class Scanner {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  scan(): Segment[] {
    const text = this.#text;
    const segments: Segment[] = [];
    let at = 0;
    let trimStart = false;
    for (;;) {
      const open = text.indexOf("{{", at);
      const trimEnd = open >= 0 && /^-[ \t\r\n]/.test(text.slice(open + 2, open + 4));
      let plain = text.slice(at, open < 0 ? undefined : open);
      if (trimStart) plain = plain.replace(/^[ \t\r\n]+/, "");
      if (trimEnd) plain = plain.replace(/[ \t\r\n]+$/, "");
      if (plain !== "") segments.push({ kind: "text", text: plain });
      if (open < 0) return segments;
      const action = this.#action(open, open + (trimEnd ? 3 : 2));
      if (action.tokens !== undefined) segments.push({ kind: "action", at: open, tokens: action.tokens });
      at = action.end;
      trimStart = action.trims;
    }
  }

  /** `tokens` is undefined for a comment. */
  #action(open: number, start: number): { tokens: readonly Token[] | undefined; end: number; trims: boolean } {
    const comment = /[ \t\r\n]*\/\*/y;
    comment.lastIndex = start;
    if (comment.test(this.#text)) return { tokens: undefined, ...this.#comment(open, comment.lastIndex) };
    const tokens: Token[] = [];
    let at = start;
    let adjacent = false;
    for (;;) {
      const end = this.#close(at);
      if (end !== undefined) return { tokens, ...end };
      const [kind, source] = this.#token(open, at);
      if (kind !== "space") tokens.push({ kind, at, source, adjacent });
      adjacent = kind !== "space";
      at += source.length;
    }
  }

  #comment(open: number, at: number): { end: number; trims: boolean } {
    const star = this.#text.indexOf("*/", at);
    if (star < 0) throw syntaxError(this.#text, open, "unclosed comment");
    const end = this.#close(star + 2);
    if (end === undefined) throw syntaxError(this.#text, open, "comment ends before closing delimiter");
    return end;
  }

  /** The end of an action, where it is here. */
  #close(at: number): { end: number; trims: boolean } | undefined {
    const close = /(?:[ \t\r\n]+(-))?\}\}/y;
    close.lastIndex = at;
    const found = close.exec(this.#text);
    return found === null ? undefined : { end: close.lastIndex, trims: found[1] !== undefined };
  }

  #token(open: number, at: number): [TokenKind, string] {
    const text = this.#text;
    if (at >= text.length) throw syntaxError(text, open, "unclosed action");
    for (const [kind, pattern] of TOKENS) {
      pattern.lastIndex = at;
      const found = pattern.exec(text);
      if (found !== null) return [kind, found[0]];
    }
    const character = String.fromCodePoint(text.codePointAt(at)!);
    if (character === '"' || character === "`") throw syntaxError(text, at, "unterminated quoted string");
    if (character === "'") throw syntaxError(text, at, "unterminated character constant");
    if (/[0-9+-]/.test(character)) throw syntaxError(text, at, `bad number syntax: ${JSON.stringify(character)}`);
    throw syntaxError(text, at, `unexpected ${JSON.stringify(character)} in action`);
  }
}

function syntaxError(text: string, at: number, message: string): TemplateSyntaxError {
  return new TemplateSyntaxError(`template: :${text.slice(0, at).split("\n").length}: ${message}`);
}

/** How a list of nodes ended. */
interface Ending {
  readonly word: "else" | "end" | "EOF";
  readonly action: Action | undefined;
}

/** Reads the tokens of one action. */
interface Action {
  readonly at: number;
  readonly tokens: readonly Token[];
  next: number;
}

class Parser {
  readonly #text: string;
  readonly #functions: ReadonlySet<string>;
  readonly #segments: readonly Segment[];
  #next = 0;
  #depth = 0;
  #rangeDepth = 0;
  /** Names in scope; `$` is the whole. */
  readonly #variables: string[] = ["$"];

  constructor(text: string, functions: ReadonlySet<string>) {
    this.#text = text;
    this.#functions = functions;
    this.#segments = new Scanner(text).scan();
  }

  parse(): Node[] {
    const [nodes, ending] = this.#nodes();
    if (ending.word !== "EOF") throw this.#error(ending.action!.at, `unexpected {{${ending.word}}}`);
    return nodes;
  }

  #nodes(): [Node[], Ending] {
    const nodes: Node[] = [];
    while (this.#next < this.#segments.length) {
      const segment = this.#segments[this.#next++]!;
      if (segment.kind === "text") {
        nodes.push(segment);
        continue;
      }
      const action: Action = { at: segment.at, tokens: segment.tokens, next: 0 };
      const first = action.tokens[0];
      if (first === undefined) throw this.#error(action.at, "missing value for command");
      const word = first.kind === "word" ? first.source : "";
      if (word === "else" || word === "end") {
        action.next = 1;
        if (word === "end") this.#expectEnd(action, "end");
        return [nodes, { word, action }];
      }
      nodes.push(
        KEYWORDS.has(word) ? this.#keyword(word, action) : { kind: "action", pipe: this.#wholePipe(action, "command") },
      );
    }
    return [nodes, { word: "EOF", action: undefined }];
  }

  #keyword(word: string, action: Action): Node {
    action.next = 1;
    switch (word) {
      case "if":
      case "with":
      case "range":
        return this.#block(word, action);
      case "break":
      case "continue":
        this.#expectEnd(action, word);
        if (this.#rangeDepth === 0) throw this.#error(action.at, `{{${word}}} outside {{range}}`);
        return { kind: word };
      default:
        throw this.#error(action.at, `{{${word}}} is not supported in reports`);
    }
  }

  #block(kind: "if" | "with" | "range", action: Action): Node {
    this.#deeper(action.at);
    const scope = this.#variables.length;
    const pipe = this.#wholePipe(action, kind);
    const inner = this.#variables.length;
    if (kind === "range") this.#rangeDepth++;
    const [body, ending] = this.#nodes();
    if (kind === "range") this.#rangeDepth--;
    this.#variables.length = inner;
    const otherwise = this.#otherwise(kind, ending);
    this.#variables.length = scope;
    this.#depth--;
    return { kind, pipe, body, otherwise };
  }

  #otherwise(kind: "if" | "with" | "range", ending: Ending): Node[] {
    if (ending.word === "EOF") throw this.#error(this.#text.length, "unexpected EOF");
    if (ending.word === "end") return [];
    const action = ending.action!;
    const word = action.tokens[action.next];
    // `{{else if X}}` is `{{else}}{{if X}}` with one end for both.
    if (word?.kind === "word" && word.source === kind && kind !== "range") {
      action.next++;
      return [this.#block(kind, action)];
    }
    this.#expectEnd(action, "else");
    const [nodes, end] = this.#nodes();
    if (end.word === "EOF") throw this.#error(this.#text.length, "unexpected EOF");
    if (end.word === "else") throw this.#error(end.action!.at, "expected end; found {{else}}");
    return nodes;
  }

  #wholePipe(action: Action, context: string): Pipe {
    const pipe = this.#pipe(action, context);
    this.#expectEnd(action, context);
    return pipe;
  }

  /** Up to a closing parenthesis or the end of the action. */
  #pipe(action: Action, context: string): Pipe {
    const start = action.next;
    const { variables, declares } = this.#assignment(action, context);
    const commands: Command[] = [];
    do commands.push(this.#command(action, context)); while (this.#takeMark(action, "|"));
    commands.forEach(({ at, operands: [first] }, i) => {
      if (i > 0 && (first.kind === "literal" || first.kind === "dot")) {
        throw this.#error(at, `non executable command in pipeline stage ${i + 1}`);
      }
    });
    if (declares) this.#variables.push(...variables);
    return { ...this.#place(action, start), variables, declares, commands };
  }

  #assignment(action: Action, context: string): { variables: string[]; declares: boolean } {
    const tokens = action.tokens.slice(action.next, action.next + 4);
    const [first, second, third, fourth] = tokens;
    const nothing = { variables: [], declares: false };
    if (first?.kind !== "variable") return nothing;
    if (second?.source === ":=" || second?.source === "=") {
      action.next += 2;
      return this.#assigned([first], second);
    }
    if (second?.source !== "," || third?.kind !== "variable" || (fourth?.source !== ":=" && fourth?.source !== "=")) {
      return nothing;
    }
    if (context !== "range") throw this.#error(first.at, `too many declarations in ${context}`);
    action.next += 4;
    return this.#assigned([first, third], fourth);
  }

  #assigned(tokens: readonly Token[], mark: Token): { variables: string[]; declares: boolean } {
    if (mark.source === "=") tokens.forEach((token) => this.#checkVariable(token));
    return { variables: tokens.map((token) => token.source), declares: mark.source === ":=" };
  }

  #command(action: Action, context: string): Command {
    const start = action.next;
    const operands: Operand[] = [];
    for (;;) {
      const token = action.tokens[action.next];
      if (token === undefined || token.source === ")" || token.source === "|") break;
      operands.push(this.#operand(token, action, context));
    }
    const [first, ...others] = operands;
    if (first === undefined) throw this.#error(action.tokens[start]?.at ?? action.at, `missing value for ${context}`);
    return { ...this.#place(action, start), operands: [first, ...others] };
  }

  #operand(token: Token, action: Action, context: string): Operand {
    const start = action.next++;
    const term = this.#term(token, action, context);
    const fields = token.kind === "field" ? [token.source.slice(1)] : [];
    for (
      let next = action.tokens[action.next];
      next?.kind === "field" && next.adjacent;
      next = action.tokens[++action.next]
    ) {
      if (term.kind === "literal") {
        throw this.#error(next.at, `unexpected . after term ${JSON.stringify(token.source)}`);
      }
      fields.push(next.source.slice(1));
    }
    const last = action.tokens[action.next];
    if (last?.adjacent && !/^[|,)]$/.test(last.source)) {
      throw this.#error(last.at, `unexpected ${JSON.stringify(last.source)} in operand`);
    }
    return { ...term, fields, ...this.#place(action, start) };
  }

  #term(token: Token, action: Action, context: string) {
    switch (token.kind) {
      case "dot":
      case "field":
        return { kind: "dot" } as const;
      case "variable":
        this.#checkVariable(token);
        return { kind: "variable", name: token.source } as const;
      case "number":
        return { kind: "literal", value: this.#number(token) } as const;
      case "string":
        return { kind: "literal", value: this.#string(token) } as const;
      case "word":
        return this.#word(token);
      case "mark":
        break;
      default:
        token.kind satisfies never;
    }
    if (token.source !== "(") throw this.#error(token.at, `unexpected ${JSON.stringify(token.source)} in ${context}`);
    this.#deeper(token.at);
    const pipe = this.#pipe(action, "parenthesized pipeline");
    this.#depth--;
    if (!this.#takeMark(action, ")")) throw this.#error(token.at, "unclosed left paren");
    return { kind: "pipe", pipe } as const;
  }

  #word({ source, at }: Token) {
    if (source === "true" || source === "false") return { kind: "literal", value: source === "true" } as const;
    if (source === "nil") return { kind: "literal", value: null } as const;
    if (!this.#functions.has(source)) throw this.#error(at, `function ${JSON.stringify(source)} not defined`);
    return { kind: "function", name: source } as const;
  }

  #number({ source }: Token): number | bigint {
    if (/[.eE]/.test(source) && !/^[+-]?0[xX]/.test(source)) return Number(source);
    const magnitude = BigInt(source.replace(/^[+-]/, ""));
    return source.startsWith("-") ? -magnitude : magnitude;
  }

  /** A character constant is its number. */
  #string({ source, at }: Token): string | bigint {
    const inner = source.slice(1, -1);
    if (source.startsWith("`")) return inner.replaceAll("\r", "");
    const text = unescape(inner);
    if (text === undefined) throw this.#error(at, `invalid syntax: ${source}`);
    if (source.startsWith('"')) return text;
    if ([...text].length !== 1) throw this.#error(at, `malformed character constant: ${source}`);
    return BigInt(text.codePointAt(0)!);
  }

  #checkVariable({ source, at }: Token): void {
    if (!this.#variables.includes(source)) throw this.#error(at, `undefined variable ${JSON.stringify(source)}`);
  }

  #takeMark(action: Action, mark: string): boolean {
    const found = action.tokens[action.next]?.source === mark && action.tokens[action.next]!.kind === "mark";
    if (found) action.next++;
    return found;
  }

  #expectEnd(action: Action, context: string): void {
    const token = action.tokens[action.next];
    if (token === undefined) return;
    const right = token.source === ")" ? "unexpected right paren" : `unexpected ${JSON.stringify(token.source)}`;
    throw this.#error(token.at, `${right} in ${context}`);
  }

  #deeper(at: number): void {
    if (++this.#depth > MAX_DEPTH) throw this.#error(at, `nested more than ${MAX_DEPTH} deep`);
  }

  #place(action: Action, start: number): Place {
    const { at } = action.tokens[start]!;
    const last = action.tokens[action.next - 1]!;
    return { at, source: this.#text.slice(at, last.at + last.source.length) };
  }

  #error(at: number, message: string): TemplateSyntaxError {
    return syntaxError(this.#text, at, message);
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  '"': '"',
  "'": "'",
};

/** Go's escapes; undefined where there is another. */
function unescape(text: string): string | undefined {
  let wrong = false;
  const plain = text.replace(
    /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))/gsu,
    (_, x?: string, u?: string, long?: string, octal?: string, one?: string) => {
      if (one !== undefined) {
        const escaped = Object.hasOwn(ESCAPES, one) ? ESCAPES[one] : undefined;
        wrong ||= escaped === undefined;
        return escaped ?? "";
      }
      const code = octal === undefined ? parseInt((x ?? u ?? long)!, 16) : parseInt(octal, 8);
      wrong ||= code > 0x10ffff || (octal !== undefined && code > 255);
      return wrong ? "" : String.fromCodePoint(code);
    },
  );
  return wrong ? undefined : plain;
}
