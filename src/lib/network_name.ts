/** A network's name, `host` and `weave` among them: 1 to 31 letters, digits and dashes, as a namespace is called after it. */
export function isNetworkName(text: string): boolean {
  return /^[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?$/.test(text);
}
